"""Attempts whose cost nobody knows: their providers are asked what became of them, until they say. (ADR 0019)

Which ones are asked after stands in the fact that leaves them open, so the questions follow from the log: whoever
finds it sends them again. The bus keeps each until its time; waiting holds no place and nothing in memory.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from typing import Final, TypeVar, assert_never

from services.executor.attempts import turn
from services.executor.claims import CLAIM_STANDS_S, LOOK_AGAIN_S, Claims
from services.executor.insisting import insist
from services.executor.pricing import priced
from services.executor.providers import Answered
from services.executor.providers.inquiries import Found, Inquiry, NeverArrived, NotYet, Reconciler
from services.executor.roster import Roster
from services.executor.settlement import Ledger, lost
from services.executor.taxonomy import CLAIM_LAPSED
from shared import accounts, subjects
from shared.accounts import Share
from shared.bus.connection import Bus
from shared.bus.delivery import Delivery, Done, Poison, Retry, Verdict
from shared.bus.payloads import PayloadMissing
from shared.config.providers import Route
from shared.contracts.commands import ExecuteCall, ReconcileAttempt, UnknownAttempt
from shared.contracts.events import AttemptReconciled, AttemptStarted, CallSettled, CallWrittenOff
from shared.contracts.ids import Purpose
from shared.contracts.message import Unreadable
from shared.faults import point
from shared.observe import metrics
from shared.observe.logs import bound
from shared.prices import PriceBook

log = logging.getLogger("segue.executor")

F = TypeVar("F", CallSettled, CallWrittenOff)

FIRST_AFTER_S: Final = 2.0
WATCH_S: Final = 5.0
LONGEST_PAUSE_S: Final = 300.0
MOST_ASKED: Final = 12
"""Times that a provider is asked about one attempt: for about half an hour. Then it stays unknown, and listed."""
ASK_WITHIN_S: Final = 20.0
NEVER_ARRIVED_AFTER_S: Final = CLAIM_STANDS_S + 3.0
"""From its claim on, until an attempt that its provider does not know can no longer be on its way."""


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """Books what settlements leave open, and asks after it."""

    bus: Bus
    roster: Roster
    reconciler: Callable[[Route, str | None], Reconciler | None]
    """Who can be asked about an attempt by way of a route, and by its generation's id; None: nobody."""
    claims: Claims
    prices: PriceBook
    now: Callable[[], datetime]
    correct: Callable[[AttemptReconciled], Awaitable[None]]
    """Puts the budgets right that counted an attempt without knowing its cost."""

    def asking(self, fact: F) -> F:
        """Return a fact with what it leaves open and can be asked after."""
        if fact.cost_known:
            return fact
        asks = [
            one.attempt for one in accounts.shares(fact) if one.cost_usd is None and self._whom(fact, one) is not None
        ]
        update = {"asks": tuple(asks), "settled_at": self.now()}
        return fact.model_copy(update=update)

    async def ask_after(self, fact: CallSettled | CallWrittenOff) -> None:
        """Have the bus keep a question for each attempt that a fact asks after. Safe to repeat."""
        if not fact.asks:
            return
        by_number = {one.attempt: one for one in accounts.open_shares(fact)}
        for number in fact.asks:
            command = ReconcileAttempt(
                run=fact.run,
                call=fact.call,
                purpose=fact.purpose,
                attempt=by_number[number].as_unknown(),
                settled_at=fact.settled_at or self.now(),
            )
            await insist(partial(self._send, command, FIRST_AFTER_S), "inquiry.waits")
            point("executor.inquired")

    async def book(self, call: ExecuteCall | CallSettled, mine: Sequence[Share], theirs: CallSettled) -> None:
        """Write what I know of a call's attempts beyond the settlement that counts. Safe to repeat.

        An attempt that it calls unknown is reconciled by my word; those that it does not know at all come late.
        """
        missing, better = accounts.not_in(mine, accounts.shares(theirs))
        for share in better:
            await self._by_own_word(call, share, theirs.settled_at)
        if not missing:
            return
        known = [one for one in missing if one.cost_usd is not None]
        usage = missing[0].usage
        for one in missing[1:]:
            usage = usage.plus(one.usage)
        late = CallWrittenOff(
            run=call.run,
            call=call.call,
            purpose=call.purpose,
            role=missing[-1].role,
            model=missing[-1].model or None,
            usage=usage,
            cost_usd=sum(one.cost_usd or 0.0 for one in known),
            cost_known=len(known) == len(missing),
            attempts=tuple(one.attempt for one in known),
            unknown=tuple(one.as_unknown() for one in missing if one.cost_usd is None),
        )
        subject = subjects.facts(call.run).late(call.purpose, call.call)
        asking = self.asking(late)
        written = await insist(lambda: self.bus.log.write(subject, asking), "settlement.waits")
        if written.mine:
            count_open(asking)
        else:
            for share in known:
                if share.attempt not in written.fact.attempts:
                    await self._by_own_word(call, share, written.fact.settled_at)
        point("executor.written_off")
        await self.ask_after(written.fact)

    async def watch(self, started: AttemptStarted, purpose: Purpose) -> None:
        """Have the bus ask about an attempt that goes on, before it is sent, lest nobody ever accounts for it.

        Its call was taken over. When the one that it was taken from only stood still, it may settle the call without
        this attempt, and nobody else is given the call any more when this executor dies then.
        """
        command = ReconcileAttempt(
            run=started.run, call=started.call, purpose=purpose, attempt=lost(started), settled_at=started.started_at
        )
        await insist(partial(self._send, command, WATCH_S), "inquiry.waits")
        point("executor.watched")

    async def over(self, ledger: Ledger, theirs: CallSettled) -> Verdict:
        """Deal with a call that is settled already: what its settlement leaves open or does not know."""
        command = ledger.command
        facts = subjects.facts(command.run)
        known = {one.attempt for one in accounts.shares(theirs)}
        known.update(one.attempt for one in ledger.shares())
        for number in count(1):
            if number in known:
                continue
            started = await self.claims.started(facts.attempt(command.purpose, command.call, number))
            if started is None:
                break
            if await self.claims.may_still_work(started):
                return Retry(LOOK_AGAIN_S)
            ledger.lost(started)
        await self.book(command, ledger.shares(), theirs)
        await self.ask_after(theirs)
        return Done()

    async def reconcile(self, delivery: Delivery) -> Verdict:
        """Ask after one attempt, and write down what its provider says; or have it asked again later."""
        try:
            body = await self.bus.payloads.unpack(delivery.data, delivery.headers)
            command = ReconcileAttempt.decode(body)
        except (Unreadable, PayloadMissing) as error:
            raise Poison(str(error)) from error
        point("executor.reconcile.taken")
        with bound(run_id=command.run.run_id, tenant=command.run.tenant, call=command.call):
            return await self._reconcile(command)

    async def _reconcile(self, command: ReconcileAttempt) -> Verdict:
        attempt = command.attempt
        subject = subjects.facts(command.run).reconciled(command.purpose, command.call, attempt.attempt)
        if (told := await self.bus.log.read(subject, AttemptReconciled)) is not None:
            await self.correct(told)  # whoever wrote it may have died before
            return Done()
        if (verdict := await self._accounted(command)) is not None:
            return verdict
        whom = self._whom(command, attempt)
        if whom is None:
            return self._give_up(command, f"role {attempt.role!r} has nobody any more who can be asked")
        reconciler, route = whom
        found = await reconciler.reconcile(_inquiry(command), route, budget_s=ASK_WITHIN_S)
        point("executor.reconcile.asked")
        match found:
            case Found():
                answer = Answered("", model=found.model, usage=found.usage, cost_usd=found.cost_usd)
                cost_usd = priced(answer, route, self.prices).cost_usd
                if cost_usd is None:
                    return self._give_up(command, "its provider knows it and says no cost, and nobody has a price")
                return await self._write(command, subject, found=True, cost=found, cost_usd=cost_usd)
            case NeverArrived():
                early_s = self._early_s(command)
                if early_s <= 0:
                    return await self._write(command, subject, found=False, cost=Found(), cost_usd=0.0)
                return await self._again(command, "its provider does not know it", early_s)
            case NotYet():
                return await self._again(command, found.why)
        assert_never(found)

    async def _accounted(self, command: ReconcileAttempt) -> Verdict | None:
        """Return what to answer when there is nothing to ask: the log says what the attempt cost, or it goes on.

        One that nobody has accounted for, and nobody works on, comes late: it is written down as unknown.
        """
        number, facts = command.attempt.attempt, subjects.facts(command.run)
        theirs = await self.bus.log.read(facts.settled(command.purpose, command.call), CallSettled)
        if theirs is None:
            await self._send(command, WATCH_S)
            return Done()
        late = await self.bus.log.read(facts.late(command.purpose, command.call), CallWrittenOff)
        told = {one.attempt: one for one in accounts.shares(theirs)}
        if late is not None:
            told.update({one.attempt: one for one in accounts.shares(late)})
            if number in late.attempts:
                return Done()
        if number in told:
            return Done() if told[number].cost_usd is not None else None
        started = await self.claims.started(facts.attempt(command.purpose, command.call, number))
        if started is not None and await self.claims.may_still_work(started):
            await self._send(command, WATCH_S)
            return Done()
        await self.book(theirs, accounts.of(command.attempt), theirs)
        return None

    async def _write(
        self, command: ReconcileAttempt, subject: str, *, found: bool, cost: Found, cost_usd: float
    ) -> Verdict:
        attempt = command.attempt
        fact = AttemptReconciled(
            run=command.run,
            call=command.call,
            purpose=command.purpose,
            attempt=attempt.attempt,
            role=attempt.role,
            provider=attempt.provider,
            model=cost.model or attempt.model,
            found=found,
            by="provider",
            usage=cost.usage,
            cost_usd=cost_usd,
            settled_at=command.settled_at,
        )
        written = await self.bus.log.write(subject, fact)
        if written.mine:
            _count(written.fact, asked=command.asked + 1)
        point("executor.reconciled")
        await self.correct(written.fact)
        return Done()

    async def _by_own_word(self, call: ExecuteCall | CallSettled, share: Share, settled_at: datetime | None) -> None:
        """Reconcile an attempt that this process made, and whose call others have settled without knowing it."""
        fact = AttemptReconciled(
            run=call.run,
            call=call.call,
            purpose=call.purpose,
            attempt=share.attempt,
            role=share.role,
            provider=share.provider,
            model=share.model,
            found=share.code != CLAIM_LAPSED.code,
            by="executor",
            usage=share.usage,
            cost_usd=share.cost_usd or 0.0,
            settled_at=settled_at or self.now(),
        )
        facts = subjects.facts(call.run)
        subject = facts.reconciled(call.purpose, call.call, share.attempt)
        written = await insist(lambda: self.bus.log.write(subject, fact), "settlement.waits")
        await self.correct(written.fact)
        if written.mine:
            _count(fact, asked=0)
        elif abs(written.fact.cost_usd - fact.cost_usd) > 1e-9:
            log.error(
                "attempt.reconciled_otherwise",
                extra={"attempt": share.attempt, "cost_usd": fact.cost_usd, "written_usd": written.fact.cost_usd},
            )

    async def _again(self, command: ReconcileAttempt, why: str, after_s: float | None = None) -> Verdict:
        if command.asked + 1 >= MOST_ASKED:
            return self._give_up(command, f"asked {MOST_ASKED} times: {why}")
        pause_s = min(LONGEST_PAUSE_S, FIRST_AFTER_S * 2.0 ** (command.asked + 1)) if after_s is None else after_s
        await self._send(command.model_copy(update={"asked": command.asked + 1}), pause_s)
        log.info("inquiry.waits", extra={"attempt": command.attempt.attempt, "after_s": round(pause_s, 3), "why": why})
        point("executor.reconcile.again")
        return Done()

    def _give_up(self, command: ReconcileAttempt, why: str) -> Verdict:
        attempt = command.attempt
        metrics.RECONCILED.labels("given_up").inc()
        log.error("attempt.stays_unknown", extra={"attempt": attempt.attempt, "model": attempt.model, "why": why})
        return Done()

    async def _send(self, command: ReconcileAttempt, after_s: float) -> None:
        of = (command.run, command.purpose, command.call, command.attempt.attempt)
        at = self.now() + timedelta(seconds=after_s)
        await self.bus.log.send_at(subjects.inquiry(*of), subjects.reconcile(*of), command, at)

    def _early_s(self, command: ReconcileAttempt) -> float:
        """Return for how many seconds an attempt may still be on its way."""
        if command.attempt.started_at is None:
            return 0.0
        return NEVER_ARRIVED_AFTER_S - (self.now() - command.attempt.started_at).total_seconds()

    def _whom(
        self, fact: CallSettled | CallWrittenOff | ReconcileAttempt, of: Share | UnknownAttempt
    ) -> tuple[Reconciler, Route] | None:
        """Return who can be asked about an attempt, and by way of which server and key; None: nobody."""
        there = self.roster.of(of.role, of.provider, of.model)
        if there is None or (there.unavailable is not None and not there.paused):
            return None
        route = there.at(turn(fact.run.run_id, fact.call, of.attempt))
        reconciler = self.reconciler(route, of.generation_id)
        return None if reconciler is None else (reconciler, route)


def count_open(fact: CallSettled | CallWrittenOff) -> None:
    """Count the attempts that a fact leaves open."""
    for one in accounts.open_shares(fact):
        metrics.UNKNOWN_ATTEMPTS.labels(one.provider, one.code).inc()


def _count(fact: AttemptReconciled, *, asked: int) -> None:
    metrics.RECONCILED.labels(fact.by if fact.found else "never_arrived").inc()
    if fact.cost_usd:
        metrics.COST_USD.labels(fact.model or "none", fact.role).inc(fact.cost_usd)
    log.info(
        "attempt.reconciled",
        extra={"attempt": fact.attempt, "found": fact.found, "by": fact.by, "cost_usd": fact.cost_usd, "asked": asked},
    )


def _inquiry(command: ReconcileAttempt) -> Inquiry:
    return Inquiry(
        command.run.run_id,
        f"{command.purpose}.{command.call}",
        command.attempt.attempt,
        command.attempt.generation_id,
        command.attempt.started_at,
    )
