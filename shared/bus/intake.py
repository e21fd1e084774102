"""One consumer's side of the wire: its inbox, the one request that may be open, and what the server says about it.

A pull request is a publish to `$JS.API.CONSUMER.MSG.NEXT.<stream>.<consumer>` with a reply inbox (ADR-13). Messages
come to that inbox under their own subjects; what the server says about a request comes under the request's reply
subject, so that one carries the request's number.

Who gives up on a request changes the inbox, and listens to the old one until that request has expired. Unsubscribing at
once is not enough: in a cluster the consumer's leader goes on sending until it hears of it, and what it sent waits for
`ack_wait` (measured: once in 400 messages when a worker stopped under 1000 messages/s).
"""

import asyncio
import contextlib
import functools
from collections.abc import Callable, Mapping
from enum import Enum, auto

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import Header

from shared.bus.delivery import Source
from shared.bus.jetstream import alone
from shared.bus.reader import Reader
from shared.bus.shares import Ask

GRACE_S = 0.5
"""How much later than asked for the end of a request may come; after that it is lost."""
_NS = 1_000_000_000
_LISTEN_ON_S = 1.0
"""How much longer an inbox is listened to than its last request can be open."""
_LEAVE_WITHIN_S = 2.0
_LOOK_S = 0.01


class Answer(Enum):
    """What a status message means for the request that it is about."""

    ALIVE = auto()
    EMPTY = auto()
    """It ended, its unused places come back, and there was nothing more to give."""
    GONE = auto()
    """Nobody serves this consumer: deleted, or without a leader for the moment."""
    MOVED = auto()
    """Another server leads the consumer from now on; what the old one knew of requests is void."""
    REFUSED = auto()
    """It broke a limit of the consumer or the account: a matter of configuration."""


def read_status(code: str, description: str) -> Answer:
    """Return what a status of nats-server 2.10-2.15 means (checked against 2.15.1, one server and three)."""
    match code:
        case "100":
            return Answer.ALIVE
        case "404" | "408":  # No Messages, Request Timeout, Requests Pending
            return Answer.EMPTY
        case "503":  # no responders
            return Answer.GONE
        case "409" if description.startswith("Consumer Deleted"):
            return Answer.GONE
        case "409" if description.startswith(("Leadership Change", "Server Shutdown")):
            return Answer.MOVED
        case "409" if description.startswith("Batch Completed"):
            return Answer.EMPTY
    return Answer.REFUSED


class Intake:
    """The inbox and the open request of one source. `on_message(msg, current)`: current is False for a left inbox."""

    def __init__(
        self,
        client: Client,
        source: Source,
        index: int,
        *,
        on_message: Callable[["Intake", Msg, bool], None],
        on_status: Callable[["Intake", str, str], None],
    ) -> None:
        self.source = source
        self.index = index
        self._client = client
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{source.stream}.{source.durable}"
        self._on_message, self._on_status = on_message, on_status
        self._sub: Subscription | None = None
        self._inbox = ""
        self._number = 0
        self._lost_after_s = float("-inf")
        self._unheard_s: float | None = None
        self._bodies: dict[tuple[int, float], bytes] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._clock = asyncio.get_running_loop().time

    async def enter(self) -> None:
        """Open an inbox; leaves the one before when the last request made from it has long expired."""
        inbox = self._client.new_inbox()
        reader = Reader(functools.partial(self._received, inbox))
        left, self._inbox = self._sub, inbox
        self._sub = await self._client.subscribe(f"{inbox}.*", future=reader)
        if left is not None:
            task = asyncio.create_task(self._leave_later(left, self._lost_after_s + _LISTEN_ON_S - self._clock()))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def leave(self, is_open: Callable[[], object]) -> None:
        """Close the inbox: returns when nothing more can come to it and what had come was handed on."""
        if self._sub is None:
            return
        # In a cluster only the end of the request says that nothing is on its way. One server alone is left at once: it
        # loses a message that it is just sending, until ack_wait, in one of twenty stops under 1000 messages/s
        # (measured), and to wait for the request's end would make every idle stop two seconds longer.
        if not alone(self._client):
            while is_open() and not self.lost(self._clock()):  # noqa: ASYNC110 - it ends by a message or by the clock
                await asyncio.sleep(_LOOK_S)
        for leaving in self._leaving:
            leaving.cancel()
        left, self._sub = self._sub, None
        if not self._client.is_connected:
            await _unsubscribe(left)
            return
        # Left alone rather than cancelled when it takes long: nats-py 2.16 stops reading, though still connected, when
        # the answer to a ping comes that nobody waits for any more.
        draining = asyncio.create_task(_drain(left))
        self._leaving.add(draining)
        await asyncio.wait({draining}, timeout=_LEAVE_WITHIN_S)

    async def ask(self, ask: Ask) -> None:
        """Send a request. Raises `nats.errors.Error` when it cannot be sent or kept for sending."""
        self._number += 1
        now_s = self._clock()
        self._lost_after_s = now_s + ask.expires_s + GRACE_S
        if self._unheard_s is None:
            self._unheard_s = now_s
        body = self._bodies.get((ask.batch, ask.expires_s))
        if body is None:
            body = self._bodies[ask.batch, ask.expires_s] = _body(ask)
        await self._client.publish(self._next, body, reply=f"{self._inbox}.{self._number}")

    def lost(self, now_s: float) -> bool:
        """Whether the open request should have been heard of by now."""
        return now_s > self._lost_after_s

    def silent_s(self) -> float:
        """How long the server has said nothing since it was asked something; 0 when it was asked nothing."""
        return 0.0 if self._unheard_s is None else self._clock() - self._unheard_s

    def _received(self, inbox: str, msg: Msg) -> None:
        self._unheard_s = None
        current = inbox == self._inbox
        if current:  # a batch of large messages may take its time, as long as they keep coming
            self._lost_after_s = max(self._lost_after_s, self._clock() + GRACE_S)
        if msg.reply:
            self._on_message(self, msg, current)
        elif current and msg.subject.endswith(f".{self._number}"):
            code, description = _status(msg.headers or {})
            self._on_status(self, code, description)

    async def _leave_later(self, sub: Subscription, after_s: float) -> None:
        await asyncio.sleep(max(0.0, after_s))
        await _unsubscribe(sub)


async def _unsubscribe(sub: Subscription) -> None:
    with contextlib.suppress(nats.errors.Error):  # the connection is closed, and all subscriptions with it
        await sub.unsubscribe()


async def _drain(sub: Subscription) -> None:
    # An error: the connection broke meanwhile, and the server forgot the inbox by itself.
    with contextlib.suppress(nats.errors.Error):
        await sub.drain()  # type: ignore[no-untyped-call]  # nats-py annotates only some of it


def _body(ask: Ask) -> bytes:
    if ask.expires_s == 0:
        return b'{"batch":%d,"no_wait":true}' % ask.batch
    return b'{"batch":%d,"expires":%d}' % (ask.batch, int(ask.expires_s * _NS))


def _status(headers: Mapping[str, str]) -> tuple[str, str]:
    # nats-py keeps the description under an enum member, whose hash is not that of its text
    return headers.get("Status", ""), headers.get(Header.DESCRIPTION, "").strip()
