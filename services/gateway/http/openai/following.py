"""Follow a run and tell an OpenAI client, event by event: from its beginning, or from where he was.

Facts are read from the log in their order; what is heard only says that there is something to read. So the same run
tells the same story to whoever asks, from this gateway or another, live or later. Pieces of text are hints beside it,
and the end has the whole text.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from services.gateway.births import Birth
from services.gateway.gateway import Gateway
from services.gateway.http.errors import said_of
from services.gateway.http.openai.failures import Failing, of_detail
from services.gateway.http.sse import ACKNOWLEDGE
from services.gateway.http.streams import streaming
from services.gateway.http.wire import Wire, watching
from services.gateway.runs import KeyReused, NoEndInTime, Past, given_s
from services.gateway.texts import Said, Texts
from shared import subjects
from shared.bus.connection import Bus
from shared.bus.errors import BusError
from shared.bus.hearing import Ear
from shared.bus.jetstream import Stored
from shared.contracts.events import CallSettled, RunAccepted, RunCategorized, RunEnded, RunPlanned
from shared.contracts.ids import Purpose
from shared.contracts.message import Run, Unreadable
from shared.observe.logs import bound
from shared.topology import EVENTS
from shared.transcript import Piece, Restart

PAGE: Final = 100
PAGE_BYTES: Final = 4 * 1024 * 1024
SPEAKING: Final = frozenset({"answer", "final"})
"""The calls whose text is the answer."""
SETTLES_WITHIN_S: Final = 2.0
"""A fact that was heard is there to be read from any replica within this."""
_LOOK_S: Final = 0.02


class Teller(Protocol):
    """Turns what happens into what goes out. Pure."""

    def opened(self) -> bytes:
        """Return the beginning."""
        ...

    def step(self, fact: RunCategorized | RunPlanned | CallSettled) -> bytes:
        """Something was done on the way to the answer."""
        ...

    def answering(self) -> bytes:
        """The call that speaks was claimed: what follows is the answer."""
        ...

    def began(self, attempt: int) -> None:
        """The speaking call's text begins again."""
        ...

    def token(self, attempt: int, offset: int, text: str) -> bytes:
        """A piece of the answer has come."""
        ...

    def ended(self, ended: RunEnded) -> bytes:
        """Return the rest, and the end."""
        ...

    def failed(self, failing: Failing) -> bytes:
        """Return an end that nobody takes for a good one."""
        ...


@dataclass(slots=True)
class Place:
    """How far the log is read."""

    steps: bool
    """Whether what is done before the answer is told."""
    seq: int = 0
    speaking: str | None = None
    """The call whose text is the answer, once it was claimed."""
    ended: RunEnded | None = None


async def tell(bus: Bus, teller: Teller, place: Place, stored: Stored) -> bytes:
    """Take one fact in; return what goes out. The end is not told: whoever reads decides what to do about it."""
    decode, place.seq = bus.log.sketch, stored.seq
    match subjects.fact_of(stored.subject).split("."):
        case ["category"] if place.steps:
            return teller.step(await decode(stored, RunCategorized))
        case ["plan"] if place.steps:
            return teller.step(await decode(stored, RunPlanned))
        case ["call", Purpose.TASK, _, "settled"] if place.steps and place.speaking is None:
            return teller.step(await decode(stored, CallSettled))
        case ["call", Purpose.DECISION, "acknowledge", "settled"] if place.steps and place.speaking is None:
            return teller.step(await decode(stored, CallSettled))
        case ["call", _, call, "attempt", _] if call in SPEAKING and place.speaking is None:
            place.speaking = call
            return teller.answering()
        case ["ended"]:
            place.ended = await bus.log.decode(stored, RunEnded)
    return b""


Meet = Callable[[RunAccepted], tuple[Teller, bool]]
"""Who tells a run, now that it is known what was asked, and whether what is done before the answer is told."""


