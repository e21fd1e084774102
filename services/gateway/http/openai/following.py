"""Follow a run and tell an OpenAI client, event by event: from its beginning, or from where he was.

Facts are read from the log in their order; what is heard only says that there is something to read. So the same run
tells the same story to whoever asks, from this gateway or another, live or later. Pieces of text are hints beside it,
and the end has the whole text.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from nats.aio.msg import Msg
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from services.gateway.births import Birth
from services.gateway.gateway import Gateway
from services.gateway.http.errors import said_of
from services.gateway.http.openai.failures import Failing, of_detail
from services.gateway.http.sse import ACKNOWLEDGE, Gone, Wire, watch_caller
from services.gateway.runs import KeyReused, NoEndInTime, Past, given_s
from services.gateway.waiting import Stopping
from shared import subjects
from shared.bus.connection import Bus
from shared.bus.errors import BusError
from shared.bus.jetstream import Stored
from shared.contracts.events import CallSettled, RunCategorized, RunEnded, RunPlanned
from shared.contracts.ids import Purpose
from shared.contracts.message import Run, Unreadable
from shared.observe.logs import bound
from shared.topology import EVENTS

log = logging.getLogger("segue.gateway")

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
    answering: bool = False
    ended: RunEnded | None = None


async def tell(bus: Bus, teller: Teller, place: Place, stored: Stored) -> bytes:
    """Take one fact in; return what goes out. The end is not told: whoever reads decides what to do about it."""
    decode, place.seq = bus.log.sketch, stored.seq
    match subjects.fact_of(stored.subject).split("."):
        case ["category"] if place.steps:
            return teller.step(await decode(stored, RunCategorized))
        case ["plan"] if place.steps:
            return teller.step(await decode(stored, RunPlanned))
        case ["call", Purpose.TASK, _, "settled"] if place.steps and not place.answering:
            return teller.step(await decode(stored, CallSettled))
        case ["call", Purpose.DECISION, "acknowledge", "settled"] if place.steps and not place.answering:
            return teller.step(await decode(stored, CallSettled))
        case ["call", _, call, "attempt", _] if call in SPEAKING and not place.answering:
            place.answering = True
            return teller.answering()
        case ["ended"]:
            place.ended = await bus.log.decode(stored, RunEnded)
    return b""


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
    ) -> None:
        super().__init__()
        self._gateway, self._run, self._teller, self._birth = gateway, run, teller, birth
        self._steps, self._said = steps, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway, run, wire = self._gateway, self._run, Wire(send)
        live = subjects.live(run.tenant, run.run_id)
        heard_on = [live.ended, *(subjects.token(run.tenant, run.run_id, call) for call in sorted(SPEAKING))]
        if self._steps:
            heard_on += [live.category, live.plan, live.settled(Purpose.DECISION, ACKNOWLEDGE)]
            heard_on.append(live.settled(Purpose.TASK, "*"))
        try:
            async with gateway.waiting.place(), gateway.bus.live.listen(*heard_on) as queue:
                with bound(run_id=run.run_id):
                    past = await self._born()
                    watch = asyncio.create_task(watch_caller(receive, wire, queue))
                    try:
                        await self._tell(wire, queue, past)
                    finally:
                        watch.cancel()
        except Stopping as error:
            if not wire.begun:
                raise
            await self._fail(wire, error)
        except Gone:
            log.info("stream.left", extra={"run_id": run.run_id})

    async def _born(self) -> Past:
        """Bear the run, unless it is there."""
        if self._birth is None:
            return Past()
        past = await self._gateway.runs.past(self._birth)
        if past.accepted is None and past.ended is None:
            await self._gateway.runs.bear(self._birth)
        return past

    async def _tell(self, wire: Wire, queue: "asyncio.Queue[Msg | None]", past: Past) -> None:
        await wire.begin(replayed=past.ended is not None, more=self._said)
        try:
            await wire.write(self._teller.opened() or b": at your service\n\n")
            ended = await self._until_end(wire, queue)
            if self._birth is not None:
                await self._gateway.runs.certify(self._birth, past)
            await wire.write(self._teller.ended(ended))
        except (BusError, Unreadable, NoEndInTime, KeyReused) as error:
            await self._fail(wire, error)
        else:
            await wire.write(b"", more=False)

    async def _fail(self, wire: Wire, error: Exception) -> None:
        status, detail, _ = said_of(error)
        await wire.write(self._teller.failed(of_detail(status, detail, self._run.run_id)))
        await wire.write(b"", more=False)

    async def _until_end(self, wire: Wire, queue: "asyncio.Queue[Msg | None]") -> RunEnded:
        """Tell everything but the end, and return that. Raises `NoEndInTime`."""
        place, loop = Place(self._steps), asyncio.get_running_loop()
        until = self._gateway.runs.patience_until(self._run)
        await self._read(wire, place)
        while place.ended is None:
            msg = await queue.get()
            if msg is None or not self._is_token(msg):
                await self._read(wire, place, _seq(msg))
            else:
                await self._token(wire, place, msg)
            if place.ended is None and loop.time() > until:
                raise NoEndInTime(self._run.run_id, given_s(self._run))
            await wire.still_there()
        return place.ended

    async def _read(self, wire: Wire, place: Place, seq: int = 0, *, answering: bool = False) -> None:
        """Tell what is on the log: at least up to `seq`, or to where the answer begins."""
        facts, jetstream = subjects.events(self._run.tenant, self._run.run_id), self._gateway.bus.jetstream
        loop = asyncio.get_running_loop()
        until = loop.time() + SETTLES_WITHIN_S
        while place.ended is None:
            page = await jetstream.direct_page(EVENTS, facts.all, after=place.seq, limit=PAGE, max_bytes=PAGE_BYTES)
            for stored in page:
                await wire_all(wire, await tell(self._gateway.bus, self._teller, place, stored))
            if page:
                continue
            if (place.seq >= seq and (place.answering or not answering)) or loop.time() > until:
                return
            await asyncio.sleep(_LOOK_S)

    def _is_token(self, msg: Msg) -> bool:
        return msg.subject.startswith(subjects.token(self._run.tenant, self._run.run_id, ""))

    async def _token(self, wire: Wire, place: Place, msg: Msg) -> None:
        if not place.answering:  # but its attempt is on the log: it was claimed before it was sent
            await self._read(wire, place, answering=True)
            if not place.answering:
                return
        with contextlib.suppress(ValueError, KeyError, TypeError):  # a hint that cannot be read is one that was lost
            delta = json.loads(msg.data)
            if delta.get("restart"):
                self._teller.began(int(delta["attempt"]))
                return
            out = self._teller.token(int(delta["attempt"]), int(delta["offset"]), str(delta["text"]))
            await wire_all(wire, out)


async def wire_all(wire: Wire, out: bytes) -> None:
    if out:
        await wire.write(out)


def _seq(msg: Msg | None) -> int:
    """Return the sequence of a fact that was heard."""
    said = (msg.headers or {}).get("Nats-Sequence", "") if msg is not None else ""
    return int(said) if said.isdigit() else 0
