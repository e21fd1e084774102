"""The workflow language: queues of tasks, the way they are written in templates, plans and requests."""

from typing import Any, Literal

from pydantic import ConfigDict, Field, JsonValue, PositiveInt, field_validator

from shared.contracts.message import Part

MOST_SECONDS = 86_400


class TaskConfig(Part):
    """Settings of one task that override its role's."""

    model_config = ConfigDict(frozen=True, extra="allow")

    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: PositiveInt | None = None
    top_p: float | None = Field(default=None, gt=0, le=1)
    addons: tuple[str, ...] = ()
    cache: bool | None = None
    """Whether an earlier answer to the very same call will do; absent: if the model is asked at temperature 0."""


class ForEach(Part):
    """The task is done once for every item of a list; its output is the list of theirs, in the items' order."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    items: str
    """One reference to a list: `{name}` or `{name.field}`. A text that is a JSON list counts as one."""
    item: str = Field(default="item", alias="as")
    """The name that the item goes by in the task's prompt; `{index}` is its place, from 0."""
    concurrency: PositiveInt | None = None
    """How many at the same time at most; absent: all."""


class Approval(Part):
    """A person has to say yes before the task is done."""

    message: str = ""
    """What is to be decided, with references; shown to whoever decides."""
    timeout_s: float | None = Field(default=None, gt=0, le=MOST_SECONDS)
    """Until when it waits; absent: until the run's deadline."""
    default: Literal["approve", "reject"] = "reject"
    """What happens when nobody has decided by then."""


class Task(Part):
    """One call to one model; or a workflow of its own (`template`, `workflow`), or only a person's word (`approve`)."""

    model: str | None = None
    """A role of `ai_models`."""
    prompt: str = ""
    """`{name}` stands for a variable or for another task's output, `{name.field}` for a part of one that is JSON."""
    output_variable: str | None = None
    config: TaskConfig = Field(default_factory=TaskConfig)
    input_image: str | None = None
    """An image for the model to look at: a URL, a data URL, or `{name}` of another task's output."""
    needs: tuple[str, ...] = ()
    """Outputs of tasks that must be done before, beside those that it refers to."""
    when: str | None = Field(default=None, max_length=1_000)
    """A condition in CEL over variables and outputs; the task is skipped when it is false."""
    for_each: ForEach | None = None
    """Done once for every item of a list."""
    on_error: Literal["fail", "continue", "substitute"] = "fail"
    """`fail`: so does the run. `continue`: the output is empty. `substitute`: the output is `substitute`."""
    substitute: JsonValue = None
    """The output of a task that failed, with `on_error: substitute`."""
    timeout_s: float | None = Field(default=None, gt=0, le=MOST_SECONDS)
    """From its start, waiting included."""
    output_schema: dict[str, JsonValue] | None = None
    """JSON Schema (2020-12) of its output: checked, handed back once with its errors, and then the task has failed."""
    approve: Approval | None = None
    """A person has to say yes first. Without a model the person's word is the output."""
    template: str | None = None
    """The template that this task stands for; `variables` are its parameters."""
    workflow: tuple["Queue", ...] | None = Field(default=None, min_length=1)
    """The queues that this task stands for; inside, only `variables` and its own outputs are known."""
    variables: dict[str, JsonValue] = Field(default_factory=dict)
    """Values for `template` or `workflow`: texts may refer to what is known here."""
    expand: bool = False
    """The model's answer is a workflow, which is run in its place."""

    @field_validator("for_each", mode="before")
    @classmethod
    def _of_a_reference(cls, value: Any) -> Any:
        return {"items": value} if isinstance(value, str) else value

    @field_validator("approve", mode="before")
    @classmethod
    def _plainly(cls, value: Any) -> Any:
        if isinstance(value, bool):
            return {} if value else None
        return {"message": value} if isinstance(value, str) else value


class Queue(Part):
    """Tasks that run together (`linear`), one after the other (`inline`), or once what they need is there (`graph`)."""

    type: Literal["linear", "inline", "graph"]
    tasks: tuple[Task, ...] = Field(min_length=1)


class Workflow(Part):
    """Queues, each starting when the one before is done."""

    workflow: tuple[Queue, ...] = Field(min_length=1)
    variables: dict[str, JsonValue] = Field(default_factory=dict)
