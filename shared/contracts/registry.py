"""What can be changed while the system runs, over the configuration file: templates, their schedules, and models."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, JsonValue, NonNegativeInt, PositiveInt, StringConstraints

from shared.contracts.callbacks import Callback
from shared.contracts.ids import Priority, RunId, TenantId, Token
from shared.contracts.message import Message

# They become headers of a message: no line breaks, nothing that is not meant.
Cron = Annotated[str, StringConstraints(pattern=r"^[@A-Za-z0-9*/,?#-][@A-Za-z0-9*/,?# -]{3,118}[A-Za-z0-9*?#]$")]
Every = Annotated[str, StringConstraints(pattern=r"^([0-9]{1,9}(\.[0-9]{1,9})?(ns|us|ms|s|m|h)){1,4}$")]
Zone = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_+/-]{0,63}$")]


class TemplateVersion(Message):
    """A template as it was written. In the `registry` bucket under `template.<tenant>.<name>`; by the gateway."""

    tenant: TenantId
    name: Token
    version: PositiveInt
    document: dict[str, JsonValue] | None = None
    """As in `workflow_templates` of the configuration file; None: it was deleted."""
    written_at: AwareDatetime
    by: str


class Schedule(Message):
    """When a template is started. In the `registry` bucket under `schedule.<tenant>.<name>`; by the gateway."""

    tenant: TenantId
    name: Token
    version: PositiveInt
    template: Token
    variables: dict[str, JsonValue] = Field(default_factory=dict)
    cron: Cron | None = None
    """`minute hour day month weekday`, with seconds before it where there are six, or `@daily` and the like."""
    every: Every | None = None
    """A duration of at least a second: `90s`, `15m`, `6h`."""
    timezone: Zone = "UTC"
    """An IANA name; for `cron`."""
    priority: Priority = Priority.MEDIUM
    overlap: Literal["skip", "allow"] = "skip"
    """What is done when the run before has not ended."""
    callback: Callback | None = None
    """Where the answer of every run that it begins is POSTed; None: nowhere."""
    paused: bool = False
    deleted: bool = False
    written_at: AwareDatetime
    by: str
    key: str | None = None
    """The API key that wrote it last, whose budgets and models its runs are held to."""


class ScheduleDue(Message):
    """A schedule's time has come. `due.schedule.<tenant>.<name>`, fired by the bus; read by the planner."""

    tenant: TenantId
    name: Token
    version: PositiveInt


class ScheduleState(Message):
    """What has become of a schedule. In the `registry` bucket under `fired.<tenant>.<name>`; by the planner."""

    last_run: RunId | None = None
    last_at: AwareDatetime | None = None
    next_at: AwareDatetime | None = None
    """As the bus said when it fired last."""
    started: NonNegativeInt = 0
    skipped: NonNegativeInt = 0
    problem: str | None = None
    """Why the last time nothing could be started."""
    seq: NonNegativeInt = 0
    """Of the last fire that is taken in, in its stream."""


class NamesFreed(Message):
    """Deleted names have no place any more. In the `registry` bucket under `freed.model` and `freed.provider`; by the
    gateway, before it frees them."""

    version: PositiveInt
    """The highest that one of them had. A new name begins above it: who remembers an old one takes it in."""


class ModelEntry(Message):
    """A role as it was written. In the `registry` bucket under `model.<role>`; by the gateway.

    Over the configuration file: what is None here is as the file has it.
    """

    role: Token
    version: PositiveInt
    document: dict[str, JsonValue] | None = None
    """As in `ai_models` of the configuration file."""
    fallbacks: tuple[str, ...] | None = None
    system_prompt: str | None = None
    disabled: str | None = None
    """Why nobody asks it."""
    written_at: AwareDatetime
    by: str

    @property
    def empty(self) -> bool:
        """Whether it says nothing: the configuration file's holds."""
        return self.document is None and self.fallbacks is None and self.system_prompt is None and self.disabled is None


class ProviderEntry(Message):
    """A provider as it was written. In the `registry` bucket under `provider.<name>`; by the gateway."""

    name: Token
    version: PositiveInt
    document: dict[str, JsonValue] | None = None
    """As in `providers` of the configuration file; None: as the file has it."""
    disabled: str | None = None
    """Why nothing is asked of it."""
    written_at: AwareDatetime
    by: str

    @property
    def empty(self) -> bool:
        """Whether it says nothing: the configuration file's holds."""
        return self.document is None and self.disabled is None
