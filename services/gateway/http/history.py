"""`GET /runs` and `GET /usage`: lists, searches and sums, from the history."""

import asyncio
import base64
import binascii
from datetime import UTC, datetime
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import AwareDatetime, Field, NonNegativeInt
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.gateway import Gateway, gateway_of
from services.gateway.http.answering import show
from services.gateway.http.answers import difference
from services.gateway.http.errors import Refusal
from services.gateway.http.identity import who
from services.gateway.http.models import Body, Failure
from services.gateway.http.queries import asks, queried
from services.gateway.http.run_models import ListedState
from shared.contracts.access import Scope
from shared.history.projector import Projector
from shared.history.queries import Dimension, Wanted
from shared.history.store import HistoryUnavailable
from shared.moments import time_of, us_of
from shared.workflows.validation import Problem

router = APIRouter(tags=["history"])

DOWN: dict[int | str, dict[str, Any]] = {422: {"model": Failure}, 503: {"model": Failure}}


class RunsQuery(Body):
    """`GET /runs`"""

    state: tuple[ListedState, ...] = Field(
        default=(), description="Runs in one of these states. Those that are queued are not listed: see one by its id."
    )
    template: str | None = Field(default=None, max_length=128, description="Begun from this template.")
    schedule: str | None = Field(default=None, max_length=128, description="Begun by this schedule.")
    session: str | None = Field(default=None, max_length=64, description="Of this conversation.")
    category: Literal["L", "M", "H"] | None = None
    kind: Literal["chat", "workflow"] | None = None
    parent: str | None = Field(default=None, max_length=64, description="Retries and forks of this run.")
    model: str | None = Field(default=None, max_length=256, description="That asked this model at least once.")
    q: str | None = Field(default=None, max_length=200, description="With this in the message's first 200 characters.")
    since: AwareDatetime | None = Field(default=None, description="Born at this time or later (RFC 3339).")
    until: AwareDatetime | None = Field(default=None, description="Born before this time.")
    limit: int = Field(default=50, ge=1, le=200)
    cursor: str | None = Field(default=None, max_length=200, description="`next` of the page before.")


class OpenQuestion(Body):
    """What a person is asked."""

    task: str
    message: str
    until: AwareDatetime


class RunLine(Body):
    """A run in a list."""

    run_id: str
    state: ListedState
    kind: Literal["chat", "workflow"] | None
    title: str | None = Field(description="The message's first 200 characters, or the template's name.")
    category: str | None
    template: str | None
    schedule: str | None
    session_id: str | None
    priority: str
    parent: str | None
    lineage: str | None
    plan: str | None
    role: str | None
    model: str | None
    born_at: AwareDatetime
    deadline_at: AwareDatetime
    ended_at: AwareDatetime | None
    took_s: float | None
    error: str | None = Field(description="The code of what went wrong.")
    questions: list[OpenQuestion] = Field(description="What people are asked and have not answered.")
    calls: NonNegativeInt
    tokens: NonNegativeInt
    cost_usd: float
    cost_known: bool
    baseline_usd: float | None
    saving_usd: float | None = Field(description="The baseline less the cost; negative: it cost more.")
    saved_usd: float = Field(description="What reused answers had cost in the runs that they come from.")
    simulated: bool
    href: str


class RunsAnswer(Body):
    """Runs, the latest born first."""

    runs: list[RunLine]
    next: str | None = Field(description="The cursor of the next page; null: this is the last.")


class UsageQuery(Body):
    """`GET /usage`"""

    by: tuple[Dimension, ...] = Field(
        default=("day",),
        description="What to sum up by; several make finer rows. `tenant`: of all, for operators (scope admin).",
    )
    since: AwareDatetime | None = Field(default=None, description="Calls settled at this time or later (RFC 3339).")
    until: AwareDatetime | None = Field(default=None, description="Calls settled before this time.")


class UsageRow(Body):
    """What was used, by the dimensions that were asked for."""

    by: dict[str, str | None]
    runs: NonNegativeInt
    calls: NonNegativeInt
    failed: NonNegativeInt
    attempts: NonNegativeInt
    prompt_tokens: NonNegativeInt
    completion_tokens: NonNegativeInt
    cached_tokens: NonNegativeInt
    reasoning_tokens: NonNegativeInt
    cost_usd: float
    cost_known: bool
    unknown_costs: NonNegativeInt = Field(description="Attempts whose cost nobody knows: they are not in the sum.")
    saved_usd: float
    mean_s: float | None = Field(description="Seconds that an answer took, on average; null: nobody answered.")
    simulated: NonNegativeInt = Field(description="Calls that were only simulated.")


class UsageAnswer(Body):
    """Sums of what calls used."""

    rows: list[UsageRow]
    total: UsageRow
    since: AwareDatetime | None
    until: AwareDatetime | None
    as_of: AwareDatetime


async def ready(gateway: Gateway) -> Projector:
    """Return the history, up to date as far as a moment allows."""
    if gateway.projector is None:
        raise Refusal(503, "this gateway keeps no history (SEGUE_HISTORY_URL is off); single runs can be looked at")
    try:
        await gateway.projector.fresh()
    except HistoryUnavailable as error:
        raise Refusal(
            503, f"{error}; single runs can be looked at all the same", headers={"Retry-After": "5"}
        ) from error
    return gateway.projector


