"""`workflow_templates`: workflows with parameters that callers fill in."""

import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from shared.config.section import Section
from shared.contracts.workflow import Queue
from shared.workflows.substitution import references

ParameterType = Literal["string", "number", "integer", "boolean", "array", "object"]


class Parameter(Section):
    """One value that a caller gives to a template."""

    type: ParameterType = Field(default="string", description="The JSON type of the value.")
    description: str = Field(default="", description="What the value is, for whoever fills it in.")
    default: JsonValue = Field(
        default=None, description="What stands for it when it is not given; absent: it must be given."
    )
    choices: tuple[JsonValue, ...] = Field(
        default=(), description="The values that are allowed; empty: any of the type."
    )

    @model_validator(mode="after")
    def _default_fits(self) -> Self:
        wrong = None if self.required else self.problem(self.default)
        if wrong is not None:
            raise ValueError(f"a default that {wrong}")
        return self

    @property
    def required(self) -> bool:
        """Whether a caller must give it."""
        return "default" not in self.model_fields_set

    def problem(self, value: JsonValue) -> str | None:
        """Return what is wrong with a value, None when nothing is."""
        if not fits(value, self.type):
            return f"is of type {self.type}"
        if self.choices and value not in self.choices:
            return f"is one of {', '.join(map(str, self.choices))}"
        return None


def fits(value: JsonValue, kind: ParameterType) -> bool:
    """Return whether a value is of a JSON type."""
    match kind:
        case "string":
            return isinstance(value, str)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)


def type_of(value: JsonValue) -> ParameterType:
    """Return the JSON type of a value; text for null."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, list):
        return "array"
    return "object" if isinstance(value, dict) else "string"


class Template(Section):
    """A workflow that is run by name."""

    description: str = Field(default="", description="What it makes, in words.")
    workflow: tuple[Queue, ...] = Field(min_length=1, description="The queues, as in a custom workflow.")
    variables: Mapping[str, Parameter] = Field(
        default_factory=dict,
        description="The parameters by name. Without this key every name that no task puts out is a required text.",
    )

    @property
    def steps(self) -> int:
        """How many tasks it has."""
        return sum(len(queue.tasks) for queue in self.workflow)

    def bound(self, given: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Return the workflow's variables: what is given, then the defaults. Call `problems` first."""
        defaults = {name: one.default for name, one in self.variables.items() if not one.required}
        return {**defaults, **given}

    def problems(self, given: Mapping[str, JsonValue]) -> Iterator[tuple[str, str]]:
        """Yield (name, what is wrong) for every value that is missing, of the wrong type or not of this template."""
        for name, parameter in self.variables.items():
            if name in given:
                wrong = parameter.problem(given[name])
                if wrong is not None:
                    yield name, f"must be a value that {wrong}"
            elif parameter.required:
                yield name, f"is required: {parameter.description}" if parameter.description else "is required"
        for name in given:
            close = get_close_matches(name, self.variables.keys() - given.keys(), n=1, cutoff=0.8)
            if name not in self.variables and close:
                yield name, f"is not a variable of this template; did you mean {close[0]!r}?"

    @classmethod
    def read(cls, document: JsonValue) -> Self:
        """Return a template as people write it. Raises `ValidationError`."""
        return cls.model_validate_json(json.dumps(cls.shaped(document)))

    @classmethod
    def shaped(cls, value: JsonValue) -> JsonValue:
        """Read `parameters` for `variables`, a whole workflow document for its queues, bare values for parameters.

        Where the template declares nothing, every name that no task puts out is a required text.
        """
        if not isinstance(value, dict):
            return value
        read = {key: one for key, one in value.items() if key != "parameters"}
        declared = value.get("variables", value.get("parameters"))
        inner: JsonValue = None
        if isinstance(value.get("workflow"), dict):
            document: dict[str, JsonValue] = value["workflow"]  # type: ignore[assignment]  # checked just before
            inner = document.get("variables")
            read["workflow"] = document.get("workflow")
        if declared:
            read["variables"] = _parameters(declared)
        else:
            implied: dict[str, JsonValue] = {name: {} for name in _implied(read.get("workflow"))}
            own = _parameters(inner or {})
            read["variables"] = {**implied, **own} if isinstance(own, dict) else own
        return read


def _implied(workflow: JsonValue) -> Iterator[str]:
    """Yield the names that tasks refer to and none puts out."""
    tasks = [
        task
        for queue in (workflow if isinstance(workflow, list) else [])
        for task in _listed(queue, "tasks")
        if isinstance(task, dict)
    ]
    outputs = {str(task.get("output_variable")) for task in tasks}
    for task in tasks:
        for text in (task.get("prompt"), task.get("input_image")):
            if isinstance(text, str):
                yield from (name for name in references(text) if name not in outputs)


def _listed(value: JsonValue, key: str) -> list[JsonValue]:
    inner = value.get(key) if isinstance(value, dict) else None
    return inner if isinstance(inner, list) else []


def _parameters(declared: JsonValue) -> JsonValue:
    if isinstance(declared, list):
        return {name: {} for name in declared if isinstance(name, str)}
    if isinstance(declared, dict):
        return {name: _parameter(one) for name, one in declared.items()}
    return declared


def _parameter(value: JsonValue) -> JsonValue:
    if isinstance(value, dict) and (not value or value.keys() & {*Parameter.model_fields, "required"}):
        required = value.get("required")
        read = {key: one for key, one in value.items() if key != "required"}
        if required is False and "default" not in read:
            read["default"] = ""
        return read
    return {"type": type_of(value), "default": value}
