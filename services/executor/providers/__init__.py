"""Adapters to whoever serves models. Each turns a call into one request and its answer, or failure, into a value."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from services.executor.taxonomy import Verdict
from shared.config.providers import Route
from shared.contracts.commands import ExecuteCall
from shared.contracts.message import Usage

PricedBy = Literal["provider", "override", "table"]

OnDelta = Callable[[str], Awaitable[None]]
"""Gets each piece of text as it comes, in order."""


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


class ChatProvider(Protocol):
    """Answers conversations."""

    async def chat(self, asked: Asked, route: Route, *, budget_s: float, on_delta: OnDelta | None) -> Answered | Failed:
        """Ask once, within `budget_s` seconds; never raises for what a provider does.

        With `on_delta` the answer is streamed. Cancelling aborts the request.
        """
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...
