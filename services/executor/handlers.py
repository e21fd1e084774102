"""Take a call: claim an attempt, ask, decide, settle. Every step may be the last one of this process."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import assert_never

from services.executor import settlement, taxonomy
from services.executor.artifacts import Artifacts, Unusable
from services.executor.attempts import LEAST_ATTEMPT_S, Again, GiveUp, Next, Policy, decide, halvings, turn
from services.executor.breaker import Wait
from services.executor.breakers import Breakers
from services.executor.budgets import Budgets, Crowded
from services.executor.claims import Claims
from services.executor.concurrency import Places
from services.executor.counting import count_call
from services.executor.deltas import Streams
from services.executor.insisting import insist
from services.executor.jobs import Jobs, started_by
from services.executor.limits import Busy, Permit, Permits
from services.executor.pricing import priced, tokens_taken, unbounded
from services.executor.providers import Answered, Asked, Failed, Pending, Provider
from services.executor.providers.openai_wire import trimmed
from services.executor.recall import Recall
from services.executor.reconciling import Reconciliation
from services.executor.roster import Roster
from services.executor.running import Cancelled, Running, Working
from services.executor.settlement import MOST_UNKNOWN, Ledger, attempt_fault, fault
from services.executor.unreadable import settle_unreadable
from shared import accounts, subjects
from shared.bus.connection import Bus
from shared.bus.delivery import Delivery, Done, Poison, Retry, Verdict
from shared.bus.errors import BusError, Unavailable
from shared.bus.payloads import PayloadMissing
from shared.config.providers import Route
from shared.contracts.commands import ExecuteCall, MediaJob
from shared.contracts.events import AttemptStarted, CallSettled
from shared.contracts.ids import Lane, Purpose
from shared.contracts.message import Artifact, Fault, Unreadable
from shared.faults import point
from shared.observe import metrics
from shared.observe.logs import bound
from shared.prices import PriceBook

log = logging.getLogger("segue.executor")

IN_PLACE_S = 1.0
"""A wait of at most this is slept in place; a longer one is put back, so that it holds no place."""
LOOKS_FOR_PAYLOAD = 5
BUGS_BEFORE_BURIAL = 5
"""Deliveries of a call that this code cannot deal with, before its run is told."""
CROWDED_IN_PLACE = 3
"""Times that a call finds what is left of its budget held by others, before it waits elsewhere."""

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

    def __post_init__(self) -> None:
        self.claims.budgets = self.budgets
        self.recall = Recall(self.bus, self.roster, self.now, self.caches)

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
                await self._fail(Ledger.of(command), fault(taxonomy.INTERNAL, said))
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
            return await self._fail(ledger, why_not)
        role = ledger.role if ledger.role in chain or not chain else chain[0]
        fresh = ledger.next_attempt == 1 and ledger.job is None
        if fresh and (known := await self.recall.known(command, role)) is not None:
            return await self._settle(known)
        crowded = 0
        while True:
            if ledger.job is not None:
                on = await self._follow(ledger, delivery, working, chain)
                if not isinstance(on, str):
                    return on
                role = on
                continue
            if (over := self._over(ledger)) is not None:
                return await self._fail(ledger, over)
            passing = await self.roster.passing(chain, role, command)
            if isinstance(passing, Wait):
                if passing.seconds + LEAST_ATTEMPT_S < self._left_s(command):
                    return await self._put_back(ledger, delivery, max(passing.seconds, IN_PLACE_S))
                return await self._fail(ledger, self.roster.left_alone(chain, role, passing.seconds))
            there, probe = passing
            role, route = there.role, there.at(turn(command.run.run_id, command.call, ledger.next_attempt))
            try:
                asked = await self.artifacts.resolved(command, route)
            except Unusable as error:
                await self._unprobed(route, probe)
                return await self._fail(ledger, fault(error.failed.verdict, str(error)))
            made = await self._attempt(ledger, asked, working, route)
            if made is None or isinstance(made, Busy | Crowded | Fault):
                await self._unprobed(route, probe)
            if isinstance(made, Crowded):
                crowded += 1
                if (waits := await self._crowded(ledger, delivery, working, made, crowded)) is not None:
                    return waits
                continue
            if isinstance(made, Busy):
                on = await self._held_back(ledger, delivery, route, chain, made)
                if not isinstance(on, str):
                    return on
                role = on
                continue
            if isinstance(made, Fault):
                return await self._fail(ledger, made)
            if made is None:
                if (elsewhere := await self._survey(ledger, delivery, contested=True)) is not None:
                    return elsewhere
                role = ledger.role if ledger.role in chain else chain[0]
                continue
            if isinstance(made, MediaJob):
                await _told(self.breakers.answered(route, probe=probe))
                ledger.job = made
                continue
            on = await self._conclude(ledger, delivery, working, chain, route, made, probe=probe)
            if not isinstance(on, str):
                return on
            role = on

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
                return await self._put_back(ledger, delivery, found.after_s)
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
        made: tuple[AttemptStarted, Answered | Failed, float],
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
            await _told(self.breakers.answered(route, probe=probe))
            fact = settlement.answered(
                ledger, started, outcome, took_s=took_s, simulated=route.simulated, artifacts=artifacts
            )
            verdict = await self._settle(fact)
            await self.recall.keep(command, route, fact)
            return verdict
        why = self._take(ledger, started, outcome)
        await _told(self.breakers.failed(route, outcome.verdict, why.message, probe=probe))
        if outcome.verdict in (taxonomy.RUN_ENDED, taxonomy.CANCELLED, taxonomy.CLAIM_LAPSED):
            return await self._fail(ledger, why, started)
        decision = decide(
            ledger.failed,
            outcome.verdict,
            retry_after_s=outcome.retry_after_s,
            chain=chain,
            policy=self.policy,
            left_s=self._left_s(command),
            jitter=self.jitter(),
        )
        match decision:
            case GiveUp():
                return await self._fail(ledger, decision.fault, started)
            case Next():
                log.info("attempt.fallback", extra={"from_role": started.role, "to_role": decision.role})
                return decision.role
            case Again() if decision.after_s > IN_PLACE_S:
                return await self._put_back(ledger, delivery, decision.after_s)
            case Again():
                try:
                    async with working.cancellable():
                        await asyncio.sleep(decision.after_s)
                except Cancelled as reason:
                    return await self._fail(ledger, fault(taxonomy.CANCELLED, f"cancelled: {reason}"), started)
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
        if self._left_s(ledger.command) <= 0:
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

    def _left_s(self, command: ExecuteCall) -> float:
        return (command.run.deadline_at - self.now()).total_seconds()

    async def _attempt(
        self, ledger: Ledger, asked: ExecuteCall, working: Working, route: Route
    ) -> tuple[AttemptStarted, Answered | Failed, float] | MediaJob | Busy | Crowded | Fault | None:
        """Claim the next attempt and send it. Returns it, its outcome and its seconds; None: it is claimed already.

        `asked`: the call with its images. `MediaJob`: it began one, which is to be asked after. `Busy`: the provider's
        limit is used up; `Crowded`: others hold what is left of a budget; `Fault`: a budget is used up. Nothing was
        claimed then.
        """
        places = self.concurrency.get(route.role)
        async with places.place() if places is not None else _NO_LIMIT:
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
                permit = await self._insist(route, ledger)
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
            await _told(self.permits.used(route, permit, tokens_taken(outcome), took_s, told))
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

    async def _held_back(
        self, ledger: Ledger, delivery: Delivery, route: Route, chain: Sequence[str], busy: Busy
    ) -> Verdict | str:
        """Wait for a place within the provider's limit; returns the role to go on with, or the delivery's verdict."""
        if busy.seconds + LEAST_ATTEMPT_S > self._left_s(ledger.command):
            await self.permits.leaves(route, ledger.command)
            following = chain[chain.index(route.role) + 1 :]
            if following:
                return following[0]
            return await self._fail(ledger, settlement.limited(route.provider, busy.what, busy.seconds))
        await self.permits.waits(route, ledger.command, busy)
        if busy.seconds > IN_PLACE_S:
            return await self._put_back(ledger, delivery, busy.seconds)
        await asyncio.sleep(busy.seconds)
        return route.role

    async def _crowded(
        self, ledger: Ledger, delivery: Delivery, working: Working, crowded: Crowded, times: int
    ) -> Verdict | None:
        """Wait until others may have settled what they hold of a budget: a moment here, then without a place."""
        after_s = crowded.seconds if times < CROWDED_IN_PLACE else IN_PLACE_S + crowded.seconds
        if after_s + LEAST_ATTEMPT_S > self._left_s(ledger.command):
            return await self._fail(ledger, crowded.fault)
        if working.cancelled is not None:
            return await self._fail(ledger, fault(taxonomy.CANCELLED, f"cancelled: {working.cancelled}"))
        if after_s > IN_PLACE_S:
            return await self._put_back(ledger, delivery, after_s)
        await asyncio.sleep(after_s)
        return None

    async def _insist(self, route: Route, ledger: Ledger) -> Permit:
        """Take another permit for an attempt that is claimed already, however long it takes."""
        permit = await self.permits.take(route, ledger.command)
        while isinstance(permit, Busy):
            await self.permits.waits(route, ledger.command, permit)
            await asyncio.sleep(min(permit.seconds, max(0.05, self._left_s(ledger.command))))
            permit = await self.permits.take(route, ledger.command)
        return permit

    async def _once_more(self, route: Route, ledger: Ledger) -> None:
        """Take another request's place within the limit; its tokens are those that the attempt holds already."""
        permit = await self._insist(route, ledger)
        await _told(self.permits.used(route, permit, 0))

    async def _ask(
        self, ledger: Ledger, call: ExecuteCall, started: AttemptStarted, route: Route, working: Working
    ) -> Answered | Failed | MediaJob:
        """Send one claimed attempt, its text going out as it comes in."""
        command = ledger.command
        budget_s = self._left_s(command)
        if command.timeout_s is not None:
            budget_s = min(budget_s, command.timeout_s)
        smaller = halvings(ledger.failed, route.role, taxonomy.ANSWER_LENGTH.code)
        trims = halvings(ledger.failed, route.role, taxonomy.CONTEXT.code)
        asked = Asked(call, started.attempt, smaller, trims, again=partial(self._once_more, route, ledger))
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

    async def _put_back(self, ledger: Ledger, delivery: Delivery, after_s: float) -> Verdict:
        """Have the bus send the call again later: waiting holds no place."""
        command = ledger.command
        at = self.now() + timedelta(seconds=after_s)
        waiting = subjects.wait(command.run, command.purpose, command.call)
        put_back = ledger.put_back()  # with what its attempts came to
        await insist(lambda: self.bus.log.send_at(waiting, delivery.subject, put_back, at), "call.waits_to_be_put_back")
        log.info("attempt.waits", extra={"after_s": round(after_s, 3), "attempts": ledger.next_attempt - 1})
        point("executor.scheduled")
        return Done()

    async def _fail(self, ledger: Ledger, why: Fault, started: AttemptStarted | None = None) -> Verdict:
        route = self.roster.routes.get(ledger.role)
        simulated = route.simulated if route is not None else False
        return await self._settle(settlement.failed(ledger, why, started=started, simulated=simulated))

    async def _settle(self, fact: CallSettled) -> Verdict:
        """Write how the call ended, once only. Somebody else's word is as good: whoever waits goes on with that."""
        fact = self.reconciliation.asking(fact)
        subject = subjects.events(fact.run.tenant, fact.run.run_id).settled(fact.purpose, fact.call)
        written = await insist(lambda: self.bus.log.write(subject, fact), "settlement.waits")
        point("executor.settled")
        if written.mine:
            count_call(fact)
        else:
            await self.reconciliation.book(fact, accounts.shares(fact), written.fact)
        await self.reconciliation.ask_after(written.fact)
        return Done()


async def _told(what: Awaitable[None]) -> None:
    """Tell a limit or a breaker what an attempt came to. What was paid for is not lost because that cannot be written:
    the limit keeps what it held, and the breaker counts the next one."""
    try:
        await what
    except BusError as error:
        log.warning("attempt.not_told", extra={"error": str(error)})


def _can_shrink(ledger: Ledger, role: str) -> bool:
    """Whether there is some session left that the next attempt could leave out."""
    trims = halvings(ledger.failed, role, taxonomy.CONTEXT.code)
    messages = ledger.command.messages
    return len(trimmed(messages, trims + 1)) < len(trimmed(messages, trims))
