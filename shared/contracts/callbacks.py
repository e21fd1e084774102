"""Callbacks: a run's answer, POSTed to whoever asked for that, and what became of it."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from shared.contracts.ids import RunId, Token
from shared.contracts.message import Message, Part, Run

MOST_URL_CHARS = 2_048

CallbackUrl = Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=MOST_URL_CHARS)]


class Callback(Part):
    """Where a run's answer is POSTed when it has ended."""

    url: CallbackUrl


class CallbackAttempt(Part):
    """One POST that did not deliver, or the one that did."""

    at: AwareDatetime
    took_s: NonNegativeFloat
    status: int | None = None
    """The receiver's HTTP status; None: there was none."""
    problem: str | None = None
    """Why it does not count; None: it was delivered."""


class DeliverCallback(Message):
    """POST a run's answer. Subject: `segue.callback.<tenant>.<run>`, and `segue.callbackwait.<tenant>.<run>` while the
    bus keeps it until its time.

    Written and read by the finisher; by the gateway too, when somebody wants it sent again. What was tried travels with
    it, so nobody remembers it.
    """

    run: Run
    callback: Callback
    number: PositiveInt = 1
    """Which delivery it is: 1 by itself, later ones because somebody asked."""
    begun_at: AwareDatetime
    tried: tuple[CallbackAttempt, ...] = ()
    deferred: NonNegativeInt = 0
    """How often it was put back without a try: the receiver was busy with others, or left alone."""
    hurried: bool = False
    """Somebody wants it now: it does not wait for the time that the bus keeps."""
    parent: RunId | None = None
    """The run that this one is a retry or a fork of; the receiver is told."""
    schedule: Token | None = None
    """The schedule that began it; the receiver is told."""

    @property
    def step(self) -> int:
        """How far it is: one that was put back is further than the one that it was made from."""
        return len(self.tried) + self.deferred


class CallbackSettled(Message):
    """A delivery is over. `event.<tenant>.<run>.callback.<n>`, by the finisher. It never changes."""

    run: Run
    number: PositiveInt
    url: str
    outcome: Literal["delivered", "given_up"]
    reason: str | None = None
    """Why it was given up, and what can be done."""
    message_id: str
    """The `webhook-id` that the receiver got, the same with every try."""
    attempts: tuple[CallbackAttempt, ...] = ()
    settled_at: AwareDatetime
