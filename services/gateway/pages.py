"""Pages of a run's facts: those who ask for the same page at the same moment share one read of the log.

Whatever is stored wakes all who follow a run, and most of them have come equally far.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from pydantic_core import from_json, to_json

from shared import subjects
from shared.bus.connection import Bus
from shared.bus.jetstream import Stored
from shared.topology import EVENTS

PAGE: Final = 100
PAGE_BYTES: Final = 256 * 1024


@dataclass(frozen=True)
class Fact:
    """A fact of a run, as the log has it."""

    stored: Stored
    name: str
    data: Any
    """Its body; of one that is too large for the bus the outline, None where there is none."""

    @property
    def seq(self) -> int:
        return self.stored.seq

    @cached_property
    def kind(self) -> str:
        """What an event is called: its fact, without the names in it."""
        parts = self.name.split(".")
        if parts[0] == "call":
            if parts[-1] == "job":
                return "job"
            return "attempt" if "attempt" in parts[3:4] else parts[3]
        return parts[0]

    def fields(self) -> dict[str, Any]:
        """Return it as readers get it."""
        return {"seq": self.seq, "fact": self.name, "at": self.stored.time, "data": self.data}

    @cached_property
    def json(self) -> bytes:
        """Its fields on one line: written once, however many read it."""
        return to_json(self.fields())


Page = Sequence[Fact]


class Pages:
    """The reads of one process. Nothing is kept: what is read is read when it is asked for, never before."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self._next: dict[tuple[str, int], asyncio.Task[Page]] = {}

    async def behind(self, pattern: str, after: int) -> Page:
        """Return the next facts on matching subjects behind a sequence; none only when there is none."""
        key = (pattern, after)
        reading = self._next.get(key)
        if reading is None:
            reading = self._next[key] = asyncio.create_task(self._read(key))
            reading.add_done_callback(_seen)
        return await asyncio.shield(reading)

    async def _read(self, key: tuple[str, int]) -> Page:
        await asyncio.sleep(0)  # whoever was woken by the same hint asks now
        del self._next[key]  # whoever asks from here on may know of a later fact
        pattern, after = key
        found = await self.bus.jetstream.direct_page(EVENTS, pattern, after=after, limit=PAGE, max_bytes=PAGE_BYTES)
        return [_fact(stored) for stored in found]


def _seen(reading: "asyncio.Task[Page]") -> None:
    """Whoever asked has gone: its failure is nobody's any more."""
    if not reading.cancelled():
        reading.exception()


def _fact(stored: Stored) -> Fact:
    body: Any = None
    if stored.data:
        with contextlib.suppress(ValueError):
            body = from_json(stored.data)
    return Fact(stored, subjects.fact_of(stored.subject), body)
