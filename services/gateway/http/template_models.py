"""The bodies about templates and schedules."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeInt,
    TypeAdapter,
    ValidationError,
)

from services.gateway.http.models import Body
from shared.config.templates import Template
from shared.contracts.ids import Priority
from shared.contracts.registry import Cron, Every, Zone
from shared.registry.templates import Offered


def _fits(kind: Any, said: str) -> Callable[[str], str]:
    """Return a check that says in words what a pattern wants."""
    wanted: TypeAdapter[str] = TypeAdapter(kind)

    def check(text: str) -> str:
        try:
            return wanted.validate_python(text)
        except ValidationError as error:
            raise ValueError(f"{text[:60]!r} is {said}") from error

    return check


_cron = _fits(Cron, "no cron expression: minute hour day month weekday, such as '0 8 * * 1-5', or @daily and the like")
_every = _fits(Every, "no duration of a second or more, such as 90s, 15m, 6h")
_zone = _fits(Zone, "no time zone of the IANA database, such as Europe/Berlin")


class ParameterBody(Body):
    name: str
    required: bool
    type: str
    description: str
    default: JsonValue
    choices: list[JsonValue]


class TemplateBody(Body):
    """A template in a list."""

    name: str
    description: str
    steps: NonNegativeInt = Field(description="Number of tasks.")
    parameters: list[ParameterBody]
    source: Literal["file", "registry"] = Field(description="`file`: of the configuration; it has no versions.")
    version: int | None
    written_at: AwareDatetime | None
    by: str | None


class WholeTemplate(TemplateBody):
    """A template with its workflow, as `PUT` takes it back."""

    variables: dict[str, Any]
    workflow: list[Any]


class TemplatesAnswer(Body):
    templates: list[TemplateBody]
    count: NonNegativeInt


class TemplateWritten(Body):
    """`PUT /templates/{name}`"""

    model_config = ConfigDict(frozen=True, extra="allow")

    description: str = Field(default="", description="What it makes, in words.")
    workflow: list[dict[str, Any]] = Field(description="The queues, as in `POST /workflow`.")
    variables: dict[str, Any] = Field(
        default_factory=dict,
        description="Parameters by name: {type, description, default, choices}, or only a default. Without this key "
        "every name that no task puts out is a required text.",
    )


class TemplateDeleted(Body):
    status: Literal["deleted"] = "deleted"
    name: str
    now: Literal["file"] | None = Field(description="`file`: the configuration's template of this name is back.")


class VersionBody(Body):
    """One version of a template."""

    version: int
    deleted: bool
    written_at: AwareDatetime
    by: str


class VersionsAnswer(Body):
    """What is kept of a template's versions, oldest first."""

    name: str
    versions: list[VersionBody]


class ScheduleWritten(Body):
    """`PUT /schedules/{name}`"""

    model_config = ConfigDict(frozen=True, extra="forbid")

    template: str = Field(max_length=64, description="The template that is started.")
    variables: dict[str, JsonValue] = Field(default_factory=dict, description="Its parameters' values.")
    cron: Annotated[str, AfterValidator(_cron)] | None = Field(
        default=None,
        description="minute hour day month weekday, with seconds before where there are six, or @daily and the like.",
        examples=["0 8 * * 1-5"],
    )
    every: Annotated[str, AfterValidator(_every)] | None = Field(
        default=None, description="Instead of cron: 90s, 15m, 6h."
    )
    timezone: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC", description="An IANA name, such as Europe/Berlin; for cron."
    )
    priority: Priority = Priority.MEDIUM
    overlap: Literal["skip", "allow"] = Field(
        default="skip", description="What is done when the run before has not ended yet."
    )
    callback_url: str | None = Field(
        default=None, description="Each run's answer is POSTed there, signed, when it has ended: docs/callbacks.md."
    )
    paused: bool = Field(default=False, description="Keep it, and start nothing.")


class ScheduleBody(Body):
    """A schedule, and what has become of it."""

    name: str
    template: str
    variables: dict[str, JsonValue]
    cron: str | None
    every: str | None
    timezone: str
    priority: Priority
    overlap: Literal["skip", "allow"]
    callback_url: str | None = Field(default=None, description="Where the answers of its runs are POSTed.")
    paused: bool
    version: int
    written_at: AwareDatetime
    by: str
    started: NonNegativeInt
    skipped: NonNegativeInt
    last_run: str | None
    last_at: AwareDatetime | None
    next_at: AwareDatetime | None = Field(
        description="When it starts next, as far as the bus has said: after the first."
    )
    problem: str | None = Field(description="Why nothing was started the last time.")


class SchedulesAnswer(Body):
    schedules: list[ScheduleBody]
    count: NonNegativeInt


class ScheduleDeleted(Body):
    status: Literal["deleted"] = "deleted"
    name: str


def fields_of(offered: Offered) -> dict[str, Any]:
    """Return what a list says of a template."""
    return {
        "name": offered.name,
        "description": offered.template.description,
        "steps": offered.template.steps,
        "parameters": _parameters(offered.template),
        "source": offered.source,
        "version": offered.version,
        "written_at": offered.written_at,
        "by": offered.by,
    }


def whole(offered: Offered) -> WholeTemplate:
    """Return a template as it can be written back."""
    document = offered.template.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    variables = {
        name: parameter.model_dump(mode="json", exclude_unset=True)
        for name, parameter in offered.template.variables.items()
    }
    return WholeTemplate(**fields_of(offered), variables=variables, workflow=document["workflow"])


def _parameters(template: Template) -> list[ParameterBody]:
    return [
        ParameterBody(
            name=name,
            required=asked.required,
            type=asked.type,
            description=asked.description,
            default=asked.default,
            choices=list(asked.choices),
        )
        for name, asked in template.variables.items()
    ]
