"""`GET /unknown-attempts`: attempts whose cost nobody knows, from the history."""

import asyncio
import base64
import binascii
from typing import Any

from fastapi import APIRouter
from pydantic import AwareDatetime, Field, NonNegativeInt
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.gateway import gateway_of
from services.gateway.http.answering import show
from services.gateway.http.errors import Refusal
from services.gateway.http.history import DOWN, ready
from services.gateway.http.identity import who
from services.gateway.http.models import Body
from services.gateway.http.queries import asks, queried
from shared.history.store import HistoryUnavailable
from shared.moments import time_of
from shared.workflows.validation import Problem

router = APIRouter(tags=["history"])


class UnknownQuery(Body):
    """`GET /unknown-attempts`"""

    limit: int = Field(default=50, ge=1, le=200)
    cursor: str | None = Field(default=None, max_length=400, description="`next` of the page before.")


class UnknownAttemptLine(Body):
    """An attempt whose cost nobody knows."""

    run_id: str
    call: str = Field(description="`<purpose>.<call>`.")
    attempt: NonNegativeInt
    role: str
    provider: str
    model: str
    outcome: str = Field(description="`unknown`: its executor died; else how it failed, `answered`: without a price.")
    reserved_usd: float = Field(description="The most that it can cost; 0 where the price is not known.")
    settled_at: AwareDatetime
    asked_after: bool = Field(description="Its provider is asked what it cost; false: that provider cannot be asked.")
    href: str


class UnknownAttemptsAnswer(Body):
    """Attempts whose cost nobody knows, the latest first."""

    attempts: list[UnknownAttemptLine]
    total: NonNegativeInt
    reserved_usd: float = Field(description="The most that all of them can cost.")
    next: str | None = Field(description="The cursor of the next page; null: this is the last.")


@router.get(
    "/unknown-attempts",
    summary="List attempts of unknown cost",
    response_model=UnknownAttemptsAnswer,
    responses=DOWN,
    openapi_extra=asks(UnknownQuery),
)
async def unknown_attempts(request: Request) -> Response:
    """List attempts whose cost nobody knows yet: their executor died, or a stream was cut. Page by page."""
    asked = queried(request, UnknownQuery)
    tenant = who(request).tenant
    before = _place(asked.cursor) if asked.cursor is not None else None
    projector = await ready(gateway_of(request))
    history = projector.history
    try:
        found = await asyncio.to_thread(lambda: history.unknown_attempts(tenant, before=before, limit=asked.limit + 1))
        total, reserved_usd = await asyncio.to_thread(history.unknown_total, tenant)
    except HistoryUnavailable as error:
        raise Refusal(503, f"{error}", headers={"Retry-After": "5"}) from error
    page = found[: asked.limit]
    more = len(found) > asked.limit
    return show(
        UnknownAttemptsAnswer(
            attempts=[_line(row) for row in page],
            total=total,
            reserved_usd=round(reserved_usd, 9),
            next=_cursor(page[-1]) if more else None,
        )
    )


def _line(row: Any) -> UnknownAttemptLine:
    call, _, number = row["call"].rpartition(".attempt.")
    return UnknownAttemptLine(
        run_id=row["run_id"],
        call=call,
        attempt=int(number),
        role=row["role"],
        provider=row["provider"],
        model=row["model"],
        outcome=row["code"] or "unknown",
        reserved_usd=round(row["reserved_usd"], 9),
        settled_at=time_of(row["at_us"]),
        asked_after=row["asked"],
        href=f"/runs/{row['run_id']}",
    )


def _cursor(row: Any) -> str:
    place = f"{row['at_us']}/{row['run_id']}/{row['call']}"
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def _place(cursor: str) -> tuple[int, str, str]:
    try:
        at_us, run_id, call = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().split("/")
        return int(at_us), run_id, call
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        problem = Problem(
            "?cursor", "bad_cursor", "this is no cursor; take `next` of the page before, or leave it away"
        )
        raise Refusal(422, (problem,)) from error
