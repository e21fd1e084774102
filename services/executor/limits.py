"""What one provider may be asked, by all executors together: requests in windows, and tokens a minute."""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.executor.pricing import most_tokens
from services.executor.windows import Later, Reserved, reserve, settle
from shared.bus.connection import Bus
from shared.bus.grants import Full, Granted, Grants
from shared.config.providers import Route
from shared.contracts.commands import ExecuteCall
from shared.contracts.health import TokenWindow
from shared.topology import Window

USE_WITHIN_S = 0.9
"""A grant that is older is given back, and another taken: the margin of its window covers no more."""
TRIES = 50


@dataclass(frozen=True, slots=True)
class Limit:
    """One entry of `rate_limiting`."""

    name: str
    windows: tuple[Window, ...]
    tokens_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class Permit:
    """A request may go out now."""

    granted: Granted
    reserved: Reserved | None = None

    @property
    def stale(self) -> bool:
        return time.monotonic() - self.granted.at > USE_WITHIN_S


@dataclass(frozen=True, slots=True)
class Busy:
    """The limit is used up for so many seconds."""

    seconds: float
    what: str


@dataclass(slots=True)
class Permits:
    """Permits for every provider that has a limit."""

    bus: Bus
    limits: Mapping[str, Limit] = field(default_factory=dict)
    _grants: Grants = field(init=False)
    _chance: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._grants = Grants(self.bus.jetstream)

    async def take(self, route: Route, call: ExecuteCall) -> Permit | Busy:
        """Return a permit for one request, or for how long there is none. Without a limit it costs nothing."""
        limit = self.limits.get(route.limit or "")
        if limit is None:
            return Permit(Granted(time.monotonic()))
        reserved: Reserved | None = None
        if limit.tokens_per_minute is not None:
            held = await self._hold(limit, route, call, limit.tokens_per_minute)
            if isinstance(held, Later):
                return Busy(held.seconds + self._chance.random(), f"{limit.tokens_per_minute:,} tokens a minute")
            reserved = held
        granted = await self._grants.take(limit.name, limit.windows)
        if isinstance(granted, Full):
            if reserved is not None:
                await self._settle(limit, reserved, used=0)
            most = next(one.most for one in limit.windows if one.name == granted.window)
            return Busy(granted.seconds, f"{most:,} requests a {granted.window}")
        return Permit(granted, reserved)

    async def give_back(self, route: Route, permit: Permit) -> None:
        """Let others have a permit that nothing was sent with."""
        await self._grants.give_back(permit.granted.taken)
        await self.used(route, permit, 0)

    async def used(self, route: Route, permit: Permit, tokens: int) -> None:
        """Say what a request really took."""
        limit = self.limits.get(route.limit or "")
        if limit is not None and permit.reserved is not None:
            await self._settle(limit, permit.reserved, used=tokens)

    async def _hold(self, limit: Limit, route: Route, call: ExecuteCall, most: int) -> Reserved | Later:
        wanted = sum(most_tokens(call, route))
        for _ in range(TRIES):
            record, revision = await self.bus.limits.get(limit.name, TokenWindow)
            found = reserve(record, now_s=time.time(), tokens=wanted, most=most)
            if isinstance(found, Later) or await self.bus.limits.put(limit.name, found.record, revision) is not None:
                return found
        return Later(1.0)

    async def _settle(self, limit: Limit, reserved: Reserved, *, used: int) -> None:
        def settled(record: TokenWindow | None) -> TokenWindow:
            return settle(record, reserved, used=used, now_s=time.time())

        await self.bus.limits.update(limit.name, TokenWindow, settled)
