"""What keys and tenants may spend: held before an attempt is sent, settled after. (ADR 0021)

This is the one place where money is decided. A hold is named after its attempt and its claim, so that it is counted
once however often it is asked for, settled or taken for lost. Whoever has no budget costs nothing: limits are known
here.
"""

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from services.executor.booking import Booking
from services.executor.pricing import at_most_tokens, reserved_usd, tokens_taken, unbounded
from services.executor.providers import Answered, Failed
from services.executor.settlement import held_up, not_bounded, over_budget, unpriced
from shared.access import accounts
from shared.access.accounts import Held, Later, Over, Wanted
from shared.access.records import Records
from shared.bus.buckets import Contended
from shared.bus.connection import Bus
from shared.bus.errors import Unavailable
from shared.config.providers import Route
from shared.contracts.access import Account, Allowance
from shared.contracts.commands import ExecuteCall
from shared.contracts.events import AttemptReconciled, AttemptStarted
from shared.contracts.ids import Lane, Purpose
from shared.contracts.message import Fault, Run
from shared.observe import metrics
from shared.prices import PriceBook

log = logging.getLogger("segue.executor")

OVERSTAYS: Final = timedelta(seconds=120)
"""What is still held this long after its run's deadline is counted as spent: its executor is dead, or away for long."""
AGAIN_S: Final = 0.25
MOST_OPEN: Final = 10_000


@dataclass(frozen=True, slots=True)
class Holding:
    """What one attempt holds."""

    name: str
    accounts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Crowded:
    """It fits once others have settled what they hold: look again after so many seconds."""

    seconds: float
    fault: Fault
    """When the deadline comes first."""


