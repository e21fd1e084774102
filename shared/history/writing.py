"""Rows into the history's tables, inside a transaction of the caller's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Dialect,
    Table,
    and_,
    bindparam,
    case,
    func,
    not_,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.compiler import SQLCompiler

from shared.history import schema
from shared.history.projection import OVER, RECONCILED
from shared.history.queries import SETTLED
from shared.history.rows import CallRow, QuestionRow, Rows, RunRow

CHUNK: Final = 400
"""Runs named in one statement."""


def write(connection: Connection, rows: Rows) -> None:
    """Write rows over those that are there. Repeating it changes nothing."""
    touched = {*rows.runs, *rows.started, *((tenant, run_id) for tenant, run_id, _ in rows.calls)}
    if rows.runs:
        upsert(connection, schema.runs, [_fields(row) for row in rows.runs.values()], ("tenant", "run_id"))
    if rows.calls:
        upsert(connection, schema.calls, [_fields(row) for row in rows.calls.values()], ("tenant", "run_id", "call"))
    if rows.questions:
        asked = [_fields(row) for row in rows.questions.values()]
        upsert(connection, schema.questions, asked, ("tenant", "run_id", "task"))
    if rows.started:
        connection.execute(
            update(schema.runs)
            .where(
                schema.runs.c.tenant == bindparam("of_tenant"),
                schema.runs.c.run_id == bindparam("of_run"),
                schema.runs.c.state == "waiting",
                schema.runs.c.seq <= bindparam("at"),
            )
            .values(state="running"),
            [{"of_tenant": tenant, "of_run": run, "at": seq} for (tenant, run), seq in rows.started.items()],
        )
    named = sorted(touched)
    for start in range(0, len(named), CHUNK):
        _sum_up(connection, named[start : start + CHUNK])


def _sum_up(connection: Connection, named: Sequence[tuple[str, str]]) -> None:
    """Let runs say what their calls came to: taken from the calls' rows every time, never added up."""
    runs, calls, questions = schema.runs, schema.calls, schema.questions
    own = and_(calls.c.tenant == runs.c.tenant, calls.c.run_id == runs.c.run_id)

    def total(what: ColumnElement[Any]) -> ColumnElement[Any]:
        return select(func.coalesce(what, 0)).where(own).scalar_subquery()

    open_questions = (
        select(func.count())
        .where(
            questions.c.tenant == runs.c.tenant,
            questions.c.run_id == runs.c.run_id,
            questions.c.approved.is_(None),
            questions.c.until_us.is_not(None),
        )
        .scalar_subquery()
    )
    connection.execute(
        update(runs)
        .where(tuple_(runs.c.tenant, runs.c.run_id).in_(named))
        .values(
            calls=total(func.sum(case((calls.c.outcome.in_(SETTLED), 1), else_=0))),
            tokens=total(func.sum(calls.c.prompt_tokens + calls.c.completion_tokens)),
            cost_usd=total(func.sum(calls.c.cost_usd)),
            saved_usd=total(func.sum(calls.c.saved_usd)),
            unknown_costs=total(func.sum(case((calls.c.cost_known, 0), else_=1))),
            simulated=total(func.sum(case((calls.c.simulated, 1), else_=0))),
            asked=case((runs.c.state.in_(OVER), 0), else_=open_questions),
        )
    )


def upsert(connection: Connection, table: Table, values: list[dict[str, Any]], keys: tuple[str, ...]) -> None:
    """Write rows over those with their keys; what a row does not say stays as it is. All rows say the same columns."""
    _upsert(connection.dialect, table, tuple(values[0]), keys).run(connection, values)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A statement as the driver takes it. To hand rows through SQLAlchemy takes two and a half times as long."""

    text: str
    places: Sequence[str] | None
    """The values' names in their order, where the driver wants them without."""
    constants: Mapping[str, Any]

    def run(self, connection: Connection, values: list[dict[str, Any]]) -> None:
        whole = [{**self.constants, **row} for row in values]
        places = self.places
        rows = whole if places is None else [tuple([row[name] for name in places]) for row in whole]
        connection.exec_driver_sql(self.text, rows)


@lru_cache
def _upsert(spoken: Dialect, table: Table, columns: tuple[str, ...], keys: tuple[str, ...]) -> _Prepared:
    dialect = postgresql if spoken.name == "postgresql" else sqlite
    statement = dialect.insert(table)
    said: dict[str, ColumnElement[Any]] = {}
    for column in columns:
        if column in keys:
            continue
        new, old = statement.excluded[column], table.c[column]
        kept: ColumnElement[Any] = func.coalesce(new, old)
        # What has ended stays so: a stretch that is taken in again must not show it running once more.
        said[column] = case((and_(_over(old), not_(_over(new))), old), else_=kept) if column == "state" else kept
    unless: ColumnElement[bool] | None = None
    if table is schema.calls:  # and what was found of an attempt stays found
        unless = or_(table.c.outcome != RECONCILED, statement.excluded.outcome == RECONCILED)
    statement = statement.on_conflict_do_update(index_elements=list(keys), set_=said, where=unless)
    compiled = statement.compile(dialect=spoken, column_keys=columns)
    assert isinstance(compiled, SQLCompiler)
    return _Prepared(compiled.string, compiled.positiontup, compiled.params)


def _fields(row: RunRow | CallRow | QuestionRow) -> dict[str, Any]:
    """Return a row's values; `dataclasses.asdict` would copy each, which is most of the work."""
    return {name: _storable(getattr(row, name)) for name in row.__slots__}


def _over(state: Any) -> ColumnElement[bool]:
    # One comparison each: a statement with an IN list cannot be run for many rows.
    return or_(*(state == one for one in sorted(OVER)))


def _storable(value: Any) -> Any:
    """Return a text without what PostgreSQL refuses."""
    return value.replace("\x00", "") if isinstance(value, str) and "\x00" in value else value
