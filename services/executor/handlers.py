"""Take a call: claim an attempt, ask, decide, settle. Every step may be the last one of this process."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import assert_never

from services.executor import settlement, taxonomy
from services.executor.artifacts import Artifacts, Unusable
from services.executor.attempts import LEAST_ATTEMPT_S, Again, GiveUp, Next, Policy, decide, turn
from services.executor.backpressure import Backpressure
from services.executor.breaker import Wait
from services.executor.breakers import Breakers
from services.executor.budgets import Budgets, Crowded
from services.executor.claims import Claims
from services.executor.concurrency import Places
from services.executor.deltas import Streams
from services.executor.disposition import IN_PLACE_S, Disposition
from services.executor.insisting import insist, tell
from services.executor.jobs import Jobs, started_by
from services.executor.limits import Busy, Permits
from services.executor.pricing import unbounded
from services.executor.providers import Answered, Failed, Pending, Provider
from services.executor.recall import Recall
from services.executor.reconciling import Reconciliation
from services.executor.roster import Roster
from services.executor.running import Cancelled, Running, Working
from services.executor.sending import Made, Sending
from services.executor.settlement import MOST_UNKNOWN, Ledger, attempt_fault, fault
from services.executor.unreadable import settle_unreadable
from shared import subjects
from shared.bus.connection import Bus
from shared.bus.delivery import Delivery, Poison, Retry, Verdict
from shared.bus.errors import BusError, Unavailable
from shared.bus.payloads import PayloadMissing
from shared.config.providers import Route
from shared.contracts.commands import ExecuteCall, MediaJob
from shared.contracts.events import AttemptStarted, CallSettled
from shared.contracts.ids import Purpose
from shared.contracts.message import Artifact, Fault, Unreadable
from shared.faults import point
from shared.observe.logs import bound
from shared.prices import PriceBook

log = logging.getLogger("segue.executor")

LOOKS_FOR_PAYLOAD = 5
BUGS_BEFORE_BURIAL = 5
"""Deliveries of a call that this code cannot deal with, before its run is told."""

_NO_LIMIT: AbstractAsyncContextManager[None] = nullcontext()


@dataclass(slots=True)
class Executor:
    """What the handler needs; made in `app.py`."""

    bus: Bus
    roster: Roster
    policy: Policy
    provider: Callable[[Route], Provider]
    jobs: Jobs
    artifacts: Artifacts
    running: Running
    now: Callable[[], datetime]
    jitter: Callable[[], float]
    breakers: Breakers
    permits: Permits
    claims: Claims
    reconciliation: Reconciliation
    prices: PriceBook = field(default_factory=PriceBook)
    budgets: Budgets = field(default_factory=Budgets)
    caches: bool = True
    """Whether answers are kept at all."""
    concurrency: Mapping[str, Places] = field(default_factory=dict)
    """By role, where it has a limit of its own."""
    streams: Streams = field(default_factory=Streams)
    recall: Recall = field(init=False)
    disposition: Disposition = field(init=False)
    backpressure: Backpressure = field(init=False)
    sending: Sending = field(init=False)

    def __post_init__(self) -> None:
        self.claims.budgets = self.budgets
        self.recall = Recall(self.bus, self.roster, self.now, self.caches)
        self.disposition = Disposition(self.bus, self.roster, self.reconciliation, self.now)
        self.backpressure = Backpressure(self.permits, self.disposition, self.now)
        self.sending = Sending(
            bus=self.bus,
            policy=self.policy,
            provider=self.provider,
            jobs=self.jobs,
            running=self.running,
            now=self.now,
            permits=self.permits,
            claims=self.claims,
            reconciliation=self.reconciliation,
            prices=self.prices,
            budgets=self.budgets,
            streams=self.streams,
            backpressure=self.backpressure,
        )

    async def execute(self, delivery: Delivery) -> Verdict:
        """Take one call as far as it goes now: settled, or put back to wait."""
        body = delivery.data
        try:
            body = await self.bus.payloads.unpack(delivery.data, delivery.headers)
            command = ExecuteCall.decode(body)
            if subjects.call(command.run, command.lane, command.purpose, command.call) != delivery.subject:
                raise Unreadable("the command is about another call than its subject says")
        except (Unreadable, PayloadMissing) as error:
            if isinstance(error, PayloadMissing) and delivery.delivered < LOOKS_FOR_PAYLOAD:
                return Retry(0.5)  # a replica may not have it yet
            await settle_unreadable(self.bus, delivery.subject, body, str(error))
            raise Poison(str(error)) from error
        run = command.run
        with (
            bound(run_id=run.run_id, tenant=run.tenant, call=command.call),
            self.running.enter(run, command.call) as working,
        ):
            try:
                return await self._execute(command, delivery, working)
            except (BusError, Poison):
                raise
            except Exception as error:
                if delivery.delivered < BUGS_BEFORE_BURIAL or working.claims:
                    raise  # with a claim it is one more attempt whose outcome nobody knows, and those are counted
                # It would be buried in the end, and its run wait for its deadline.
                said = f"an error of ours, {delivery.delivered} times: {type(error).__name__}; the log has it"
                await self.disposition.fail(Ledger.of(command), fault(taxonomy.INTERNAL, said))
                raise Poison(f"{type(error).__name__}: {error}") from error

    async def _execute(self, command: ExecuteCall, delivery: Delivery, working: Working) -> Verdict:
        point("executor.taken")
        ledger = Ledger.of(command)
        old = (
            delivery.delivered > 1 or command.timeout_s is not None or ledger.job is not None or ledger.next_attempt > 1
        )
        if old and (elsewhere := await self._survey(ledger, delivery)) is not None:
            return elsewhere
        chain, why_not = await self._chain(ledger)
        if why_not is not None:
            return await self.disposition.fail(ledger, why_not)
        role = ledger.role if ledger.role in chain or not chain else chain[0]
        fresh = ledger.next_attempt == 1 and ledger.job is None
        if fresh and (known := await self.recall.known(command, role)) is not None:
            return await self.disposition.settle(known)
        crowded = 0
        while True:
            if ledger.job is not None:
                on = await self._follow(ledger, delivery, working, chain)
                if not isinstance(on, str):
                    return on
                role = on
                continue
            if (over := self._over(ledger)) is not None:
                return await self.disposition.fail(ledger, over)
            passing = await self.roster.passing(chain, role, command)
            if isinstance(passing, Wait):
                if passing.seconds + LEAST_ATTEMPT_S < command.run.left_s(self.now()):
                    return await self.disposition.put_back(ledger, delivery, max(passing.seconds, IN_PLACE_S))
                return await self.disposition.fail(ledger, self.roster.left_alone(chain, role, passing.seconds))
            there, probe = passing
            role, route = there.role, there.at(turn(command.run.run_id, command.call, ledger.next_attempt))
            try:
                asked = await self.artifacts.resolved(command, route)
            except Unusable as error:
                await self._unprobed(route, probe)
                return await self.disposition.fail(ledger, fault(error.failed.verdict, str(error)))
            made = await self._attempt(ledger, asked, working, route)
            if made is None or isinstance(made, Busy | Crowded | Fault):
                await self._unprobed(route, probe)
            if isinstance(made, Crowded):
                crowded += 1
                if (waits := await self.backpressure.crowded(ledger, delivery, working, made, crowded)) is not None:
                    return waits
                continue
            if isinstance(made, Busy):
                on = await self.backpressure.held_back(ledger, delivery, route, chain, made)
                if not isinstance(on, str):
                    return on
                role = on
                continue
            if isinstance(made, Fault):
                return await self.disposition.fail(ledger, made)
            if made is None:
                if (elsewhere := await self._survey(ledger, delivery, contested=True)) is not None:
                    return elsewhere
                role = ledger.role if ledger.role in chain else chain[0]
                continue
            if isinstance(made, MediaJob):
                await tell(self.breakers.answered(route, probe=probe))
                ledger.job = made
                continue
            on = await self._conclude(ledger, delivery, working, chain, route, made, probe=probe)
            if not isinstance(on, str):
                return on
            role = on

    async def _attempt(
        self, ledger: Ledger, asked: ExecuteCall, working: Working, route: Route
    ) -> Made | MediaJob | Busy | Crowded | Fault | None:
        """Send an attempt once its role has a place for it."""
        places = self.concurrency.get(route.role)
        async with places.place() if places is not None else _NO_LIMIT:
            return await self.sending.attempt(ledger, asked, working, route)

    async def _unprobed(self, route: Route, probe: bool) -> None:
        """Let another call try a half-open model that this one, which was to, does not ask."""
        if probe:
            await self.breakers.put_probe_back(route)

    async def _survey(self, ledger: Ledger, delivery: Delivery, *, contested: bool = False) -> Verdict | None:
        """Take in what the log has of the call's attempts; returns what to answer when this process is not to go on.

        Of a call that nobody else has been given only whether others have settled it: its time was over meanwhile.
        """
        first = delivery.delivered == 1 and not contested
        found = await (self.claims.over(ledger) if first else self.claims.survey(ledger, delivery))
        return await self.reconciliation.over(ledger, found) if isinstance(found, CallSettled) else found

    async def _follow(
        self, ledger: Ledger, delivery: Delivery, working: Working, chain: Sequence[str]
    ) -> Verdict | str:
        """Ask after the job until it is time to wait for it elsewhere; or return the role to go on with."""
        command, job = ledger.command, ledger.job
        assert job is not None
        there = self.roster.of_job(job)
        route = there.at(turn(command.run.run_id, command.call, job.attempt)) if there is not None else None
        while isinstance(found := await self.jobs.follow(ledger, route, working), Pending):
            if found.after_s > IN_PLACE_S:
                return await self.disposition.put_back(ledger, delivery, found.after_s)
            await asyncio.sleep(found.after_s)
        ledger.job = None
        took_s = max(0.0, (self.now() - job.submitted_at).total_seconds())
        made = (started_by(command, job), found, took_s)
        return await self._conclude(ledger, delivery, working, chain, route or self.roster.first(chain), made)

    async def _chain(self, ledger: Ledger) -> tuple[list[str], Fault | None]:
        """Return whom a call may ask, in order; or why there is nobody.

        A job that was given is asked after although nobody may be asked any more: then the order is empty. Where not
        even that can be done, what the job costs is unknown.
        """
        command = ledger.command
        chain, why_not = self.roster.chain(command.role, alone=command.embed is not None)
        if why_not is None:
            chain, why_not = await self._allowed(command, chain)
        if why_not is None or ledger.job is None:
            return chain, why_not
        if self.roster.of_job(ledger.job) is not None:
            return [], None
        started = started_by(command, ledger.job)
        await self.budgets.lost(started, command.purpose)
        ledger.lost(started)
        ledger.job = None
        return [], why_not

    async def _conclude(
        self,
        ledger: Ledger,
        delivery: Delivery,
        working: Working,
        chain: Sequence[str],
        route: Route,
        made: Made,
        *,
        probe: bool = False,
    ) -> Verdict | str:
        """Settle the call by an attempt's outcome; or return the role to go on with."""
        command = ledger.command
        started, outcome, took_s = made
        await self.budgets.settle(started, command.purpose, outcome)
        artifacts: tuple[Artifact, ...] = ()
        if isinstance(outcome, Answered) and outcome.media:
            outcome, artifacts = await self._store(started, command.purpose, outcome)
        if isinstance(outcome, Answered):
            await tell(self.breakers.answered(route, probe=probe))
            fact = settlement.answered(
                ledger, started, outcome, took_s=took_s, simulated=route.simulated, artifacts=artifacts
            )
            verdict = await self.disposition.settle(fact)
            await self.recall.keep(command, route, fact)
            return verdict
        why = self._take(ledger, started, outcome)
        await tell(self.breakers.failed(route, outcome.verdict, why.message, probe=probe))
        if outcome.verdict in (taxonomy.RUN_ENDED, taxonomy.CANCELLED, taxonomy.CLAIM_LAPSED):
            return await self.disposition.fail(ledger, why, started)
        decision = decide(
            ledger.failed,
            outcome.verdict,
            retry_after_s=outcome.retry_after_s,
            chain=chain,
            policy=self.policy,
            left_s=command.run.left_s(self.now()),
            jitter=self.jitter(),
        )
        match decision:
            case GiveUp():
                return await self.disposition.fail(ledger, decision.fault, started)
            case Next():
                log.info("attempt.fallback", extra={"from_role": started.role, "to_role": decision.role})
                return decision.role
            case Again() if decision.after_s > IN_PLACE_S:
                return await self.disposition.put_back(ledger, delivery, decision.after_s)
            case Again():
                try:
                    async with working.cancellable():
                        await asyncio.sleep(decision.after_s)
                except Cancelled as reason:
                    return await self.disposition.fail(
                        ledger, fault(taxonomy.CANCELLED, f"cancelled: {reason}"), started
                    )
                return started.role
        assert_never(decision)

    async def _store(
        self, started: AttemptStarted, purpose: Purpose, answer: Answered
    ) -> tuple[Answered | Failed, tuple[Artifact, ...]]:
        """Store what was made and paid for, however long the store is away."""
        try:
            return await insist(lambda: self.artifacts.keep(started, purpose, answer), "artifact.waits")
        except Unavailable:
            raise
        except BusError as error:
            refused = Failed(taxonomy.NOT_STORED, f"what was made cannot be stored: {error}", cost_usd=answer.cost_usd)
            return replace(refused, usage=answer.usage), ()

    def _over(self, ledger: Ledger) -> Fault | None:
        """Return why nothing is asked any more; None: there is time, and nothing against it."""
        if len(ledger.unknown) > MOST_UNKNOWN:
            return settlement.too_many_died(ledger)
        if ledger.command.run.left_s(self.now()) <= 0:
            deadline = ledger.command.run.deadline_at.isoformat()
            return fault(taxonomy.DEADLINE, f"the run's deadline {deadline} has passed")
        return None

    async def _allowed(self, command: ExecuteCall, chain: list[str]) -> tuple[list[str], Fault | None]:
        """Return the roles that a run's key and tenant may ask for an answer; the system's own decisions are free."""
        if command.purpose is Purpose.DECISION:
            return chain, None
        lists = [one.models for one in (await self.budgets.allowances(command.run)).values() if one.models is not None]
        if lists and (settings := unbounded(command)):
            return [], settlement.not_bounded(settings)
        left = [role for role in chain if all(role in models for models in lists)]
        return left, None if left else settlement.not_allowed(command.role, chain)

    def _take(self, ledger: Ledger, started: AttemptStarted, failed: Failed) -> Fault:
        why = attempt_fault(started, failed)
        ledger.take(started, failed, why)
        alert = self.policy.rules[why.type].alert
        log.log(
            logging.ERROR if alert else logging.WARNING,
            "attempt.needs_a_person" if alert else "attempt.failed",
            extra={
                "attempt": started.attempt,
                "role": started.role,
                "code": why.code,
                "status": failed.status,
                "reason": why.message,
                "retry_after_s": failed.retry_after_s,
            },
        )
        return why
