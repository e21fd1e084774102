"""What the history is asked, as statements. Values: nothing here talks to a database."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Select, and_, exists, func, literal, or_, select, tuple_

from shared.history import schema
from shared.history.projection import UNKNOWN

Dimension = Literal[
    "day",
    "model",
    "provider",
    "role",
    "variant",
    "purpose",
    "template",
    "schedule",
    "category",
    "kind",
    "session",
    "tenant",
]
"""What usage can be summed up by."""
SETTLED: Final = ("answered", "failed")
"""Outcomes of calls, among those of their attempts and of what came late."""
LATEST: Final = 2_000
"""Calls that tell what calls take."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which runs are looked for. Times in µs since 1970; `before` is the last run of the page before: (born, id)."""

    tenant: str
    states: tuple[str, ...] = ()
    template: str | None = None
    schedule: str | None = None
    session_id: str | None = None
    category: str | None = None
    kind: str | None = None
    parent: str | None = None
    model: str | None = None
    """Asked in any of the run's calls."""
    words: str | None = None
    """In the beginning of the message, or the template's name; case does not matter."""
    from_us: int | None = None
    to_us: int | None = None
    before: tuple[int, str] | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Typical:
    """What calls of one role took."""

    count: int
    seconds: float
    """Half of them took less."""
    answer_tokens: float
    """Half of them said less."""
    cost_usd: float
    """Of all of them."""
    tokens: int
    """Of all of them."""


def runs(wanted: Wanted) -> Select[Any]:
    """Return the latest born first."""
    table = schema.runs
    return (
        select(table)
        .where(*_conditions(wanted))
        .order_by(table.c.born_us.desc(), table.c.run_id.desc())
        .limit(wanted.limit)
    )


def questions(tenant: str, run_ids: Sequence[str]) -> Select[Any]:
    """Return what people are asked in some runs and have not answered."""
    table = schema.questions
    return select(table).where(
        table.c.tenant == tenant,
        table.c.run_id.in_(run_ids),
        table.c.approved.is_(None),
        table.c.until_us.is_not(None),
    )


def usage(tenant: str | None, by: Sequence[str], *, from_us: int | None, to_us: int | None) -> Select[Any]:
    """Return sums of what calls used, by dimensions, the dearest first (by day: oldest first). None: of all tenants."""
    calls, runs = schema.calls, schema.runs
    columns = [_dimension(name).label(name) for name in by]
    query = select(
        *columns,
        func.count().filter(calls.c.outcome.in_(SETTLED)).label("calls"),
        func.count().filter(calls.c.outcome == "failed").label("failed"),
        func.count(func.distinct(calls.c.run_id)).label("runs"),
        *(
            func.coalesce(func.sum(calls.c[name]), 0).label(name)
            for name in (
                "attempts",
                "prompt_tokens",
                "completion_tokens",
                "cached_tokens",
                "reasoning_tokens",
                "cost_usd",
                "saved_usd",
            )
        ),
        func.avg(calls.c.took_s).filter(calls.c.outcome == "answered", calls.c.attempts > 0).label("mean_s"),
        func.count().filter(~calls.c.cost_known).label("unknown_costs"),
        func.count().filter(calls.c.simulated).label("simulated"),
    ).select_from(calls.outerjoin(runs, and_(runs.c.tenant == calls.c.tenant, runs.c.run_id == calls.c.run_id)))
    if tenant is not None:
        query = query.where(calls.c.tenant == tenant)
    if from_us is not None:
        query = query.where(calls.c.at_us >= from_us)
    if to_us is not None:
        query = query.where(calls.c.at_us < to_us)
    if columns:
        query = query.group_by(*columns)
    order = [calls.c.day] if "day" in by else []
    return query.order_by(*order, func.coalesce(func.sum(calls.c.cost_usd), 0).desc(), *columns)


def unknown_attempts(tenant: str, *, before: tuple[int, str, str] | None, limit: int) -> Select[Any]:
    """Return attempts whose cost nobody knows, the latest first; `before`: the last (µs, run, call) of a page."""
    table = schema.calls
    place = (table.c.at_us, table.c.run_id, table.c.call)
    query = select(table).where(table.c.tenant == tenant, table.c.outcome == UNKNOWN)
    if before is not None:
        query = query.where(tuple_(*place) < tuple_(*(literal(part) for part in before)))
    return query.order_by(*(column.desc() for column in place)).limit(limit)


def unknown_total(tenant: str | None) -> Select[Any]:
    """Return how many attempts' cost nobody knows, of one tenant or of all, and the most that they can cost."""
    table = schema.calls
    query = select(func.count(), func.coalesce(func.sum(table.c.reserved_usd), 0.0)).where(table.c.outcome == UNKNOWN)
    return query if tenant is None else query.where(table.c.tenant == tenant)


def typical(tenant: str, *, from_us: int) -> Select[Any]:
    """Return what the latest answered calls took, since a time."""
    calls = schema.calls
    return (
        select(
            calls.c.role,
            calls.c.took_s,
            calls.c.completion_tokens,
            calls.c.cost_usd,
            (calls.c.prompt_tokens + calls.c.completion_tokens).label("tokens"),
        )
        .where(
            calls.c.tenant == tenant,
            calls.c.at_us >= from_us,
            calls.c.outcome == "answered",
            calls.c.purpose != "decision",
            calls.c.saved_usd == 0,
        )
        .order_by(calls.c.at_us.desc())
        .limit(LATEST)
    )


def _dimension(name: str) -> ColumnElement[Any]:
    if name in ("template", "schedule", "category", "kind"):
        return schema.runs.c[name]
    if name == "session":
        return schema.runs.c.session_id
    return schema.calls.c[name]


def _conditions(wanted: Wanted) -> Iterable[ColumnElement[bool]]:
    table = schema.runs
    yield table.c.tenant == wanted.tenant
    for name in ("template", "schedule", "session_id", "category", "kind", "parent"):
        if (value := getattr(wanted, name)) is not None:
            yield table.c[name] == value
    if wanted.states:
        yield or_(*(_in_state(state) for state in wanted.states))
    if wanted.model is not None:
        yield exists().where(
            schema.calls.c.tenant == table.c.tenant,
            schema.calls.c.run_id == table.c.run_id,
            schema.calls.c.model == wanted.model,
        )
    if wanted.words:
        yield func.lower(table.c.title).contains(wanted.words.lower(), autoescape=True)
    if wanted.from_us is not None:
        yield table.c.born_us >= wanted.from_us
    if wanted.to_us is not None:
        yield table.c.born_us < wanted.to_us
    if wanted.before is not None:
        born_us, run_id = wanted.before
        yield or_(table.c.born_us < born_us, and_(table.c.born_us == born_us, table.c.run_id < run_id))


def _in_state(state: str) -> ColumnElement[bool]:
    table = schema.runs
    if state == "awaiting_approval":
        return and_(table.c.state.in_(("running", "waiting")), table.c.asked > 0)
    if state in ("running", "waiting"):
        return and_(table.c.state == state, table.c.asked == 0)
    return table.c.state == state
