"""What an orchestrator and a scraper ask for: `/healthz`, `/readyz`, `/metrics`."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.gateway import gateway_of
from services.gateway.http.errors import JSON
from shared import version

router = APIRouter(include_in_schema=False)


@router.get("/healthz")
async def healthz() -> Response:
    """The process runs."""
    return Response(to_json({"status": "alive", "service": "gateway", "version": version()}), 200, None, JSON)


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """The process can do its work."""
    problem = await gateway_of(request).health.problem()
    body = {"status": "ready", "service": "gateway"}
    if problem is not None:
        body |= {"status": "not ready", "problem": problem}
    return Response(to_json(body), 200 if problem is None else 503, None, JSON)


@router.get("/metrics")
async def metrics() -> Response:
    """Prometheus' text format."""
    return Response(generate_latest(), 200, {"Content-Type": CONTENT_TYPE_LATEST})
