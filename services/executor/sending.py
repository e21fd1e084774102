"""One attempt, from what it holds of its budget to what came of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from services.executor import taxonomy
from services.executor.attempts import Policy, halvings
from services.executor.backpressure import Backpressure
from services.executor.budgets import Budgets, Crowded
from services.executor.claims import Claims
from services.executor.deltas import Streams
from services.executor.insisting import tell
from services.executor.jobs import Jobs
from services.executor.limits import Busy, Permits
from services.executor.pricing import priced, tokens_taken
from services.executor.providers import Answered, Asked, Failed, Provider
from services.executor.providers.openai_wire import trimmed
from services.executor.reconciling import Reconciliation
from services.executor.running import Cancelled, Running, Working
from services.executor.settlement import Ledger
from shared.bus.connection import Bus
from shared.config.providers import Route
from shared.contracts.commands import ExecuteCall, MediaJob
from shared.contracts.events import AttemptStarted
from shared.contracts.ids import Lane
from shared.contracts.message import Fault
from shared.faults import point
from shared.observe import metrics
from shared.prices import PriceBook

Made = tuple[AttemptStarted, Answered | Failed, float]
"""An attempt, its outcome and its seconds."""


@dataclass(frozen=True, slots=True)
class Sending:
    """What sending attempts needs."""

    bus: Bus
    policy: Policy
    provider: Callable[[Route], Provider]
    jobs: Jobs
    running: Running
    now: Callable[[], datetime]
    permits: Permits
    claims: Claims
    reconciliation: Reconciliation
    prices: PriceBook
    budgets: Budgets
    streams: Streams
    backpressure: Backpressure

    async def attempt(
        self, ledger: Ledger, asked: ExecuteCall, working: Working, route: Route
    ) -> Made | MediaJob | Busy | Crowded | Fault | None:
        """Claim the next attempt and send it. Returns what came of it; None: it is claimed already.

        `asked`: the call with its images. `MediaJob`: it began one, which is to be asked after. `Busy`: the provider's
        limit is used up; `Crowded`: others hold what is left of a budget; `Fault`: a budget is used up. Nothing was
        claimed then.
        """
        claim = self.running.claim(working)
        holding = await self.budgets.hold(ledger.command, route, ledger.next_attempt, claim)
        if isinstance(holding, Crowded | Fault):
            return holding
        point("executor.held")
        permit = await self.permits.take(route, ledger.command)
        if isinstance(permit, Busy):
            await self.budgets.give_back(holding)
            return permit
        claimed = await self.claims.claim(ledger, claim, route)
        if claimed is None:
            await self.permits.give_back(route, permit)
            await self.budgets.give_back(holding)
            return None
        point("executor.claimed")
        started = claimed.started
        if ledger.unknown:  # whoever it was taken over from may be alive all the same, and settle without it
            await self.reconciliation.watch(started, ledger.command.purpose)
        if permit.stale:  # the claim's write took too long: the limit's window would no longer cover the request
            await self.permits.give_back(route, permit)
            permit = await self.backpressure.insist(route, ledger)
        if claimed.run_ended or working.cancelled is not None:
            await self.permits.give_back(route, permit)
        if claimed.run_ended:
            return started, Failed(taxonomy.RUN_ENDED, "the run has ended: nothing was asked"), 0.0
        if working.cancelled is not None:
            return started, Failed(taxonomy.CANCELLED, f"cancelled before it was asked: {working.cancelled}"), 0.0
        if await self.claims.lapsed(started, ledger.command.purpose):
            await self.permits.give_back(route, permit)
            return started, Failed(taxonomy.CLAIM_LAPSED, "others have settled the call: nothing was asked"), 0.0
        began_s = time.monotonic()
        outcome = await self._ask(ledger, asked, started, route, working)
        took_s = time.monotonic() - began_s
        point("executor.answered")
        told = 0 if isinstance(outcome, MediaJob) else outcome.usage.prompt_tokens
        await tell(self.permits.used(route, permit, tokens_taken(outcome), took_s, told))
        if isinstance(outcome, MediaJob):
            return outcome
        if isinstance(outcome, Failed):
            verdict = taxonomy.worth_repeating(outcome.verdict, outcome.status, self.policy.retryable)
            if verdict == taxonomy.CONTEXT and not _can_shrink(ledger, route.role):
                verdict = replace(verdict, repeat=False)
            outcome = replace(outcome, verdict=verdict)
        code = "answered" if isinstance(outcome, Answered) else outcome.verdict.code
        metrics.ATTEMPTS.labels(started.provider, started.model, code).inc()
        metrics.ATTEMPT_SECONDS.labels(started.provider, started.model).observe(took_s)
        return started, outcome, took_s

    async def _ask(
        self, ledger: Ledger, call: ExecuteCall, started: AttemptStarted, route: Route, working: Working
    ) -> Answered | Failed | MediaJob:
        """Send one claimed attempt, its text going out as it comes in."""
        command = ledger.command
        budget_s = command.run.left_s(self.now())
        if command.timeout_s is not None:
            budget_s = min(budget_s, command.timeout_s)
        smaller = halvings(ledger.failed, route.role, taxonomy.ANSWER_LENGTH.code)
        trims = halvings(ledger.failed, route.role, taxonomy.CONTEXT.code)
        asked = Asked(call, started.attempt, smaller, trims, again=partial(self.backpressure.once_more, route, ledger))
        if route.lane is Lane.VIDEO:
            return await self.jobs.submit(asked, started, route, working, max(0.0, budget_s))
        deltas = self.streams.open(self.bus.client, command, started) if command.stream else None
        try:
            async with working.cancellable():
                if deltas is not None:
                    await deltas.begin()
                outcome = await self.provider(route).ask(
                    asked,
                    route,
                    budget_s=max(0.0, budget_s),
                    on_delta=deltas.send if deltas is not None else None,
                )
                outcome = priced(outcome, route, self.prices, command.settings)
        except Cancelled as reason:
            outcome = Failed(taxonomy.CANCELLED, f"cancelled: {reason}", cost_usd=None)
        finally:
            if deltas is not None:
                self.streams.close(command, deltas)
        return outcome if outcome.cost_usd is not None else replace(outcome, generation_id=asked.trace.generation_id)


def _can_shrink(ledger: Ledger, role: str) -> bool:
    """Whether there is some session left that the next attempt could leave out."""
    trims = halvings(ledger.failed, role, taxonomy.CONTEXT.code)
    messages = ledger.command.messages
    return len(trimmed(messages, trims + 1)) < len(trimmed(messages, trims))
