"""Answer as server-sent events: what happens to a run as it happens, each event once and in order."""

import asyncio
import json
from dataclasses import dataclass

from nats.aio.msg import Msg
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from services.gateway.births import Birth
from services.gateway.gateway import Gateway
from services.gateway.http.answers import to_chat
from services.gateway.http.streams import streaming
from services.gateway.http.wire import Wire, event, watching
from services.gateway.runs import KeyReused, NoEndInTime, Past, given_s
from services.gateway.texts import Said, Texts, fields_of
from shared import subjects
from shared.bus.errors import BusError
from shared.bus.hearing import Ear
from shared.bus.jetstream import Stored
from shared.contracts.events import CallSettled, RunCategorized, RunEnded
from shared.contracts.ids import Category, Purpose
from shared.contracts.message import Run, Unreadable
from shared.observe.logs import bound

ACKNOWLEDGE = "acknowledge"


class Events(Response):
    """The response. Nothing is sent before the run is queued: what is refused is refused with its status."""

    def __init__(self, gateway: Gateway, birth: Birth) -> None:
        super().__init__()
        self._gateway = gateway
        self._birth = birth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway, run = self._gateway, self._birth.run
        live = subjects.live(run.tenant, run.run_id)
        heard_on = (
            live.category,
            live.settled(Purpose.DECISION, ACKNOWLEDGE),
            live.ended,
            subjects.token(run.tenant, run.run_id, "*"),
        )
        wire = Wire(send)
        async with (
            streaming(gateway, scope, wire, lambda why: wire.fail(why, run.run_id)),
            gateway.bus.hearing.listen(*heard_on) as ear,
        ):
            with bound(run_id=run.run_id):
                past = await gateway.runs.past(self._birth)
                if past.accepted is None and past.ended is None:
                    await gateway.runs.bear(self._birth)
                async with watching(receive, wire, ear):
                    await self._tell(wire, ear, past)

    async def _tell(self, wire: Wire, ear: Ear, past: Past) -> None:
        """Tell everything, from the acceptance to the end."""
        run = self._birth.run if past.accepted is None else past.accepted.run
        if past.ended is not None:
            run = past.ended.run
        await wire.begin(replayed=past.ended is not None)
        await wire.tell("accepted", {"run_id": run.run_id, "session_id": run.session_id})
        try:
            telling = _Telling(self._gateway, run, wire, Texts(self._gateway.bus.client, ear, run.tenant, run.run_id))
            ended = await telling.until_end(ear, past.ended, late=past.accepted is not None)
            await self._gateway.runs.certify(self._birth, past)
            answer = to_chat(ended)
            if answer.status == 200:
                await wire.write(event("answer", answer.body.to_json()))
            else:
                await wire.tell("error", {"status": answer.status, **json.loads(answer.body.to_json())})
        except (BusError, Unreadable, NoEndInTime, KeyReused) as error:
            await wire.fail(error, run.run_id)
        else:
            await wire.end()


@dataclass(slots=True)
class _Telling:
    """Which of a run's facts the caller has been told."""

    gateway: Gateway
    run: Run
    wire: Wire
    texts: Texts
    category: RunCategorized | None = None
    acknowledged: bool = False

    async def until_end(self, ear: Ear, ended: RunEnded | None, *, late: bool) -> RunEnded:
        """Tell what comes in until the run ends; returns its end. Raises `NoEndInTime`.

        `late`: the run goes on already, so that the texts of its calls so far are asked for.
        """
        until = self.gateway.runs.patience_until(self.run)
        loop = asyncio.get_running_loop()
        facts = subjects.facts(self.run)
        if late and ended is None:
            await self._catch_up()
            await self.texts.come_late(self.gateway.bus.jetstream)
        while ended is None:
            heard = await ear.next()
            if heard.lost:
                self.texts.doubt()
            for msg in heard.messages:
                ended = await self._heard(msg) or ended
            if ended is None and heard.look and not self.wire.gone.is_set():
                await self._catch_up()
                ended = await self.gateway.bus.log.read(facts.ended, RunEnded)
            await self.texts.ask()
            if ended is None and loop.time() > until:
                raise NoEndInTime(self.run.run_id, given_s(self.run))
            await self.wire.still_there()
        await self._catch_up()
        if not self.acknowledged and ended.acknowledgement is not None:
            await self._acknowledgement(ended.acknowledgement)
        return ended

    async def _heard(self, msg: Msg) -> RunEnded | None:
        """Tell what one message says; returns the end when it is the end."""
        if self.texts.concerns(msg):
            for said in self.texts.hear(msg):
                await self._said(said)
            return None
        stored = Stored(msg.subject, msg.data, msg.headers, 0)
        decode = self.gateway.bus.log.decode
        match subjects.fact_of(msg.subject).split("."):
            case ["category"]:
                await self._category(await decode(stored, RunCategorized))
            case ["call", _, _, "settled"]:
                await self._catch_up()  # the category comes first, and it is on the log by now
                await self._settled(await decode(stored, CallSettled))
            case ["ended"]:
                return await decode(stored, RunEnded)
        return None

    async def _said(self, said: Said) -> None:
        if self.category is None:
            await self._catch_up()
        await self.wire.tell(*fields_of(said))

    async def _category(self, fact: RunCategorized) -> None:
        if self.category is None:
            self.category = fact
            await self.wire.tell("category", {"category": fact.category, "reason": fact.reason})

    async def _settled(self, call: CallSettled) -> None:
        if call.outcome == "answered" and call.text:
            await self._acknowledgement(call.text)
        self.acknowledged = True

    async def _acknowledgement(self, text: str) -> None:
        if not self.acknowledged:
            self.acknowledged = True
            await self.wire.tell("acknowledgement", {"text": text})

    async def _catch_up(self) -> None:
        """Tell what is on the log and was not heard."""
        facts, read = subjects.facts(self.run), self.gateway.bus.log.read
        if self.category is None and (category := await read(facts.category, RunCategorized)) is not None:
            await self._category(category)
        orchestrated = self.category is not None and self.category.category is Category.H
        if orchestrated and not self.acknowledged:
            settled = await read(facts.settled(Purpose.DECISION, ACKNOWLEDGE), CallSettled)
            if settled is not None:
                await self._settled(settled)