@dataclass(slots=True)
class Budgets:
    """One a process; without records nobody has a budget."""

    bus: Bus | None = None
    records: Records | None = None
    prices: PriceBook = field(default_factory=PriceBook)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _booking: Booking = field(init=False)
    _chance: random.Random = field(default_factory=random.Random)
    _open: OrderedDict[str, tuple[str, ...]] = field(default_factory=OrderedDict)
    """By attempt: where this process holds something for it, whatever becomes of the limits meanwhile."""

    def __post_init__(self) -> None:
        if self.bus is not None:
            self._booking = Booking(self.bus.budgets)

    async def allowances(self, run: Run) -> Mapping[str, Allowance]:
        """Return the limits of a run's key and tenant, by account; known here, unless they are new or have changed."""
        if self.records is None:
            return {}
        found = {}
        key = await self.records.key(run.key) if run.key is not None else None
        if key is not None:
            found[f"key.{key.id}"] = key.allowance
        tenant = await self.records.tenant(run.tenant)
        if tenant is not None:
            found[f"tenant.{tenant.name}"] = tenant.allowance
        return found

    async def hold(self, call: ExecuteCall, route: Route, attempt: int, claim: str) -> Holding | Crowded | Fault:
        """Hold what an attempt may cost at the most, in every account that has a budget.

        `Crowded`: it fits once others have settled what they hold. `Fault`: it does not fit any more.
        """
        about = _attempt(call.run, call.purpose, call.call, attempt)
        name = f"{about}.{claim}"
        given = await self.allowances(call.run)
        budgets = {account: one for account, one in given.items() if one.is_budget}
        if not budgets:
            return Holding(name)
        if settings := unbounded(call):
            return not_bounded(settings)
        wanted = self._most(call, route)
        if wanted is None:
            if any(one.usd_per_day is not None or one.usd_per_month is not None for one in budgets.values()):
                return unpriced(route.model)
            wanted = Wanted(0, sum(at_most_tokens(call, route)))
        until = call.run.deadline_at + OVERSTAYS
        held: list[str] = []
        for account, allowance in budgets.items():
            found = await self._hold(account, allowance, name, wanted, until)
            if isinstance(found, Held):
                held.append(account)
                continue
            await self.give_back(Holding(name, tuple(held)))
            if isinstance(found, Over):
                metrics.BUDGET_REFUSALS.inc()
                return over_budget(found, account)
            pause_s = AGAIN_S * (1 + self._chance.random())
            return Crowded(pause_s, held_up(route.model, account))
        self._open[about] = tuple(held)
        if len(self._open) > MOST_OPEN:
            self._open.popitem(last=False)
        return Holding(name, tuple(held))

    async def give_back(self, holding: Holding) -> None:
        """Let go of what nothing was sent with."""
        for account in holding.accounts:
            await self._change(account, lambda at: accounts.release(at, holding.name))

    async def settle(self, started: AttemptStarted, purpose: Purpose, outcome: Answered | Failed) -> None:
        """Put what an attempt did cost in the place of what it holds; all of that, where nobody knows."""
        used = outcome.usage
        counted = used.total_tokens or used.images or used.video_s
        nano_usd = None if outcome.cost_usd is None else accounts.nano(outcome.cost_usd)
        await self._settle(started, purpose, nano_usd, used.total_tokens if counted else tokens_taken(outcome))

    async def lost(self, started: AttemptStarted, purpose: Purpose) -> None:
        """Count what an attempt held whose executor died: it may have cost all of that. Idempotent."""
        await self._settle(started, purpose, None, None)

    async def correct(self, fact: AttemptReconciled) -> None:
        """Put right what an attempt was counted at, now that its provider has said what it took. Idempotent."""
        name, now = _attempt(fact.run, fact.purpose, fact.call, fact.attempt), self.now()
        nano_usd, tokens = accounts.nano(fact.cost_usd), fact.usage.total_tokens
        for account, allowance in (await self.allowances(fact.run)).items():
            if allowance.is_budget:
                await self._change(account, lambda at: accounts.settle(at, name, now, nano_usd=nano_usd, tokens=tokens))

    async def _settle(
        self, started: AttemptStarted, purpose: Purpose, nano_usd: int | None, tokens: int | None
    ) -> None:
        name, now = _attempt(started.run, purpose, started.call, started.attempt), self.now()
        budgets = [one for one, allowance in (await self.allowances(started.run)).items() if allowance.is_budget]
        for account in dict.fromkeys([*budgets, *self._open.pop(name, ())]):
            await self._change(account, lambda at: accounts.settle(at, name, now, nano_usd=nano_usd, tokens=tokens))

    async def _hold(
        self, account: str, allowance: Allowance, name: str, wanted: Wanted, until: datetime
    ) -> Held | Later | Over:
        found: Held | Later | Over = Later()

        def held(at: Account | None) -> Account | None:
            nonlocal found
            found = accounts.hold(at, allowance, name, wanted, now=self.now(), until=until)
            return found.account if isinstance(found, Held) and (at is None or name not in at.held) else None

        try:
            await self._booking.change(account, held)
        except Contended:
            return Later()
        return found

    async def _change(self, account: str, change: Callable[[Account | None], Account | None]) -> None:
        """Change an account, however many others do: what was spent is written down."""
        while True:
            try:
                await self._booking.change(account, change)
            except (Contended, Unavailable) as error:
                log.warning("budget.waits", extra={"error": str(error)})
                await asyncio.sleep(AGAIN_S * self._chance.random())
            else:
                return

    def _most(self, call: ExecuteCall, route: Route) -> Wanted | None:
        """Return the most that an attempt can take; None: nobody knows its price."""
        prompt, answer = at_most_tokens(call, route)
        if route.lane is Lane.TEXT:
            most_usd = self.prices.most(route.priced_as, route.model, prompt_tokens=prompt, answer_tokens=answer)
        else:
            most_usd = reserved_usd(call, route, self.prices) or None
        return None if most_usd is None else Wanted(accounts.nano(most_usd), prompt + answer)


def _attempt(run: Run, purpose: Purpose, call: str, attempt: int) -> str:
    return f"{run.run_id}.{purpose}.{call}.{attempt}"
