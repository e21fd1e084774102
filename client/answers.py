"""What Segue answers, typed. Fields that a later version adds are kept and can be read by their names."""

from datetime import date, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """A frozen answer."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())


class Tokens(Answer):
    """As the providers counted them, of all calls."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class Artifact(Answer):
    """An image or a video that a model made; `Segue.artifact(one.url)` fetches it."""

    url: str
    media_type: str
    bytes: int
    expires_at: datetime


class ChatAnswer(Answer):
    """The answer to a message."""

    response: str
    run_id: str
    session_id: str | None = None
    category: str | None = None
    model_used: str | None = None
    timestamp: datetime
    acknowledgement: str | None = None
    result: dict[str, Any] | None = None
    """Of an orchestrated request: what each step put out, by name."""
    cost_usd: float = 0.0
    cost_known: bool = True
    baseline_usd: float | None = None
    saving_usd: float | None = None
    usage: Tokens = Tokens()
    took_s: float = 0.0
    simulated: bool = False
    calls: int = 0
    note: str | None = None
    artifacts: tuple[Artifact, ...] = ()


class WorkflowAnswer(Answer):
    """What a workflow or a template came to; `result` has its variables and outputs by name."""

    status: str
    result: dict[str, Any]
    execution_time: float
    """Seconds."""
    run_id: str
    cost_usd: float = 0.0
    cost_known: bool = True
    usage: Tokens = Tokens()
    simulated: bool = False
    calls: int = 0
    note: str | None = None
    artifacts: tuple[Artifact, ...] = ()


class Begun(Answer):
    """A run that has begun: `Segue.events`, `Segue.wait` and `Segue.run` say how it goes."""

    run_id: str
    session_id: str | None = None
    status_url: str
    events_url: str


class Plan(Answer):
    """A workflow that was planned and not carried out, with what it would take."""

    workflow: list[Any] | None = None
    variables: dict[str, Any] = {}
    note: str | None = None
    estimate: dict[str, Any] | None = None
    cost_usd: float = 0.0
    run_id: str | None = None


class Ledger(Answer):
    """What a run has cost."""

    calls: int
    cost_usd: float
    cost_known: bool
    tokens: int
    baseline_usd: float | None = None
    saving_usd: float | None = None


class Run(Answer):
    """A run, as the log has it now."""

    run_id: str
    state: str
    """`queued`, `accepted`, `planning`, `waiting`, `running`, `paused` or `awaiting_approval`; at the end `completed`,
    `failed`, `denied` or `cancelled`."""
    waits_for: str | None = None
    waits_until: datetime | None = None
    kind: str | None = None
    """`chat` or `workflow`; None: nobody has taken it up."""
    category: str | None = None
    template: str | None = None
    session_id: str | None = None
    born_at: datetime
    deadline_at: datetime
    ended_at: datetime | None = None
    tasks: tuple[dict[str, Any], ...] = ()
    calls: tuple[dict[str, Any], ...] = ()
    ledger: Ledger
    error: dict[str, Any] | None = None
    callback: dict[str, Any] | None = None
    """Where the answer is POSTed, and what has become of that."""

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.ended_at is not None

    @property
    def queued(self) -> bool:
        """Whether nobody has taken it up yet; it can be cancelled and followed."""
        return self.state == "queued"


class RunLine(Answer):
    """A run in a list."""

    run_id: str
    state: str
    kind: str | None = None
    title: str | None = None
    born_at: datetime
    ended_at: datetime | None = None
    cost_usd: float = 0.0


class Message(Answer):
    role: str
    content: str
    timestamp: datetime


class Session(Answer):
    """A conversation."""

    session_id: str
    created_at: datetime
    messages: tuple[Message, ...] = ()


class Variant(Answer):
    """Another model that plays a role."""

    weight: int
    provider: str | None = None
    model: str | None = None


class Model(Answer):
    """A role and the model that plays it."""

    name: str
    provider: str
    model: str
    purpose: str = ""
    available: bool = True
    simulated: bool = False
    disabled: str | None = None
    """Why nobody asks it."""
    fallbacks: tuple[str, ...] = ()
    """Roles that stand in, in order."""
    weight: int = 100
    variants: dict[str, Variant] = Field(default_factory=dict)
    """Other models that play it for a share of the runs, by name."""
    expires_on: date | None = None
    version: int | None = None
    """Of what was written at run time; None: it is as the configuration file has it."""


class Template(Answer):
    """A workflow that can be run by its name."""

    name: str
    description: str = ""
    steps: int
    parameters: tuple[dict[str, Any], ...] = ()


class Schedule(Answer):
    """A template that is started by the clock, and what has become of it."""

    name: str
    template: str
    variables: dict[str, Any]
    cron: str | None = None
    every: str | None = None
    timezone: str
    priority: str
    overlap: str
    callback_url: str | None = None
    paused: bool
    version: int
    started: int
    skipped: int
    last_run: str | None = None
    last_at: datetime | None = None
    next_at: datetime | None = None
    problem: str | None = None


class UsageRow(Answer):
    """Sums, by the dimensions that were asked for."""

    by: dict[str, str | None] = {}
    runs: int = 0
    calls: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    cost_known: bool = True


class Usage(Answer):
    """What was used."""

    rows: tuple[UsageRow, ...] = ()
    total: UsageRow = Field(default_factory=UsageRow)
