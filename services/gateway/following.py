"""Follow a run: its facts from the log, each once and in order, and its calls' texts as they come in.

Facts are read by their sequence; what is heard live only says that there is something to read. So who reads slowly
loses nothing, holds nothing back and slows nobody: it keeps one page of facts, and hints within a bound.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from nats.aio.msg import Msg
from pydantic_core import from_json

from services.gateway.texts import Said, Texts, in_flight
from shared import subjects
from shared.bus.connection import Bus
from shared.bus.errors import BusError
from shared.bus.hearing import Ear
from shared.bus.jetstream import Stored
from shared.bus.payloads import PayloadMissing
from shared.contracts.events import CallSettled
from shared.contracts.message import Unreadable
from shared.topology import EVENTS

PAGE: Final = 100
PAGE_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact of the run, as the log has it."""

    seq: int
    name: str
    at: str
    data: Any
    """Its body; of one that is too large for the bus the outline, None where there is none."""

    @property
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
        return {"seq": self.seq, "fact": self.name, "at": self.at, "data": self.data}


class Following:
    """One reader's way through a run."""

    def __init__(self, bus: Bus, ear: Ear, tenant: str, run_id: str, *, after: int, tokens: bool) -> None:
        self._bus, self.ear = bus, ear
        self._facts = subjects.events(tenant, run_id)
        self._texts = Texts(bus.client, ear, tenant, run_id) if tokens else None
        self._late = True
        self.seq = after
        """The last fact that was told."""
        self.over = False

    async def batches(self) -> AsyncIterator[Sequence[Fact | Said]]:
        """Yield what is new, until the run's end; nothing at all after a while in which nothing was."""
        async for page in self._new_facts():
            yield page
        self.over = self.over or await self._ended_before()
        await self._come_late()
        while not self.over:
            yield ()
            heard = await self.ear.next()
            if self._texts is not None:
                if heard.lost:
                    self._texts.doubt()
                if said := self._hear(heard.messages):
                    yield said
                await self._texts.ask()
            if heard.look:
                async for page in self._new_facts():
                    yield page

    def _hear(self, messages: Sequence[Msg]) -> list[Said]:
        if self._texts is None:
            return []
        return [one for msg in messages if self._texts.concerns(msg) for one in self._texts.hear(msg)]

    async def _come_late(self) -> None:
        """Ask for the texts of the calls that were being answered when the reader came."""
        if self._texts is None or self.over:
            return
        names = await self._bus.jetstream.subjects_of(EVENTS, f"{self._facts.prefix}.call.>")
        self._texts.doubt(*in_flight([subjects.fact_of(name) for name in names]))
        await self._texts.ask()

    async def _new_facts(self) -> AsyncIterator[Sequence[Fact | Said]]:
        """Yield every fact behind the reader's place, a page at a time."""
        while not self.over:
            page = await self._bus.jetstream.direct_page(
                EVENTS, self._facts.all, after=self.seq, limit=PAGE, max_bytes=PAGE_BYTES
            )
            if not page:
                return
            # What was said of a text before it was settled was heard before the page came.
            told: list[Fact | Said] = [*self._hear(self.ear.drain())]
            for stored in page:
                fact = _read(stored)
                if fact.kind == "settled":
                    told += await self._last_words(stored, fact)
                told.append(fact)
                self.seq = stored.seq
                self.over = self.over or fact.name == "ended"
            yield told

    async def _last_words(self, stored: Stored, fact: Fact) -> list[Said]:
        """Return what of a call's text was not told before the log said it whole."""
        call = fact.name.split(".")[2]
        if self._texts is None or (told := self._texts.reaches(call)) is None or not isinstance(fact.data, dict):
            return self._texts.settle(call, None, 0) if self._texts is not None else []
        answered = fact.data.get("outcome") == "answered"
        text = fact.data.get("text") or ""
        whole = fact.data.get("text_chars")
        if answered and whole is not None and told < whole:
            try:
                text = (await self._bus.log.decode(stored, CallSettled)).text or ""
            except (BusError, PayloadMissing, Unreadable):
                answered = False
        elif answered and whole is not None:
            answered = False  # all of it was told
        return self._texts.settle(call, text if answered else None, int(fact.data.get("attempts") or 0))

    async def _ended_before(self) -> bool:
        """Whether the reader has had the end already."""
        last = await self._bus.jetstream.last(EVENTS, self._facts.ended)
        return last is not None and last.seq <= self.seq


@asynccontextmanager
async def following(bus: Bus, tenant: str, run_id: str, *, after: int = 0, tokens: bool) -> AsyncIterator[Following]:
    """Listen to a run from now on; its facts are read from `after` on."""
    heard_on = (subjects.token(tenant, run_id, "*"),) if tokens else ()
    async with bus.hearing.listen(*heard_on, hints=(subjects.live(tenant, run_id).all,)) as ear:
        yield Following(bus, ear, tenant, run_id, after=after, tokens=tokens)


def _read(stored: Stored) -> Fact:
    body: Any = None
    if stored.data:
        with contextlib.suppress(ValueError):
            body = from_json(stored.data)
    return Fact(stored.seq, subjects.fact_of(stored.subject), stored.time, body)
