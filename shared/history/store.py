"""The history's database: SQLite or PostgreSQL. Blocking: call it from a thread.

Rows and the position that they reach are written in one transaction, and only on top of the position that the
writer began from: of several gateways that write to one database each stretch is taken in once.
"""

import contextlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

from sqlalchemy import (
    Engine,
    create_engine,
    delete,
    event,
    exists,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from shared.history import queries, schema
from shared.history.projection import shown
from shared.history.queries import Typical, Wanted
from shared.history.rows import Rows
from shared.history.writing import upsert, write
from shared.moments import us_of

LOG: Final = "events"
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
                new = {"name": LOG, "era": era, "seq": 0, "at_us": us_of(datetime.now(UTC))}
                upsert(connection, schema.position, [new], ("name",))
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
                .values(seq=reached, at_us=us_of(datetime.now(UTC)))
            )
            if moved.rowcount != 1:
                return False
            write(connection, rows)
        return True

    def list(self, wanted: Wanted) -> Sequence[Mapping[str, Any]]:
        """Return runs, the latest born first, with `state` as it is shown."""
        self.make()
        query = queries.runs(wanted)
        with self._faults(), self.engine.connect() as connection:
            found = [dict(row) for row in connection.execute(query).mappings()]
        for row in found:
            row["state"] = shown(row["state"] or "accepted", asked=bool(row["asked"]))
        return found

    def questions(self, tenant: str, run_ids: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        """Return what people are asked in some runs and have not answered."""
        query = queries.questions(tenant, run_ids)
        with self._faults(), self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def usage(
        self, tenant: str | None, by: Sequence[str], *, from_us: int | None, to_us: int | None
    ) -> Sequence[Mapping[str, Any]]:
        """Return sums of what calls used, by any `Dimension`, the dearest first (by day: oldest first).

        Of one tenant, or of all (None).
        """
        self.make()
        query = queries.usage(tenant, by, from_us=from_us, to_us=to_us)
        with self._faults(), self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def unknown_attempts(
        self, tenant: str, *, before: tuple[int, str, str] | None, limit: int
    ) -> Sequence[Mapping[str, Any]]:
        """Return attempts whose cost nobody knows, the latest first; `before`: the last (µs, run, call) of a page."""
        self.make()
        query = queries.unknown_attempts(tenant, before=before, limit=limit)
        with self._faults(), self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def unknown_total(self, tenant: str | None = None) -> tuple[int, float]:
        """Return how many attempts' cost nobody knows, of one tenant or of all, and the most that they can cost."""
        self.make()
        query = queries.unknown_total(tenant)
        with self._faults(), self.engine.connect() as connection:
            count, reserved_usd = connection.execute(query).one()
        return int(count), float(reserved_usd)

    def typical(self, tenant: str, *, from_us: int) -> Mapping[str, Typical]:
        """Return what answered calls took by role: the middle of the latest, since a time."""
        self.make()
        query = queries.typical(tenant, from_us=from_us)
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
