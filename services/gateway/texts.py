"""The texts of a run's calls as they come in, for one listener: asks whoever streams for what it lacks."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, assert_never

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error

from shared import subjects
from shared.bus.hearing import Ear
from shared.bus.jetstream import JetStream
from shared.contracts.hints import AskText, TextDelta, TextSoFar
from shared.contracts.message import Unreadable
from shared.topology import EVENTS
from shared.transcript import Piece, Restart, Told, Transcript

ASKS_AGAIN_S: Final = 0.5
MOST_ASKS: Final = 5
"""Without an answer: then nobody streams the call, and the log, or the next attempt, will say."""


@dataclass(frozen=True, slots=True)
class Said:
    """What is new of a call's text."""

    call: str
    told: Told


@dataclass(slots=True)
class _Call:
    transcript: Transcript = field(default_factory=Transcript)
    asks: int = 0
    asked_at: float = 0.0


class Texts:
    """One listener's. Of each call it keeps some numbers, never the text."""

    def __init__(self, client: Client, ear: Ear, tenant: str, run_id: str) -> None:
        self._client, self._ear = client, ear
        self._tenant, self._run_id = tenant, run_id
        self._tokens = subjects.token(tenant, run_id, "")
        self._calls: dict[str, _Call] = {}

    def concerns(self, msg: Msg) -> bool:
        """Whether a message is a piece of text, or an answer to what was asked."""
        return msg.subject == self._ear.inbox or msg.subject.startswith(self._tokens)

    def hear(self, msg: Msg) -> list[Said]:
        """Take a message; returns what is new. One that cannot be read is one that was lost."""
        try:
            if msg.subject == self._ear.inbox:
                return self._answered(TextSoFar.decode(msg.data)) if msg.data else []
            delta = TextDelta.decode(msg.data)
        except Unreadable:
            return []
        name = msg.subject[len(self._tokens) :]
        call = self._call(name)
        call.asks = 0
        transcript = call.transcript
        told = (
            transcript.restart(delta.attempt)
            if delta.restart
            else transcript.take(delta.attempt, delta.offset, delta.text)
        )
        return [Said(name, one) for one in told]

    def _answered(self, said: TextSoFar) -> list[Said]:
        call = self._calls.get(said.call)
        if call is None:
            return []
        call.asks, call.asked_at = 0, 0.0
        return [Said(said.call, one) for one in call.transcript.answer(said.attempt, said.offset, said.text, said.end)]

    def doubt(self, *names: str) -> None:
        """Something may have been missed of these calls, and of all that are known."""
        for name in names:
            self._call(name)
        for call in self._calls.values():
            call.transcript.doubt()
            call.asks = 0

    async def come_late(self, jetstream: JetStream) -> None:
        """Ask for the texts of the calls that were being answered when the listener came."""
        facts = subjects.events(self._tenant, self._run_id)
        names = await jetstream.subjects_of(EVENTS, f"{facts.prefix}.call.>")
        self.doubt(*in_flight([subjects.fact_of(name) for name in names]))
        await self.ask()

    async def ask(self) -> None:
        """Ask for what is missing, where that was not done a moment ago."""
        now = asyncio.get_running_loop().time()
        for name, call in self._calls.items():
            transcript = call.transcript
            if not transcript.behind or call.asks >= MOST_ASKS or now - call.asked_at < ASKS_AGAIN_S:
                continue
            call.asks, call.asked_at = call.asks + 1, now
            asked = AskText(attempt=transcript.attempt, offset=transcript.told)
            try:
                await self._client.publish(
                    subjects.sofar(self._tenant, self._run_id, name), asked.encode(), reply=self._ear.inbox
                )
            except Error:
                return  # not connected: asked again once it is

    def reaches(self, name: str) -> int | None:
        """How much of a call's text was told; None: nothing was heard of it, or it is over."""
        call = self._calls.get(name)
        return None if call is None or call.transcript.over or not call.transcript.attempt else call.transcript.told

    def settle(self, name: str, text: str | None, attempts: int) -> list[Said]:
        """Take the log's word on a call; returns what is missing up to it."""
        return [Said(name, one) for one in self._call(name).transcript.settle(text, attempts)]

    def _call(self, name: str) -> _Call:
        call = self._calls.get(name)
        if call is None:
            call = self._calls[name] = _Call()
        return call


def fields_of(said: Said) -> tuple[str, dict[str, object]]:
    """Return an event's name and data."""
    match said.told:
        case Piece(attempt, offset, text):
            return "token", {"call": said.call, "attempt": attempt, "offset": offset, "text": text}
        case Restart(attempt):
            return "restart", {"call": said.call, "attempt": attempt, "restart": True}
    assert_never(said.told)


def in_flight(names: Sequence[str]) -> list[str]:
    """Return the calls of which facts, by their names, show an attempt and no end."""
    begun, over = dict[str, None](), set[str]()
    for name in names:
        match name.split("."):
            case ["call", _, call, "attempt", _]:
                begun[call] = None
            case ["call", _, call, "settled"]:
                over.add(call)
    return [call for call in begun if call not in over]
