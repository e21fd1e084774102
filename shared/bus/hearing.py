"""Listening for what happens now: one subscription a subject in a process, however many listen, each within a bound.

A listener that does not come to take what it heard keeps a bounded number of bytes; what does not fit is dropped, and
it is told that something was. What is heard is a hint: the log has the facts, and whoever streams has the text.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from shared.bus.live import LOOK_AGAIN_S
from shared.bus.reader import Reader

MOST_BYTES: Final = 512 * 1024
"""What one listener keeps; more than the largest message."""
_MESSAGE_BYTES: Final = 512
"""About what a message costs besides its body."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What came in since the last time."""

    messages: Sequence[Msg]
    look: bool
    """There may be something on the log: a hint said so, one was lost, or nothing was heard for a while."""
    lost: bool
    """Hints were dropped, or the connection was made again."""


class Ear:
    """One listener. `inbox` is where answers to it go."""

    def __init__(self, inbox: str, most_bytes: int) -> None:
        self.inbox = inbox
        self._most = most_bytes
        self._messages: list[Msg] = []
        self._bytes = 0
        self._look = self._lost = False
        self._wake = asyncio.Event()

    def take(self, msg: Msg) -> None:
        """Keep a message, or note that it did not fit."""
        size = len(msg.data) + _MESSAGE_BYTES
        if self._bytes + size > self._most:
            self._lost = True
        else:
            self._messages.append(msg)
            self._bytes += size
        self._wake.set()

    def hint(self, _: Msg) -> None:
        """Note that there is news; its body is read from the log."""
        self._look = True
        self._wake.set()

    def missed(self) -> None:
        """Note that something may have been missed."""
        self._lost = True
        self._wake.set()

    def rouse(self) -> None:
        """Have `next` return."""
        self._look = True
        self._wake.set()

    def drain(self) -> Sequence[Msg]:
        """Return the messages that are there now."""
        messages, self._messages, self._bytes = self._messages, [], 0
        return messages

    async def next(self, within_s: float = LOOK_AGAIN_S) -> Heard:
        """Return what was heard, as soon as there is something, or nothing after a while."""
        if not self._wake.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._wake.wait()
        quiet = not self._wake.is_set()
        heard = Heard(self.drain(), self._look or self._lost or quiet, self._lost)
        self._wake.clear()
        self._look = self._lost = False
        return heard


@dataclass(slots=True)
class _Line:
    """One subject's subscription and who listens."""

    takers: dict[Ear, Callable[[Msg], None]] = field(default_factory=dict)
    subscription: Subscription | None = None
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    def heard(self, msg: Msg) -> None:
        for take in list(self.takers.values()):
            take(msg)


class Switchboard:
    """Everybody who listens on one connection."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lines: dict[str, _Line] = {}
        self._ears: dict[str, Ear] = {}
        self._numbers = count(1)
        self._inbox = ""

    def reconnected(self) -> None:
        """Whatever was said meanwhile was missed."""
        for ear in self._ears.values():
            ear.missed()

    @property
    def listening(self) -> tuple[int, int]:
        """How many listen, and on how many subjects."""
        return len(self._ears), len(self._lines)

    @asynccontextmanager
    async def listen(
        self, *subjects: str, hints: Sequence[str] = (), most_bytes: int = MOST_BYTES
    ) -> AsyncIterator[Ear]:
        """Hear what is said on `subjects` from now on, and that something is said on `hints`."""
        if not self._inbox:
            self._inbox = self._client.new_inbox()
            await self._client.subscribe(f"{self._inbox}.*", future=Reader(self._answered))
        number = str(next(self._numbers))
        ear = self._ears[number] = Ear(f"{self._inbox}.{number}", most_bytes)
        joined: list[str] = []
        try:
            for subject in subjects:
                joined.append(subject)
                await self._join(subject, ear, ear.take)
            for subject in hints:
                joined.append(subject)
                await self._join(subject, ear, ear.hint)
            yield ear
        finally:
            del self._ears[number]
            for subject in joined:
                await self._leave(subject, ear)

    def _answered(self, msg: Msg) -> None:
        ear = self._ears.get(msg.subject.rpartition(".")[2])
        if ear is not None:
            ear.take(msg)

    async def _join(self, subject: str, ear: Ear, take: Callable[[Msg], None]) -> None:
        line = self._lines.get(subject)
        if line is None:
            line = self._lines[subject] = _Line()
        line.takers[ear] = take
        async with line.opening:
            if line.subscription is None:  # or whoever began to open it went before it was open
                line.subscription = await self._client.subscribe(subject, future=Reader(line.heard))

    async def _leave(self, subject: str, ear: Ear) -> None:
        line = self._lines.get(subject)
        if line is None or line.takers.pop(ear, None) is None or line.takers:
            return
        del self._lines[subject]
        there = line.subscription
        if there is not None and not self._client.is_closed and not self._client.is_draining:
            await there.unsubscribe()
