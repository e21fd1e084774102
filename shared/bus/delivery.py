"""What a durable consumer hands to a handler, and what a handler answers."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from nats.js.api import ConsumerConfig

from shared.bus.errors import NotProvisioned

# $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<stored, ns>.<pending>
# $JS.ACK.<domain>.<account>.<stream>.<consumer>.… the same …[.<random>]
# https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-15.md
_SHORT_FORM = 9
_LONG_FORM = 11


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message of a stream, delivered to this process."""

    subject: str
    data: bytes
    headers: Mapping[str, str] | None
    source: str
    """Name of the `Source` that it came from."""
    stream: str
    stream_seq: int
    delivered: int
    """How often it was handed out, this time included: 1 is the first time."""
    pending: int
    """How many messages its consumer had not handed out yet when it handed out this one."""
    stored_ns: int
    """When the stream stored it: nanoseconds since the epoch, by the server's clock."""

    @property
    def stored_at(self) -> datetime:
        return datetime.fromtimestamp(self.stored_ns / 1e9, UTC)


@dataclass(frozen=True, slots=True)
class Done:
    """Dealt with: acked, gone from a work queue."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Deliver it again, to whoever is free, after so many seconds (0: at once)."""

    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Buried:
    """It can never be dealt with: stored as a dead letter with this reason, then gone from the queue."""

    reason: str


Verdict = Done | Retry | Buried
Handler = Callable[[Delivery], Awaitable[Verdict]]
"""Must bear to see the same message again, also while another process works on it."""
Bury = Callable[[Delivery, str], Awaitable[None]]
"""Stores the dead letter. The message leaves its queue only after this returned; raising keeps it there."""


class Poison(Exception):
    """Raised by a handler, however deep: the same as answering `Buried(reason)`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Source:
    """One durable consumer that feeds a pool, and its part of the pool's places when all have a backlog."""

    stream: str
    consumer: ConsumerConfig
    """`durable_name` is set, `ack_policy` is explicit, `max_deliver` −1; `ack_wait` is well above the heartbeat."""
    share: float = 1.0
    """Above 0; only its ratio to the other sources' shares counts."""
    name: str = "medium"

    @property
    def durable(self) -> str:
        name = self.consumer.durable_name
        if not name:
            raise ValueError(f"source {self.name!r} of stream {self.stream}: its consumer has no durable_name")
        return name


Recreate = Callable[[Source], Awaitable[None]]
"""Declares the source's consumer again after it vanished."""


class ConsumerMissing(NotProvisioned):
    """A durable consumer that a pool feeds on is not on the server."""

    def __init__(self, stream: str, durable: str) -> None:
        super().__init__(f"consumer {durable} of stream {stream}")
        self.stream, self.durable = stream, durable


class Observer(Protocol):
    """Told what happens in a pool; called on the hot path, so it only counts."""

    def taken(self, delivery: Delivery) -> None: ...

    def redelivered(self, delivery: Delivery) -> None:
        """Besides `taken`: this is not the first time that the message is handed out."""

    def settled(self, delivery: Delivery, verdict: Verdict, took_s: float) -> None: ...

    def stalled(self, source: str) -> None:
        """The server fell silent on a request; it was asked again."""

    def recreated(self, source: str) -> None:
        """The consumer had vanished and was declared again."""


class Unobserved:
    """An `Observer` that does nothing."""

    def taken(self, delivery: Delivery) -> None:
        pass

    def redelivered(self, delivery: Delivery) -> None:
        pass

    def settled(self, delivery: Delivery, verdict: Verdict, took_s: float) -> None:
        pass

    def stalled(self, source: str) -> None:
        pass

    def recreated(self, source: str) -> None:
        pass


def parse(subject: str, reply: str, data: bytes, headers: Mapping[str, str] | None, source: str) -> Delivery | None:
    """Read what JetStream says in the reply subject (both forms, ADR-15). None when it is not JetStream's."""
    tokens = reply.split(".")
    if len(tokens) == _SHORT_FORM:
        _, _, stream, _, delivered, seq, _, stored, pending = tokens
    elif len(tokens) >= _LONG_FORM:
        stream, _, delivered, seq, _, stored, pending = tokens[4:11]
    else:
        return None
    if not reply.startswith("$JS.ACK."):
        return None
    return Delivery(
        subject, data, headers, source, stream, int(seq), int(delivered), int(pending), int(stored)
    )  # fmt: skip
