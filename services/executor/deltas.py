"""A call's text as it comes in, over core NATS: heard by whoever listens now, outside the log.

Whoever begins to listen in the middle, or has missed a piece, asks for the text so far; whoever streams answers.
"""

import time
from dataclasses import dataclass, field

from nats.aio.client import Client
from nats.errors import Error
from pydantic_core import to_json

from shared import subjects
from shared.contracts.commands import ExecuteCall
from shared.contracts.events import AttemptStarted
from shared.contracts.hints import AskText, TextSoFar
from shared.contracts.message import Unreadable
from shared.observe import metrics

KEPT_CHARS = 1_000_000
"""Of a text that is streamed now. Of a longer one, who comes late gets the rest when the call is settled."""
SLICE_CHARS = 32_768
"""Of an answer: at the most six bytes a character, which is less than the bus takes."""


class Deltas:
    """Of one attempt: `{"call", "attempt", "offset", "text"}`, offset in characters. Losing one loses a hint only."""

    def __init__(self, client: Client, command: ExecuteCall, started: AttemptStarted) -> None:
        self._client = client
        self._subject = subjects.token(command.run.tenant, command.run.run_id, command.call)
        self._call = command.call
        self._started = started
        self._offset = 0
        self._began_s = 0.0
        self._parts: list[str] = []

    async def begin(self) -> None:
        """Say that the text starts again, unless this is the first attempt."""
        self._began_s = time.monotonic()
        if self._started.attempt > 1:
            await self._publish({"call": self._call, "attempt": self._started.attempt, "restart": True})

    async def send(self, text: str) -> None:
        """Publish a piece of text."""
        if self._offset == 0:
            metrics.FIRST_TOKEN_SECONDS.labels(self._started.provider, self._started.model).observe(
                time.monotonic() - self._began_s
            )
        offset, self._offset = self._offset, self._offset + len(text)
        if offset < KEPT_CHARS:
            self._parts.append(text)
        await self._publish({"call": self._call, "attempt": self._started.attempt, "offset": offset, "text": text})

    def so_far(self, asked: AskText) -> TextSoFar:
        """Return what a listener lacks: behind what it has of this attempt, all of this attempt if it has another."""
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        kept = self._parts[0] if self._parts else ""
        offset = min(asked.offset, self._offset) if asked.attempt == self._started.attempt else 0
        return TextSoFar(
            call=self._call,
            attempt=self._started.attempt,
            offset=offset,
            text=kept[offset : offset + SLICE_CHARS],
            end=self._offset,
        )

    async def _publish(self, fields: dict[str, object]) -> None:
        try:
            await self._client.publish(self._subject, to_json(fields))
        except Error:
            return  # not connected: the answer on the log is what counts


@dataclass(slots=True)
class Streams:
    """What this process streams right now, by tenant, run and call."""

    _open: dict[tuple[str, str, str], Deltas] = field(default_factory=dict)

    def open(self, client: Client, command: ExecuteCall, started: AttemptStarted) -> Deltas:
        """Return an attempt's deltas, to be closed when it has ended."""
        deltas = Deltas(client, command, started)
        self._open[command.run.tenant, command.run.run_id, command.call] = deltas
        return deltas

    def close(self, command: ExecuteCall, deltas: Deltas) -> None:
        key = (command.run.tenant, command.run.run_id, command.call)
        if self._open.get(key) is deltas:
            del self._open[key]

    def asked(self, subject: str, data: bytes) -> bytes | None:
        """Answer a listener; None: somebody else streams that call, or nobody."""
        deltas = self._open.get(subjects.streamed(subject))
        if deltas is None:
            return None
        try:
            return deltas.so_far(AskText.decode(data) if data else AskText()).encode()
        except Unreadable:
            return deltas.so_far(AskText()).encode()
