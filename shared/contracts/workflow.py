"""The workflow language: queues of tasks, the way they are written in templates, plans and requests."""

from typing import Literal

from pydantic import ConfigDict, Field, JsonValue, PositiveInt

from shared.contracts.message import Part


class TaskConfig(Part):
    """Settings of one task that override its role's."""

    model_config = ConfigDict(frozen=True, extra="allow")

    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: PositiveInt | None = None
    top_p: float | None = Field(default=None, gt=0, le=1)
    addons: tuple[str, ...] = ()


class Task(Part):
    """One call to one model."""

    model: str
    """A role of `ai_models`."""
    prompt: str
    """`{name}` stands for a variable or for an earlier task's output."""
    output_variable: str | None = None
    config: TaskConfig = Field(default_factory=TaskConfig)
    input_image: str | None = None
    """An image for the model to look at: a URL, a data URL, or `{name}` of an earlier task's output."""


class Queue(Part):
    """Tasks that run together (`linear`) or one after the other (`inline`)."""

    type: Literal["linear", "inline"]
    tasks: tuple[Task, ...] = Field(min_length=1)


class Workflow(Part):
    """Queues, each starting when the one before is done."""

    workflow: tuple[Queue, ...] = Field(min_length=1)
    variables: dict[str, JsonValue] = Field(default_factory=dict)
