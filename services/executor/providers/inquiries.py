"""What became of an attempt whose answer nobody has: OpenRouter's `GET /generation`, the simulator's look-up by tag.

OpenRouter knows a request by the id that it gave it, which is known where an answer had begun. The simulator is told
which attempt each request is (`tags`) and can be asked by that, so one that never arrived is told from one that did.
Sources: OpenRouter "Get a generation"; docs/simulator.md.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol
from urllib.parse import urlencode, urlsplit

import httpx

from services.executor.providers import Failed
from services.executor.providers.amounts import MOST_TOKENS, MOST_USD, amount, shown, word
from services.executor.providers.objects import object_in
from services.executor.providers.tags import bearing
from services.executor.providers.wire import Reply, Wire
from shared.config.providers import OPENROUTER, Route
from shared.contracts.message import Usage

SIMULATED_PATH: Final = "/api/v1/generations"


@dataclass(frozen=True, slots=True)
class Inquiry:
    """Which attempt is asked after."""

    run_id: str
    call: str
    """`<purpose>.<call>`, as requests are tagged."""
    attempt: int
    generation_id: str | None = None
    started_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """It arrived, and is over."""

    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class NeverArrived:
    """The provider has never had it, up to now."""


@dataclass(frozen=True, slots=True)
class NotYet:
    """Nothing can be said yet: it still runs, its figures are not there, or the provider does not answer."""

    why: str


class Reconciler(Protocol):
    """Whoever can be asked what became of an attempt."""

    async def reconcile(self, inquiry: Inquiry, route: Route, *, budget_s: float) -> Found | NeverArrived | NotYet:
        """Ask once, within `budget_s` seconds; never raises for what a provider does. Safe to repeat."""
        ...


@dataclass(slots=True)
class Generations:
    """OpenRouter's accounts of what it did, and the simulator's."""

    wire: Wire = field(default_factory=Wire)

    def for_route(self, route: Route, generation_id: str | None) -> "Generations | None":
        """Return who can be asked by way of a route; None: nobody."""
        askable = route.simulated or (route.protocol == OPENROUTER and generation_id is not None)
        return self if askable else None

    async def reconcile(self, inquiry: Inquiry, route: Route, *, budget_s: float) -> Found | NeverArrived | NotYet:
        """Ask about one attempt."""
        headers = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "segue", **bearing(route)}
        try:
            async with asyncio.timeout(budget_s):
                reply = await self.wire.exchange("GET", _url(inquiry, route), headers)
        except TimeoutError:
            return NotYet(f"no answer within {budget_s:.0f} s")
        if isinstance(reply, Failed):
            return NotYet(reply.message)
        return read_tagged(reply, inquiry.started_at) if route.simulated else read_generation(reply)

    async def close(self) -> None:
        await self.wire.close()


def _url(inquiry: Inquiry, route: Route) -> httpx.URL:
    if route.simulated:
        parts = urlsplit(route.base_url)
        query = urlencode({"run": inquiry.run_id, "call": inquiry.call, "attempt": inquiry.attempt})
        return httpx.URL(f"{parts.scheme}://{parts.netloc}{SIMULATED_PATH}?{query}")
    query = urlencode({"id": inquiry.generation_id or ""})
    return httpx.URL(f"{route.base_url.rstrip('/')}/generation?{query}")


def read_generation(reply: Reply) -> Found | NotYet:
    """Return what OpenRouter says of one request: its figures come a while after its end, until then it is a 404."""
    data = (object_in(reply.data) or {}).get("data")
    if reply.status != 200 or not isinstance(data, dict):
        return NotYet(f"the provider answered {reply.status}: {shown(reply.data)}")
    return _found([data])


def read_tagged(reply: Reply, started_at: datetime | None) -> Found | NeverArrived | NotYet:
    """Return what the simulator says of an attempt's requests: one can be several, each without one more parameter.

    One that was started again since, or has let go of what is old, cannot say that something never came.
    """
    body = object_in(reply.data) or {}
    data = body.get("data")
    if reply.status != 200 or not isinstance(data, list):
        return NotYet(f"the simulator answered {reply.status}: {shown(reply.data)}")
    requests = [one for one in data if isinstance(one, dict)]
    if not requests:
        since_s = amount(body.get("complete_since"), 1e12)
        if since_s is None or started_at is None or started_at.timestamp() < since_s:
            return NotYet("the simulator does not know it, and its account begins later")
        return NeverArrived()
    if any(one.get("running") for one in requests):
        return NotYet("it still runs")
    return _found(requests)


def _found(requests: list[dict[str, Any]]) -> Found:
    costs = [amount(one.get("total_cost"), MOST_USD) for one in requests]
    usage = Usage()
    for one in requests:
        usage = usage.plus(
            Usage(
                prompt_tokens=_tokens(one, "prompt"),
                completion_tokens=_tokens(one, "completion"),
                cached_tokens=_tokens(one, "cached"),
                reasoning_tokens=_tokens(one, "reasoning"),
            )
        )
    known = [cost for cost in costs if cost is not None]
    return Found(usage, sum(known) if len(known) == len(costs) else None, word(requests[-1].get("model")))


def _tokens(one: dict[str, Any], kind: str) -> int:
    return int(amount(one.get(f"native_tokens_{kind}"), MOST_TOKENS) or 0)
