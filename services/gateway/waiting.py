"""How many requests may wait for their answer in this process, and how they end when it stops."""

import asyncio
from collections import Counter
from types import TracebackType
from typing import Self

from shared.observe.metrics import REQUESTS_IN_FLIGHT


class TooManyWaiting(Exception):
    """As many requests wait in this process as it takes, or as it takes of one tenant."""

    def __init__(self, most: int, *, own: bool = False) -> None:
        whose, taken = ("yours", "it takes of one tenant") if own else ("requests", "it takes")
        super().__init__(f"{most} {whose} wait for their answer in this gateway, which is all that {taken}")
        self.most = most


class Stopping(Exception):
    """This process stops before the answer is there. The run goes on."""


class Waiting:
    """The places for waiting requests. One per process."""

    def __init__(self, most: int, *, of_one: int | None = None) -> None:
        self.most = most
        self.of_one = of_one
        """Of one tenant; None: there is only one."""
        self._places: set[Place] = set()
        self._of: Counter[str] = Counter()
        self._until: float | None = None

    def __len__(self) -> int:
        return len(self._places)

    def place(self, tenant: str) -> "Place":
        """Return a place to be entered with `async with`: raises `TooManyWaiting`; inside, `Stopping` may be raised.

        And whatever else its end is set to, see `Place.end_at`.
        """
        return Place(self, tenant)

    def stop_at(self, when: float) -> None:
        """Let nobody wait beyond loop time `when`."""
        self._until = when
        for place in self._places:
            place.end_at(when, Stopping())

    def enter(self, place: "Place") -> asyncio.Timeout:
        if len(self._places) >= self.most:
            raise TooManyWaiting(self.most)
        if self.of_one is not None and self._of[place.tenant] >= self.of_one:
            raise TooManyWaiting(self.of_one, own=True)
        self._places.add(place)
        self._of[place.tenant] += 1
        REQUESTS_IN_FLIGHT.set(len(self._places))
        return asyncio.timeout_at(self._until)

    def leave(self, place: "Place") -> None:
        self._places.discard(place)
        self._of[place.tenant] -= 1
        if self._of[place.tenant] <= 0:
            del self._of[place.tenant]
        REQUESTS_IN_FLIGHT.set(len(self._places))


class Place:
    """One waiting request."""

    __slots__ = ("_waiting", "_why", "limit", "tenant")

    def __init__(self, waiting: Waiting, tenant: str) -> None:
        self._waiting, self.tenant = waiting, tenant
        self._why: Exception = Stopping()

    def end_at(self, when: float, why: Exception) -> None:
        """Let it wait no longer than until loop time `when`; `why` is raised then. Of several ends the first counts."""
        ends_at = self.limit.when()
        if self.limit.expired() or (ends_at is not None and ends_at <= when):
            return
        self._why = why
        self.limit.reschedule(when)

    async def __aenter__(self) -> Self:
        self.limit = self._waiting.enter(self)
        await self.limit.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.leave(self)
        try:
            await self.limit.__aexit__(kind, error, trace)
        except TimeoutError as over:
            raise self._why from over
