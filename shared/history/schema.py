"""The history's tables. `VERSION` changes with them: a database of another version is made anew from the log."""

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text, false, text

VERSION = 4

metadata = MetaData()

position = Table(
    "segue_position",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("era", String(64), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("at_us", BigInteger, nullable=False),
)
"""How far the log is taken in. `era` is the tables' version and when the stream was made."""

runs = Table(
    "segue_runs",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("run_id", String(64), primary_key=True),
    Column("priority", String(16), nullable=False),
    Column("session_id", String(64)),
    Column("born_us", BigInteger, nullable=False),
    Column("deadline_us", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("kind", String(16)),
    Column("state", String(16)),
    Column("title", Text),
    Column("template", String(128)),
    Column("schedule", String(128)),
    Column("parent", String(64)),
    Column("lineage", String(16)),
    Column("category", String(1)),
    Column("source", String(16)),
    Column("role", Text),
    Column("model", Text),
    Column("ended_us", BigInteger),
    Column("code", String(64)),
    Column("baseline_usd", Float),
    Column("calls", Integer, nullable=False, server_default="0"),
    Column("tokens", BigInteger, nullable=False, server_default="0"),
    Column("cost_usd", Float, nullable=False, server_default="0"),
    Column("saved_usd", Float, nullable=False, server_default="0"),
    Column("unknown_costs", Integer, nullable=False, server_default="0"),
    Column("simulated", Integer, nullable=False, server_default="0"),
    Column("asked", Integer, nullable=False, server_default="0"),
    Index("segue_runs_born", "tenant", "born_us", "run_id"),
    Index("segue_runs_state", "tenant", "state", "born_us"),
    Index("segue_runs_session", "tenant", "session_id", "born_us"),
    Index("segue_runs_template", "tenant", "template", "born_us"),
    Index("segue_runs_parent", "tenant", "parent"),
)

calls = Table(
    "segue_calls",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("run_id", String(64), primary_key=True),
    Column("call", String(160), primary_key=True),
    Column("purpose", String(16), nullable=False),
    Column("day", String(10), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("role", Text, nullable=False),
    Column("variant", String(64)),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("simulated", Boolean, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("cost_usd", Float, nullable=False),
    Column("cost_known", Boolean, nullable=False),
    Column("saved_usd", Float, nullable=False),
    Column("took_s", Float, nullable=False),
    Column("reserved_usd", Float, nullable=False, server_default="0"),
    Column("code", String(64)),
    Column("asked", Boolean, nullable=False, server_default=false()),
    Index("segue_calls_at", "tenant", "at_us"),
    Index(
        "segue_calls_unknown",
        "tenant",
        "at_us",
        sqlite_where=text("outcome = 'unknown'"),
        postgresql_where=text("outcome = 'unknown'"),
    ),
)

questions = Table(
    "segue_questions",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("run_id", String(64), primary_key=True),
    Column("task", String(64), primary_key=True),
    Column("output", Text),
    Column("message", Text),
    Column("until_us", BigInteger),
    Column("approved", Boolean),
    Column("by", Text),
)