@router.get("/runs", summary="List runs", response_model=RunsAnswer, responses=DOWN, openapi_extra=asks(RunsQuery))
async def runs(request: Request) -> Response:
    """List runs by state, template, session, time, words and more, the latest born first, page by page."""
    asked = queried(request, RunsQuery)
    tenant = who(request).tenant
    projector = await ready(gateway_of(request))
    wanted = Wanted(
        tenant=tenant,
        states=asked.state,
        template=asked.template,
        schedule=asked.schedule,
        session_id=asked.session,
        category=asked.category,
        kind=asked.kind,
        parent=asked.parent,
        model=asked.model,
        words=asked.q,
        from_us=us_of(asked.since) if asked.since is not None else None,
        to_us=us_of(asked.until) if asked.until is not None else None,
        before=_place(asked.cursor) if asked.cursor is not None else None,
        limit=asked.limit + 1,
    )
    try:
        found = await asyncio.to_thread(projector.history.list, wanted)
        page = found[: asked.limit]
        waiting = [row["run_id"] for row in page if row["asked"]]
        open_questions = await asyncio.to_thread(projector.history.questions, tenant, waiting) if waiting else []
    except HistoryUnavailable as error:
        raise Refusal(503, f"{error}", headers={"Retry-After": "5"}) from error
    by_run: dict[str, list[OpenQuestion]] = {}
    for one in open_questions:
        question = OpenQuestion(
            task=one["output"] or one["task"], message=one["message"] or "", until=time_of(one["until_us"])
        )
        by_run.setdefault(one["run_id"], []).append(question)
    more = len(found) > asked.limit
    return show(
        RunsAnswer(
            runs=[_line(row, by_run.get(row["run_id"], [])) for row in page],
            next=_cursor(page[-1]["born_us"], page[-1]["run_id"]) if more else None,
        )
    )


@router.get(
    "/usage",
    summary="Sum up usage",
    response_model=UsageAnswer,
    responses={**DOWN, 403: {"model": Failure}},
    openapi_extra=asks(UsageQuery),
)
async def usage(request: Request) -> Response:
    """Sum up calls, tokens and cost by day, model, role, template and more."""
    asked = queried(request, UsageQuery)
    principal = who(request)
    tenant: str | None = principal.tenant
    if "tenant" in asked.by:
        if Scope.ADMIN not in principal.scopes:
            raise Refusal(403, "usage by tenant is for operators: it needs the scope 'admin'")
        tenant = None
    projector = await ready(gateway_of(request))
    times = {
        "from_us": us_of(asked.since) if asked.since is not None else None,
        "to_us": us_of(asked.until) if asked.until is not None else None,
    }
    by = tuple(dict.fromkeys(asked.by))
    try:
        rows = await asyncio.to_thread(lambda: projector.history.usage(tenant, by, **times))
        total = await asyncio.to_thread(lambda: projector.history.usage(tenant, (), **times))
    except HistoryUnavailable as error:
        raise Refusal(503, f"{error}", headers={"Retry-After": "5"}) from error
    return show(
        UsageAnswer(
            rows=[_used(row, by) for row in rows],
            total=_used(total[0], ()),
            since=asked.since,
            until=asked.until,
            as_of=datetime.now(UTC),
        )
    )


def _line(row: Any, questions: list[OpenQuestion]) -> RunLine:
    ended_us = row["ended_us"]
    return RunLine(
        run_id=row["run_id"],
        state=row["state"],
        kind=row["kind"],
        title=row["title"],
        category=row["category"],
        template=row["template"],
        schedule=row["schedule"],
        session_id=row["session_id"],
        priority=row["priority"],
        parent=row["parent"],
        lineage=row["lineage"],
        plan=row["source"],
        role=row["role"],
        model=row["model"],
        born_at=time_of(row["born_us"]),
        deadline_at=time_of(row["deadline_us"]),
        ended_at=time_of(ended_us),
        took_s=round(max(0, ended_us - row["born_us"]) / 1e6, 6) if ended_us is not None else None,
        error=row["code"],
        questions=questions,
        calls=row["calls"],
        tokens=row["tokens"],
        cost_usd=round(row["cost_usd"], 9),
        cost_known=not row["unknown_costs"],
        baseline_usd=row["baseline_usd"],
        saving_usd=difference(row["baseline_usd"], row["cost_usd"], known=not row["unknown_costs"]),
        saved_usd=round(row["saved_usd"], 9),
        simulated=bool(row["simulated"]),
        href=f"/runs/{row['run_id']}",
    )


def _used(row: Any, by: tuple[str, ...]) -> UsageRow:
    return UsageRow(
        by={name: row[name] for name in by},
        runs=row["runs"],
        calls=row["calls"],
        failed=row["failed"],
        attempts=row["attempts"],
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
        cached_tokens=row["cached_tokens"],
        reasoning_tokens=row["reasoning_tokens"],
        cost_usd=round(row["cost_usd"], 9),
        cost_known=not row["unknown_costs"],
        unknown_costs=row["unknown_costs"],
        saved_usd=round(row["saved_usd"], 9),
        mean_s=round(row["mean_s"], 6) if row["mean_s"] is not None else None,
        simulated=row["simulated"],
    )


def _cursor(born_us: int, run_id: str) -> str:
    return base64.urlsafe_b64encode(f"{born_us}.{run_id}".encode()).decode().rstrip("=")


def _place(cursor: str) -> tuple[int, str]:
    try:
        born, _, run_id = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().partition(".")
        return int(born), run_id
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        problem = Problem(
            "?cursor", "bad_cursor", "this is no cursor; take `next` of the page before, or leave it away"
        )
        raise Refusal(422, (problem,)) from error
