"""What a call does that finds a limit or a budget full: it waits a moment here, else without a place."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.executor import settlement, taxonomy
from services.executor.attempts import LEAST_ATTEMPT_S
from services.executor.budgets import Crowded
from services.executor.disposition import IN_PLACE_S, Disposition
from services.executor.insisting import tell
from services.executor.limits import Busy, Permit, Permits
from services.executor.running import Working
from services.executor.settlement import Ledger, fault
from shared.bus.delivery import Delivery, Verdict
from shared.config.providers import Route

CROWDED_IN_PLACE: Final = 3
"""Times that a call finds what is left of its budget held by others, before it waits elsewhere."""


@dataclass(frozen=True, slots=True)
class Backpressure:
    """Waiting for what others hold."""

    permits: Permits
    disposition: Disposition
    now: Callable[[], datetime]

    async def held_back(
        self, ledger: Ledger, delivery: Delivery, route: Route, chain: Sequence[str], busy: Busy
    ) -> Verdict | str:
        """Wait for a place within the provider's limit; returns the role to go on with, or the delivery's verdict."""
        if busy.seconds + LEAST_ATTEMPT_S > ledger.command.run.left_s(self.now()):
            await self.permits.leaves(route, ledger.command)
            following = chain[chain.index(route.role) + 1 :]
            if following:
                return following[0]
            return await self.disposition.fail(ledger, settlement.limited(route.provider, busy.what, busy.seconds))
        await self.permits.waits(route, ledger.command, busy)
        if busy.seconds > IN_PLACE_S:
            return await self.disposition.put_back(ledger, delivery, busy.seconds)
        await asyncio.sleep(busy.seconds)
        return route.role

    async def crowded(
        self, ledger: Ledger, delivery: Delivery, working: Working, crowded: Crowded, times: int
    ) -> Verdict | None:
        """Wait until others may have settled what they hold of a budget: a moment here, then without a place."""
        after_s = crowded.seconds if times < CROWDED_IN_PLACE else IN_PLACE_S + crowded.seconds
        if after_s + LEAST_ATTEMPT_S > ledger.command.run.left_s(self.now()):
            return await self.disposition.fail(ledger, crowded.fault)
        if working.cancelled is not None:
            return await self.disposition.fail(ledger, fault(taxonomy.CANCELLED, f"cancelled: {working.cancelled}"))
        if after_s > IN_PLACE_S:
            return await self.disposition.put_back(ledger, delivery, after_s)
        await asyncio.sleep(after_s)
        return None

    async def insist(self, route: Route, ledger: Ledger) -> Permit:
        """Take another permit for an attempt that is claimed already, however long it takes.

        One that took so long that it is stale is no better than the one before, until the run's deadline.
        """
        while True:
            permit, left_s = await self.permits.take(route, ledger.command), ledger.command.run.left_s(self.now())
            if isinstance(permit, Busy):
                await self.permits.waits(route, ledger.command, permit)
                await asyncio.sleep(min(permit.seconds, max(0.05, left_s)))
            elif permit.stale and left_s > 0:
                await self.permits.give_back(route, permit)
            else:
                return permit

    async def once_more(self, route: Route, ledger: Ledger) -> None:
        """Take another request's place within the limit; its tokens are those that the attempt holds already."""
        permit = await self.insist(route, ledger)
        await tell(self.permits.used(route, permit, 0))
