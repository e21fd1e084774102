"""The history's database: SQLite or PostgreSQL. Blocking: call it from a thread.

Rows and the position that they reach are written in one transaction, and only on top of the position that the
writer began from: of several gateways that write to one database each stretch is taken in once.
"""

import contextlib
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Table,
    and_,
    bindparam,
    case,
    create_engine,
    delete,
    event,
    exists,
    func,
    literal,
    make_url,
    not_,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from shared.history import schema
from shared.history.projection import OVER, RECONCILED, UNKNOWN, shown
from shared.history.rows import CallRow, QuestionRow, Rows, RunRow

LOG: Final = "events"
CHUNK: Final = 400
"""Runs named in one statement."""
SETTLED: Final = ("answered", "failed")
"""Outcomes of calls, among those of their attempts and of what came late."""
LATEST: Final = 2_000
"""Calls that tell what calls take."""
LOCK: Final = 0x5E60E
"""PostgreSQL's advisory lock while tables are made."""


class HistoryUnavailable(Exception):
    """The history's database does not answer, or refuses. The message says what it said, without its password."""


class WrongHistoryUrl(ValueError):
    """The URL names no database that can be used."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far the log is taken in, and of which stream."""

    era: str
    seq: int


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


@dataclass(slots=True)
class History:
    """One database. Raises `WrongHistoryUrl` at once for a URL that names none, `HistoryUnavailable` later."""

    url: str
    engine: Engine = field(init=False)
    _made: bool = field(default=False, init=False)
    _making: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self.engine = _engine(self.url)

    @property
    def name(self) -> str:
        """The URL without its password."""
        return self.engine.url.render_as_string(hide_password=True)

    @contextlib.contextmanager
    def _faults(self) -> Any:
        try:
            yield
        except (SQLAlchemyError, OSError) as error:
            said = str(getattr(error, "orig", None) or error).strip().splitlines()
            raise HistoryUnavailable(
                f"the history at {self.name}: {said[0] if said else type(error).__name__}"
            ) from error

    def make(self) -> None:
        """Make the tables where they are missing, and anew where they are of another version."""
        with self._making, self._faults():
            if self._made:
                return
            if self.engine.url.database and self.engine.dialect.name == "sqlite":
                Path(self.engine.url.database).parent.mkdir(parents=True, exist_ok=True)
            with self.engine.begin() as connection:
                if self.engine.dialect.name == "postgresql":
                    connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
                else:
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                schema.position.create(connection, checkfirst=True)
                era = connection.scalar(select(schema.position.c.era).where(schema.position.c.name == LOG))
                if era is not None and era.partition(":")[0] != str(schema.VERSION):
                    schema.metadata.drop_all(connection)
                schema.metadata.create_all(connection, checkfirst=True)
            self._made = True

    def position(self, stream_made: str) -> Position:
        """Return how far the log is taken in; from the beginning of a stream that was made anew."""
        self.make()
        era = f"{schema.VERSION}:{stream_made}"[:64]
        with self._faults(), self.engine.begin() as connection:
            row = connection.execute(
                select(schema.position.c.era, schema.position.c.seq).where(schema.position.c.name == LOG)
            ).first()
            if row is not None and row.era == era:
                return Position(era, row.seq)
            if row is None:
                _upsert(
                    connection, schema.position, [{"name": LOG, "era": era, "seq": 0, "at_us": _now_us()}], ("name",)
                )
            else:
                connection.execute(
                    update(schema.position)
                    .where(schema.position.c.name == LOG, schema.position.c.era == row.era)
                    .values(era=era, seq=0)
                )
            return Position(era, 0)

    def apply(self, began: Position, reached: int, rows: Rows) -> bool:
        """Write a stretch of the log from `began` to `reached`; False when somebody else was there before."""
        with self._faults(), self.engine.begin() as connection:
            moved = connection.execute(
                update(schema.position)
                .where(
                    schema.position.c.name == LOG,
                    schema.position.c.era == began.era,
                    schema.position.c.seq == began.seq,
                )
                .values(seq=reached, at_us=_now_us())
            )
            if moved.rowcount != 1:
                return False
            _write(connection, rows)
        return True

    def list(self, wanted: Wanted) -> Sequence[Mapping[str, Any]]:
        """Return runs, the latest born first, with `state` as it is shown."""
        self.make()
        table = schema.runs
        query = (
            select(table)
            .where(*_conditions(wanted))
            .order_by(table.c.born_us.desc(), table.c.run_id.desc())
            .limit(wanted.limit)
        )
        with self._faults(), self.engine.connect() as connection:
            found = [dict(row) for row in connection.execute(query).mappings()]
        for row in found:
            row["state"] = shown(row["state"] or "accepted", asked=bool(row["asked"]))
        return found

    def questions(self, tenant: str, run_ids: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        """Return what people are asked in some runs and have not answered."""
        table = schema.questions
        query = select(table).where(
            table.c.tenant == tenant,
            table.c.run_id.in_(run_ids),
            table.c.approved.is_(None),
            table.c.until_us.is_not(None),
        )
        with self._faults(), self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def usage(
        self, tenant: str, by: Sequence[str], *, from_us: int | None, to_us: int | None
    ) -> Sequence[Mapping[str, Any]]:
        """Return sums of what calls used, by dimensions of `DIMENSIONS`, the dearest first (by day: oldest first)."""
        self.make()
        calls, runs = schema.calls, schema.runs
        columns = [_dimension(name).label(name) for name in by]
        query = (
            select(
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
            )
            .select_from(calls.outerjoin(runs, and_(runs.c.tenant == calls.c.tenant, runs.c.run_id == calls.c.run_id)))
            .where(calls.c.tenant == tenant)
        )
        if from_us is not None:
            query = query.where(calls.c.at_us >= from_us)
        if to_us is not None:
            query = query.where(calls.c.at_us < to_us)
        if columns:
            query = query.group_by(*columns)
        order = [calls.c.day] if "day" in by else []
        query = query.order_by(*order, func.coalesce(func.sum(calls.c.cost_usd), 0).desc(), *columns)
        with self._faults(), self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def unknown_attempts(
        self, tenant: str, *, before: tuple[int, str, str] | None, limit: int
    ) -> Sequence[Mapping[str, Any]]:
        """Return attempts whose cost nobody knows, the latest first; `before`: the last (µs, run, call) of a page."""
        self.make()
        table = schema.calls
        place = (table.c.at_us, table.c.run_id, table.c.call)
        query = select(table).where(table.c.tenant == tenant, table.c.outcome == UNKNOWN)
        if before is not None:
            query = query.where(tuple_(*place) < tuple_(*(literal(part) for part in before)))
        query = query.order_by(*(column.desc() for column in place)).limit(limit)
        with self._faults(), self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def unknown_total(self, tenant: str | None = None) -> tuple[int, float]:
        """Return how many attempts' cost nobody knows, of one tenant or of all, and the most that they can cost."""
        self.make()
        table = schema.calls
        query = select(func.count(), func.coalesce(func.sum(table.c.reserved_usd), 0.0)).where(
            table.c.outcome == UNKNOWN
        )
        if tenant is not None:
            query = query.where(table.c.tenant == tenant)
        with self._faults(), self.engine.connect() as connection:
            count, reserved_usd = connection.execute(query).one()
        return int(count), float(reserved_usd)

    def typical(self, tenant: str, *, from_us: int) -> Mapping[str, Typical]:
        """Return what answered calls took by role: the middle of the latest, since a time."""
        self.make()
        calls = schema.calls
        query = (
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
        by_role: dict[str, list[Any]] = {}
        with self._faults(), self.engine.connect() as connection:
            for row in connection.execute(query):
                by_role.setdefault(row.role, []).append(row)
        return {
            role: Typical(
                len(rows),
                median(row.took_s for row in rows),
                median(row.completion_tokens for row in rows),
                sum(row.cost_usd for row in rows),
                sum(row.tokens for row in rows),
            )
            for role, rows in by_role.items()
        }

    def forget(self, *, runs_before_us: int, calls_before_us: int) -> int:
        """Remove what is older: runs that the log has no more, and calls beyond the days that are kept."""
        with self._faults(), self.engine.begin() as connection:
            gone = connection.execute(delete(schema.runs).where(schema.runs.c.born_us < runs_before_us)).rowcount
            connection.execute(
                delete(schema.questions).where(
                    ~exists().where(
                        schema.runs.c.tenant == schema.questions.c.tenant,
                        schema.runs.c.run_id == schema.questions.c.run_id,
                    )
                )
            )
            gone += connection.execute(delete(schema.calls).where(schema.calls.c.at_us < calls_before_us)).rowcount
        return int(gone)

    def again(self, *, from_nothing: bool = False) -> None:
        """Take the log in anew from its beginning. What it has no more is kept, unless `from_nothing`."""
        self.make()
        with self._faults(), self.engine.begin() as connection:
            if from_nothing:
                for table in (schema.questions, schema.calls, schema.runs):
                    connection.execute(delete(table))
            connection.execute(update(schema.position).where(schema.position.c.name == LOG).values(seq=0))

    def close(self) -> None:
        self.engine.dispose()


DIMENSIONS: Final = (
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
)
"""What usage can be summed up by."""


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


def _write(connection: Connection, rows: Rows) -> None:
    touched = {*rows.runs, *rows.started, *((tenant, run_id) for tenant, run_id, _ in rows.calls)}
    if rows.runs:
        _upsert(connection, schema.runs, [_fields(row) for row in rows.runs.values()], ("tenant", "run_id"))
    if rows.calls:
        _upsert(connection, schema.calls, [_fields(row) for row in rows.calls.values()], ("tenant", "run_id", "call"))
    if rows.questions:
        asked = [_fields(row) for row in rows.questions.values()]
        _upsert(connection, schema.questions, asked, ("tenant", "run_id", "task"))
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


def _upsert(connection: Connection, table: Table, values: list[dict[str, Any]], keys: tuple[str, ...]) -> None:
    """Write rows over those with their keys; what a row does not say stays as it is."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table)
    said: dict[str, ColumnElement[Any]] = {}
    for column in values[0]:
        if column in keys:
            continue
        new, old = statement.excluded[column], table.c[column]
        kept: ColumnElement[Any] = func.coalesce(new, old)
        # What has ended stays so: a stretch that is taken in again must not show it running once more.
        said[column] = case((and_(_over(old), not_(_over(new))), old), else_=kept) if column == "state" else kept
    if table is schema.calls:  # and what was found of an attempt stays found
        stays = table.c.outcome == RECONCILED
        unless = or_(not_(stays), statement.excluded.outcome == RECONCILED)
        connection.execute(statement.on_conflict_do_update(index_elements=list(keys), set_=said, where=unless), values)
        return
    connection.execute(statement.on_conflict_do_update(index_elements=list(keys), set_=said), values)


def _fields(row: RunRow | CallRow | QuestionRow) -> dict[str, Any]:
    """Return a row's values; `dataclasses.asdict` would copy each, which is most of the work."""
    return {name: _storable(getattr(row, name)) for name in row.__slots__}


def _over(state: Any) -> ColumnElement[bool]:
    # One comparison each: a statement with an IN list cannot be run for many rows.
    return or_(*(state == one for one in sorted(OVER)))


def _storable(value: Any) -> Any:
    """Return a text without what PostgreSQL refuses."""
    return value.replace("\x00", "") if isinstance(value, str) and "\x00" in value else value


def _now_us() -> int:
    return time.time_ns() // 1000


def us_of(at: datetime) -> int:
    """Return µs since 1970."""
    return round(at.timestamp() * 1_000_000)


def time_of(us: int | None) -> datetime | None:
    """Return the time of µs since 1970."""
    return None if us is None else datetime.fromtimestamp(us / 1_000_000, UTC)


def _engine(url: str) -> Engine:
    """Return an engine that keeps few connections and notices when one has gone."""
    try:
        made = make_url(url)
        if made.get_backend_name() == "postgresql":
            made = made.set(drivername="postgresql+psycopg")
            return create_engine(
                made, pool_size=2, max_overflow=3, pool_pre_ping=True, connect_args={"connect_timeout": 5}
            )
        if made.get_backend_name() != "sqlite" or not made.database or made.database == ":memory:":
            raise WrongHistoryUrl("sqlite:///path/to/file.db or postgresql://user:password@host/database")
        engine = create_engine(made, pool_size=2, max_overflow=3, connect_args={"timeout": 10})
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise WrongHistoryUrl("sqlite:///path/to/file.db or postgresql://user:password@host/database") from error
    event.listen(engine, "connect", _tune)
    return engine


def _tune(connection: Any, _: object) -> None:
    """Let readers and the writer not wait for each other; a projection may lose its last moment with the machine."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()
