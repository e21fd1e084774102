"""How many calls to one role go on at the same time, over all executors.

A place is a name in a record of the role, changed by compare-and-set; its holder renews it while it works. So the limit
is exact however many executors there are, and what one that died had comes back within `HELD_S`.
"""

import asyncio
import hashlib
import itertools
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from shared.bus.buckets import Contended
from shared.bus.connection import Bus
from shared.bus.errors import BusError
from shared.contracts.health import CallsAtOnce

HELD_S: Final = 30.0
RENEWED_S: Final = 8.0
FIRST_LOOK_S: Final = 0.02
LONGEST_LOOK_S: Final = 0.25
MOST_SHARED: Final = 1_000
"""Of a higher limit each executor keeps its own: a record of so many names is a large thing to change for each call."""


@dataclass(slots=True)
class Places:
    """One role's, as one executor takes them."""

    bus: Bus
    role: str
    most: int
    executor: str
    """This process's name among the holders."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    held_s: float = HELD_S
    renewed_s: float = RENEWED_S
    _own: asyncio.Semaphore = field(init=False)
    """So that no more of this process's calls ask for a place than there are."""
    _held: set[str] = field(default_factory=set)
    _renewing: asyncio.Task[None] | None = None
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self._own = asyncio.Semaphore(self.most)

    @property
    def key(self) -> str:
        """The record's, in the bucket `limits`: roles have characters that keys don't."""
        return f"calls.{hashlib.sha256(self.role.encode()).hexdigest()[:32]}"

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place, however long it takes to get one."""
        async with self._own:
            if self.most > MOST_SHARED:
                yield
                return
            name = f"{self.executor}.{next(self._numbers)}"
            await self._take(name)
            try:
                yield
            finally:
                self._held.discard(name)
                with suppress(BusError):  # else it comes back by itself
                    await self.bus.limits.update(self.key, CallsAtOnce, lambda at: _without(at, name))

    async def _take(self, name: str) -> None:
        pause_s = FIRST_LOOK_S
        while not await self._taken(name):
            await asyncio.sleep(pause_s * (1 + random.random()))
            pause_s = min(LONGEST_LOOK_S, pause_s * 2)
        self._held.add(name)
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew())

    async def _taken(self, name: str) -> bool:
        found = False

        def taken(at: CallsAtOnce | None) -> CallsAtOnce | None:
            nonlocal found
            now = self.now()
            held = {one: until for one, until in (at.held if at is not None else {}).items() if until > now}
            found = name in held or len(held) < self.most
            return CallsAtOnce(held={**held, name: self._until()}) if found else None

        with suppress(Contended):
            await self.bus.limits.update(self.key, CallsAtOnce, taken)
            return found
        return False

    def _until(self) -> datetime:
        return self.now() + timedelta(seconds=self.held_s)

    async def _renew(self) -> None:
        """Renew what this process holds, as long as it holds anything."""

        def renewed(at: CallsAtOnce | None) -> CallsAtOnce:
            held = at.held if at is not None else {}
            return CallsAtOnce(held={**held, **dict.fromkeys(self._held, self._until())})

        while self._held:
            await asyncio.sleep(self.renewed_s)
            if self._held:
                with suppress(BusError):
                    await self.bus.limits.update(self.key, CallsAtOnce, renewed)


def _without(at: CallsAtOnce | None, name: str) -> CallsAtOnce | None:
    if at is None or name not in at.held:
        return None
    return CallsAtOnce(held={one: until for one, until in at.held.items() if one != name})
