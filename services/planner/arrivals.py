"""What arrives for one run while something of it is being taken in is taken in together, by the first who waited.

Each write of a run's record costs a round trip and, with several planners, a compare-and-set that others may win: two
hundred calls that end in the same moment would be two hundred writes of one record, one after the other.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

Take = Callable[[Sequence[T]], Awaitable[None]]


@dataclass(slots=True)
class _Waiting(Generic[T]):
    item: T
    turn: "asyncio.Future[list[_Waiting[T]]]"
    """The batch that its waiter has to take in; empty: somebody has done it."""


@dataclass(slots=True)
class Arrivals(Generic[T]):
    """By run, what waits for the one who is at it. Nothing is kept once nobody is."""

    _waiting: dict[str, list[_Waiting[T]]] = field(default_factory=dict)

    async def taken(self, run_id: str, item: T, take: Take[T]) -> None:
        """Return once an item is taken in, by its own caller or together with others. Raises what its `take` does.

        Whoever fails over several leaves each to its own caller, so that one that cannot be taken in spoils no other.
        """
        batch: list[_Waiting[T]] = []
        if (queue := self._waiting.get(run_id)) is not None:
            own = _Waiting(item, asyncio.get_running_loop().create_future())
            queue.append(own)
            try:
                batch = await own.turn
            except asyncio.CancelledError:
                if own.turn.done() and not own.turn.cancelled() and own.turn.result():
                    self._next(run_id, [one for one in own.turn.result() if one is not own])
                raise
            if not batch:
                return
        else:
            self._waiting[run_id] = []
        try:
            await self._lead(item, batch, take)
        finally:
            self._next(run_id, [])

    async def _lead(self, item: T, batch: list[_Waiting[T]], take: Take[T]) -> None:
        others = [one for one in batch if one.item is not item]
        failed = False
        try:
            await take([item, *(one.item for one in others)])
        except Exception:
            if not others:
                raise
            failed = True
        except BaseException:
            _tell(others, itself=True)
            raise
        _tell(others, itself=failed)
        if failed:
            await take([item])

    def _next(self, run_id: str, left: list[_Waiting[T]]) -> None:
        """Hand on to the first who waits, with all who do; to nobody when none does."""
        waiting = [one for one in (*left, *self._waiting.pop(run_id, ())) if not one.turn.done()]
        if waiting:
            self._waiting[run_id] = []
            waiting[0].turn.set_result(waiting)


def _tell(others: Sequence[_Waiting[T]], *, itself: bool) -> None:
    """Let those who wait go: each to take its own item in `itself`, or with nothing left to do."""
    for one in others:
        if not one.turn.done():
            one.turn.set_result([one] if itself else [])