class Following(Response):
    """The response. Nothing is sent before the run is queued: what is refused is refused with its status."""

    def __init__(
        self,
        gateway: Gateway,
        run: Run,
        teller: Teller,
        *,
        birth: Birth | None = None,
        steps: bool = True,
        headers: Mapping[str, str] | None = None,
        meet: Meet | None = None,
    ) -> None:
        super().__init__()
        self._gateway, self._run, self._teller, self._birth = gateway, run, teller, birth
        self._steps, self._more, self._meet = steps, headers, meet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway, run, wire = self._gateway, self._run, Wire(send)
        live = subjects.live(run.tenant, run.run_id)
        spoken = [subjects.token(run.tenant, run.run_id, call) for call in sorted(SPEAKING)]
        hints = [live.ended, *([live.accepted] if self._meet is not None else [])]
        if self._steps:
            hints += [live.category, live.plan, live.settled(Purpose.DECISION, ACKNOWLEDGE)]
            hints.append(live.settled(Purpose.TASK, "*"))
        async with (
            streaming(gateway, scope, wire, lambda why: self._fail(wire, why)),
            gateway.bus.hearing.listen(*spoken, hints=hints) as ear,
        ):
            with bound(run_id=run.run_id):
                past = await self._born()
                async with watching(receive, wire, ear):
                    await self._tell(wire, ear, past)

    async def _born(self) -> Past:
        """Bear the run, unless it is there."""
        if self._birth is None:
            return Past()
        past = await self._gateway.runs.past(self._birth)
        if past.accepted is None and past.ended is None:
            await self._gateway.runs.bear(self._birth)
        return past

    async def _tell(self, wire: Wire, ear: Ear, past: Past) -> None:
        await wire.begin(replayed=past.ended is not None, more=self._more)
        try:
            if self._meet is not None:
                await self._meeting(wire, ear, self._meet)
            await wire.write(self._teller.opened() or b": at your service\n\n")
            ended = await self._until_end(wire, ear)
            if self._birth is not None:
                await self._gateway.runs.certify(self._birth, past)
            await wire.write(self._teller.ended(ended))
        except (BusError, Unreadable, NoEndInTime, KeyReused) as error:
            await self._fail(wire, error)
        else:
            await wire.write(b"", more=False)

    async def _meeting(self, wire: Wire, ear: Ear, meet: Meet) -> None:
        """Wait until the run is taken up, as its numbers depend on what was asked. One that ends before is told so."""
        run, log_, loop = self._run, self._gateway.bus.log, asyncio.get_running_loop()
        facts, until = subjects.facts(run), self._gateway.runs.patience_until(run)
        while (accepted := await log_.read(facts.accepted, RunAccepted)) is None:
            if await log_.exists(facts.ended):
                return
            if loop.time() > until:
                raise NoEndInTime(run.run_id, given_s(run))
            await wire.still_there()
            await ear.next()
        self._teller, self._steps = meet(accepted)

    async def _fail(self, wire: Wire, error: Exception) -> None:
        status, detail, _ = said_of(error)
        await wire.write(self._teller.failed(of_detail(status, detail, self._run.run_id)))
        await wire.write(b"", more=False)

    async def _until_end(self, wire: Wire, ear: Ear) -> RunEnded:
        """Tell everything but the end, and return that. Raises `NoEndInTime`."""
        place, loop, run = Place(self._steps), asyncio.get_running_loop(), self._run
        texts = Texts(self._gateway.bus.client, ear, run.tenant, run.run_id)
        until = self._gateway.runs.patience_until(run)
        await self._read(wire, place)
        if place.speaking is not None and place.ended is None:  # it speaks already: whoever streams it is asked
            texts.doubt(place.speaking)
            await texts.ask()
        while place.ended is None:
            heard = await ear.next()
            if heard.lost:
                texts.doubt()
            for said in (one for msg in heard.messages if texts.concerns(msg) for one in texts.hear(msg)):
                await self._said(wire, place, said)
            if heard.look and not wire.gone.is_set():
                await self._read(wire, place)
            await texts.ask()
            if place.ended is None and loop.time() > until:
                raise NoEndInTime(run.run_id, given_s(run))
            await wire.still_there()
        return place.ended

    async def _read(self, wire: Wire, place: Place, *, speaking: bool = False) -> None:
        """Tell what is on the log; `speaking`: at least up to where the answer begins."""
        facts, jetstream = subjects.facts(self._run), self._gateway.bus.jetstream
        loop = asyncio.get_running_loop()
        until = loop.time() + SETTLES_WITHIN_S
        while place.ended is None:
            page = await jetstream.direct_page(EVENTS, facts.all, after=place.seq, limit=PAGE, max_bytes=PAGE_BYTES)
            for stored in page:
                await wire_all(wire, await tell(self._gateway.bus, self._teller, place, stored))
            if page:
                continue
            if place.speaking is not None or not speaking or loop.time() > until:
                return
            await asyncio.sleep(_LOOK_S)

    async def _said(self, wire: Wire, place: Place, said: Said) -> None:
        """Tell a piece of the answer."""
        if place.speaking is None:  # but its attempt is on the log: it was claimed before it was sent
            await self._read(wire, place, speaking=True)
        if place.ended is not None or place.speaking is None:
            return
        match said.told:
            case Restart(attempt):
                self._teller.began(attempt)
            case Piece(attempt, offset, text):
                await wire_all(wire, self._teller.token(attempt, offset, text))


async def wire_all(wire: Wire, out: bytes) -> None:
    if out:
        await wire.write(out)
