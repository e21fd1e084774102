"""Follow a run: its facts from the log, each once and in order, and its calls' texts as they come in.

Facts are read by their sequence; what is heard live only says that there is something to read. So who reads slowly
loses nothing, holds nothing back and slows nobody: it keeps one page of facts, and hints within a bound.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from nats.aio.msg import Msg

from services.gateway.pages import Fact, Pages
from services.gateway.texts import Said, Texts
from shared import subjects
from shared.bus.errors import BusError
from shared.bus.hearing import Ear
from shared.bus.payloads import PayloadMissing
from shared.contracts.events import CallSettled
from shared.contracts.message import Unreadable
from shared.topology import EVENTS


class Following:
    """One reader's way through a run."""

    def __init__(self, pages: Pages, ear: Ear, tenant: str, run_id: str, *, after: int, tokens: bool) -> None:
        self._pages, self._bus, self.ear = pages, pages.bus, ear
        self._facts = subjects.events(tenant, run_id)
        self._texts = Texts(pages.bus.client, ear, tenant, run_id) if tokens else None
        self.seq = after
        """The last fact that was told."""
        self.over = False

    async def batches(self) -> AsyncIterator[Sequence[Fact | Said]]:
        """Yield what is new, until the run's end; nothing at all after a while in which nothing was."""
        async for page in self._new_facts():
            yield page
        self.over = self.over or await self._ended_before()
        if self._texts is not None and not self.over:
            await self._texts.come_late(self._bus.jetstream)
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

    async def _new_facts(self) -> AsyncIterator[Sequence[Fact | Said]]:
        """Yield every fact behind the reader's place, a page at a time."""
        while not self.over:
            page = await self._pages.behind(self._facts.all, self.seq)
            if not page:
                return
            # What was said of a text before it was settled was heard before the page came.
            told: list[Fact | Said] = [*self._hear(self.ear.drain())]
            for fact in page:
                if fact.kind == "settled":
                    told += await self._last_words(fact)
                told.append(fact)
                self.seq = fact.seq
                self.over = self.over or fact.name == "ended"
            yield told

    async def _last_words(self, fact: Fact) -> list[Said]:
        """Return what of a call's text was not told before the log said it whole."""
        call = fact.name.split(".")[2]
        if self._texts is None or (told := self._texts.reaches(call)) is None or not isinstance(fact.data, dict):
            return self._texts.settle(call, None, 0) if self._texts is not None else []
        answered = fact.data.get("outcome") == "answered"
        text = fact.data.get("text") or ""
        whole = fact.data.get("text_chars")
        if answered and whole is not None and told < whole:
            try:
                text = (await self._bus.log.decode(fact.stored, CallSettled)).text or ""
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
async def following(
    pages: Pages, tenant: str, run_id: str, *, after: int = 0, tokens: bool
) -> AsyncIterator[Following]:
    """Listen to a run from now on; its facts are read from `after` on."""
    heard_on = (subjects.token(tenant, run_id, "*"),) if tokens else ()
    async with pages.bus.hearing.listen(*heard_on, hints=(subjects.live(tenant, run_id).all,)) as ear:
        yield Following(pages, ear, tenant, run_id, after=after, tokens=tokens)
