"""Adapters to whoever serves models. Each turns a call into one request and its answer, or failure, into a value."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from services.executor.taxonomy import JOB_LOST, MODEL_GONE, Verdict
from shared.config.providers import Route
from shared.contracts.commands import ExecuteCall
from shared.contracts.message import ToolCall, Usage

PricedBy = Literal["provider", "override", "table"]

OnDelta = Callable[[str], Awaitable[None]]
"""Gets each piece of text as it comes, in order."""


@dataclass(frozen=True, slots=True)
class Media:
    """An image or a video, as the provider made it."""

    data: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The model's answer, whole."""

    text: str
    finish_reason: str | None = None
    model: str | None = None
    """As the provider names the one that answered."""
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = None
    """As the provider says, else by the price book; None: nobody knows."""
    priced_by: PricedBy | None = None
    media: tuple[Media, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    """Functions of the caller's that the model wants called."""
    embeddings: tuple[str, ...] = ()
    """Vectors, as `CallSettled` has them."""
    generation_id: str | None = None
    """What the provider calls it, as far as it said."""


@dataclass(frozen=True, slots=True)
class Failed:
    """No answer, and why."""

    verdict: Verdict
    message: str
    """For people: what the provider said, without secrets."""
    status: int | None = None
    retry_after_s: float | None = None
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = 0.0
    """None: it may have been charged for, and nobody said what."""
    text_sent: bool = False
    """Some of the answer had been streamed before."""
    generation_id: str | None = None
    """What the provider calls the answer that had begun."""


@dataclass(slots=True)
class Trace:
    """What is learnt of a request while it goes on, for whoever has to ask after it."""

    generation_id: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """One attempt, as a provider needs to know it."""

    call: ExecuteCall
    number: int
    """Of the attempt, from 1."""
    halvings: int = 0
    """How often `max_tokens` is halved, because more was refused."""
    trims: int = 0
    """How often the session before the message is halved, because the whole was too long."""
    trace: Trace = field(default_factory=Trace)
    again: Callable[[], Awaitable[None]] | None = None
    """To be waited for before another request of the same attempt: its limit counts that one too."""

    async def once_more(self) -> None:
        """Wait until another request of this attempt may go out."""
        if self.again is not None:
            await self.again()


def in_trouble(failed: Failed, after_s: float) -> "Pending | Failed":
    """Return what follows when a job could not be asked after: mostly, to ask again. It is never given again for that.

    A provider that does not know the job has lost it, which says nothing of the model.
    """
    if failed.verdict == MODEL_GONE:
        return replace(failed, verdict=JOB_LOST, cost_usd=None)
    if failed.verdict.type in ("transient", "resource"):
        return Pending(max(after_s, failed.retry_after_s or 0.0), failed)
    return replace(failed, cost_usd=None)


@dataclass(frozen=True, slots=True)
class Submitted:
    """A provider has taken a long job on."""

    operation: str
    """Its own name for it."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A job is not done yet."""

    after_s: float
    """When to ask again, in seconds."""
    trouble: "Failed | None" = None
    """Why it could not be asked after this time; the job itself goes on."""


class Provider(Protocol):
    """Answers a call at once: with a text, or with images."""

    async def ask(self, asked: Asked, route: Route, *, budget_s: float, on_delta: OnDelta | None) -> Answered | Failed:
        """Ask once, within `budget_s` seconds; never raises for what a provider does.

        With `on_delta` the answer is streamed. Cancelling aborts the request.
        """
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...


class JobProvider(Protocol):
    """Takes on jobs that take minutes: videos."""

    async def submit(self, asked: Asked, route: Route, *, budget_s: float) -> Submitted | Failed:
        """Give the job, once; never raises for what a provider does."""
        ...

    async def poll(self, asked: Asked, route: Route, operation: str, *, budget_s: float) -> Pending | Answered | Failed:
        """Ask how far a job is, and fetch what it made once it is done. Safe to repeat."""
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...
