"""What is offered and how it goes: health, models, addons, statistics."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.gateway import Gateway, gateway_of
from services.gateway.http.answering import show
from services.gateway.http.errors import JSON
from services.gateway.http.identity import who
from services.gateway.http.model_bodies import ModelsAnswer, listed_model
from services.gateway.http.models import (
    AddonsAnswer,
    HealthAnswer,
    StatsAnswer,
)
from services.gateway.http.openai import offer
from shared.bus.errors import NotProvisioned, Unavailable
from shared.topology import CALLS, REQUESTS, SESSIONS, WORKFLOWS

router = APIRouter(tags=["catalogue"])


@router.get("/", summary="Health", response_model=HealthAnswer, include_in_schema=False)
@router.get("/health", summary="Health", response_model=HealthAnswer, responses={503: {"model": HealthAnswer}})
async def health(request: Request) -> Response:
    """Say whether requests can be taken: connected to the bus, and the log takes a write."""
    gateway = gateway_of(request)
    problem = await gateway.health.problem()
    body = HealthAnswer(
        status="healthy" if problem is None else "unhealthy",
        timestamp=datetime.now(UTC),
        version=gateway.listings.version,
        models_available=gateway.listings.models_available,
        name=gateway.listings.name,
        problem=problem,
    )
    return Response(body.to_json(), 200 if problem is None else 503, None, JSON)


@router.get("/models", summary="Models", response_model=ModelsAnswer)
async def models(request: Request) -> Response:
    """List the roles that the caller may ask: the models that play them, variants, and who stands in."""
    gateway = gateway_of(request)
    found = [listed_model(offered, gateway.live) for offered in offer.allowed(gateway.listings, who(request))]
    return show(ModelsAnswer(models=found, count=len(found)))


@router.get("/addons", summary="Addons", response_model=AddonsAnswer)
async def addons(request: Request) -> Response:
    """List the addons that a workflow's task can name."""
    found = list(gateway_of(request).listings.addons)
    return show(AddonsAnswer(addons=found, count=len(found)))


@router.get("/stats", summary="Statistics", response_model=StatsAnswer)
async def stats(request: Request) -> Response:
    """Count what is kept and what waits. The streams keep these counts themselves: nothing is scanned."""
    gateway = gateway_of(request)
    sessions, requests, workflows, calls = await asyncio.gather(
        *(_state(gateway, stream) for stream in (f"KV_{SESSIONS}", REQUESTS, WORKFLOWS, CALLS))
    )
    return show(
        StatsAnswer(
            active_sessions=sessions.get("num_subjects", 0),
            total_messages=requests["last_seq"],
            uptime_seconds=round(gateway.uptime_s(), 3),
            timestamp=datetime.now(UTC),
            waiting_requests=len(gateway.waiting),
            queued_requests=requests["messages"],
            queued_workflows=workflows["messages"],
            queued_calls=calls["messages"],
            models_available=gateway.listings.models_available,
            version=gateway.listings.version,
        )
    )


async def _state(gateway: Gateway, stream: str) -> dict[str, Any]:
    try:
        msg = await gateway.bus.jetstream.request(f"$JS.API.STREAM.INFO.{stream}")
    except TimeoutError as error:
        raise Unavailable(f"the state of stream {stream}", 2.0) from error
    info = json.loads(msg.data or b"{}")
    if "state" not in info:
        raise NotProvisioned(f"stream {stream!r}")
    state: dict[str, Any] = info["state"]
    return state
