"""Long jobs: given to a provider once, then asked after until they are done; waiting holds no place.

The provider's name for a job is on the log before anybody asks for it, so a successor goes on with the same job. A job
whose name died with its executor is `unknown`, like any other attempt, and the next attempt is a second job.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.executor import taxonomy
from services.executor.insisting import insist
from services.executor.pricing import priced
from services.executor.providers import Answered, Asked, Failed, JobProvider, Pending
from services.executor.running import Cancelled, Working
from services.executor.settlement import Ledger
from shared import subjects
from shared.bus.connection import Bus
from shared.config.providers import Route
from shared.contracts.commands import ExecuteCall, MediaJob
from shared.contracts.events import AttemptStarted, JobSubmitted
from shared.faults import point
from shared.prices import PriceBook

log = logging.getLogger("segue.executor")

SUBMIT_WITHIN_S: Final = 60.0
POLL_WITHIN_S: Final = 180.0
"""With the time to fetch what was made."""
MOST_TROUBLE: Final = 10
"""Times in a row that a job cannot be asked after, before it is given up."""
LONGEST_PAUSE_S: Final = 30.0
POLL_PAUSE_S: Final = 5.0
"""At least, when a provider says that it is asked too often."""


@dataclass(frozen=True, slots=True)
class Jobs:
    """Gives jobs and asks after them."""

    bus: Bus
    provider: Callable[[Route], JobProvider]
    prices: PriceBook
    now: Callable[[], datetime]

    async def submit(
        self, asked: Asked, started: AttemptStarted, route: Route, working: Working, budget_s: float
    ) -> MediaJob | Failed:
        """Give a claimed attempt's job, and write down what the provider calls it."""
        try:
            async with working.cancellable():
                given = await self.provider(route).submit(asked, route, budget_s=min(budget_s, SUBMIT_WITHIN_S))
        except Cancelled as reason:
            return Failed(taxonomy.CANCELLED, f"cancelled: {reason}", cost_usd=None)
        if isinstance(given, Failed):
            return given
        point("executor.submitted")
        job = MediaJob(
            attempt=started.attempt,
            role=started.role,
            provider=started.provider,
            model=started.model,
            operation=given.operation,
            reserved_usd=started.reserved_usd,
            submitted_at=self.now(),
        )
        command = asked.call
        facts = subjects.facts(command.run)
        subject = facts.job(command.purpose, command.call, started.attempt)
        named = JobSubmitted(run=command.run, call=command.call, job=job)
        # A name that is lost is a job that is paid for twice.
        await insist(lambda: self.bus.log.write(subject, named), "job.waits_to_be_named")
        point("executor.job_named")
        return job

    async def follow(self, ledger: Ledger, route: Route | None, working: Working) -> Pending | Answered | Failed:
        """Ask after the ledger's job once."""
        command, job = ledger.command, ledger.job
        assert job is not None
        left_s = command.run.left_s(self.now())
        if left_s <= 0:
            return Failed(taxonomy.DEADLINE, "the video was not done by the run's deadline", cost_usd=None)
        if route is None or (route.unavailable is not None and not route.paused):
            return Failed(taxonomy.JOB_LOST, f"role {job.role!r} cannot be asked any more", cost_usd=None)
        if await self.bus.log.exists(subjects.facts(command.run).ended):
            return Failed(taxonomy.RUN_ENDED, "the run has ended: its video is not waited for", cost_usd=None)
        try:
            async with working.cancellable():
                found = await self.provider(route).poll(
                    Asked(command, job.attempt), route, job.operation, budget_s=min(left_s, POLL_WITHIN_S)
                )
        except Cancelled as reason:
            return Failed(taxonomy.CANCELLED, f"cancelled: {reason}", cost_usd=None)
        if not isinstance(found, Pending):
            return priced(found, route, self.prices, command.settings)
        if found.trouble is None:
            ledger.job = job.model_copy(update={"polls": 0})
            return found
        if found.trouble.verdict.backpressure:  # it says "later": the job goes on
            return Pending(min(LONGEST_PAUSE_S, max(found.after_s, POLL_PAUSE_S)))
        if job.polls >= MOST_TROUBLE:
            return Failed(taxonomy.JOB_LOST, f"its job cannot be asked after: {found.trouble.message}", cost_usd=None)
        log.warning("job.trouble", extra={"operation": job.operation, "reason": found.trouble.message})
        ledger.job = job.model_copy(update={"polls": job.polls + 1})
        return Pending(min(LONGEST_PAUSE_S, max(found.after_s, 2.0**job.polls)))


def started_by(command: ExecuteCall, job: MediaJob) -> AttemptStarted:
    """Return the attempt that a job belongs to."""
    return AttemptStarted(
        run=command.run,
        call=command.call,
        attempt=job.attempt,
        role=job.role,
        provider=job.provider,
        model=job.model,
        reserved_usd=job.reserved_usd,
        claimed_by="its job",
        started_at=job.submitted_at,
    )
