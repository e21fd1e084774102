"""The one validator of workflows: for a model's plan, a template, a caller's own workflow.

It is the boundary against a model-written plan: whatever passes may run. It lists every problem, each with
a stable code and the JSON path of what is wrong.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from math import isfinite
from typing import Final

from pydantic import ValidationError

from shared.contracts.workflow import Queue, Task, Workflow
from shared.workflows.substitution import NAME, references

MAX_DEPTH: Final = 64
"""Of values within values: what readers on the bus take is not much more than twice of it."""
MAX_PROBLEMS: Final = 200
_SHOWN: Final = 20
_SHOWN_CHARS: Final = 80


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What a workflow may name, and how large it may be."""

    models: frozenset[str]
    addons: frozenset[str]
    max_tasks: int = 500


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `path` is a JSON path from the document's root."""

    path: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Valid:
    workflow: Workflow


@dataclass(frozen=True, slots=True)
class Invalid:
    problems: tuple[Problem, ...]

    def __str__(self) -> str:
        return "; ".join(f"{problem.path}: {problem.message}" for problem in self.problems)


@dataclass(slots=True)
class _Names:
    """What a task may refer to, as the walk goes on."""

    known: set[str]
    producers: Mapping[str, str]
    reserved: Mapping[str, str]
    """The names under which outputs that have none of their own appear in the result, and whose they are."""


def validate(document: object, catalogue: Catalogue) -> Valid | Invalid:
    """Check a workflow document (`{"workflow": [...], "variables": {...}}`) and return it typed, or its problems."""
    if problems := _listed(_unfit(document, (), MAX_DEPTH)):
        return Invalid(problems)  # no JSON: nothing more can be said of it
    try:
        workflow = Workflow.model_validate(document)
    except ValidationError as error:
        return Invalid(_listed(_shape_problems(error)))
    problems = _listed(_meaning_problems(workflow, catalogue))
    return Invalid(problems) if problems else Valid(workflow)


def _listed(problems: Iterator[Problem]) -> tuple[Problem, ...]:
    """Return every problem, up to what a person would still read."""
    listed = tuple(islice(problems, MAX_PROBLEMS))
    more = sum(1 for _ in problems)
    return (*listed, Problem("$", "more_problems", f"and {more:,} more problems")) if more else listed


def _unfit(value: object, location: tuple[int | str, ...], depth: int) -> Iterator[Problem]:
    """Yield what Python takes for JSON and JSON does not know, or nobody on the bus would read."""
    match value:
        case str() if not _is_text(value):
            yield Problem(json_path(location), "not_text", "holds half of a character (a lone surrogate)")
        case float() if not isfinite(value):
            yield Problem(json_path(location), "not_finite", f"{value} is not a number that JSON knows")
        case dict() | list() if depth == 0:
            yield Problem(json_path(location), "too_deep", f"values within values, more than {MAX_DEPTH} deep")
        case dict():
            for key, inner in value.items():
                if isinstance(key, str) and not _is_text(key):
                    yield Problem(json_path(location), "not_text", "a key holds half of a character (a lone surrogate)")
                else:
                    yield from _unfit(inner, (*location, str(key)), depth - 1)
        case list():
            for index, inner in enumerate(value):
                yield from _unfit(inner, (*location, index), depth - 1)


def _is_text(value: str) -> bool:
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _shape_problems(error: ValidationError) -> Iterator[Problem]:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    around = {item["loc"][:length] for item in found for length in range(len(item["loc"]))}
    for item in found:
        if item["type"] == "too_short" and item["loc"] in around:
            continue  # pydantic leaves items that are wrong uncounted, and then misses them
        yield Problem(json_path(item["loc"]), str(item["type"]), item["msg"])


def json_path(location: Sequence[int | str]) -> str:
    """Return pydantic's location as a JSON path (RFC 9535)."""
    return "$" + "".join(_path_part(part) for part in location)


def _path_part(part: int | str) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    if re.fullmatch(r"[^\W\d]\w*", part):
        return f".{_shown(part)}"
    escaped = _shown(part).replace("\\", "\\\\").replace("'", "\\'")
    return f"['{escaped}']"


def _meaning_problems(workflow: Workflow, catalogue: Catalogue) -> Iterator[Problem]:
    count = sum(len(queue.tasks) for queue in workflow.workflow)
    if count > catalogue.max_tasks:
        yield Problem("$.workflow", "too_many_tasks", f"{count} tasks; at most {catalogue.max_tasks} are allowed")
    reserved = _reserved(workflow)
    for name in workflow.variables:
        path = json_path(("variables", name))
        if not NAME.fullmatch(name):
            yield _bad_name(path, name)
        elif name in reserved:
            yield _taken(path, name, reserved[name])
    names = _Names(set(workflow.variables), _producers(workflow), reserved)
    for index, queue in enumerate(workflow.workflow):
        yield from _queue_problems(index, queue, names, catalogue)


def _producers(workflow: Workflow) -> Mapping[str, str]:
    return {
        task.output_variable: task_path(q, t)
        for q, queue in enumerate(workflow.workflow)
        for t, task in enumerate(queue.tasks)
        if task.output_variable is not None
    }


def _reserved(workflow: Workflow) -> Mapping[str, str]:
    return {
        unnamed_output(q, t): task_path(q, t)
        for q, queue in enumerate(workflow.workflow)
        for t, task in enumerate(queue.tasks)
        if task.output_variable is None
    }


def unnamed_output(queue: int, task: int) -> str:
    """Return the name that a task's output goes by in the result when the task gives it none."""
    return f"task_{queue + 1}_{task + 1}"


def task_path(queue: int, task: int) -> str:
    return f"$.workflow[{queue}].tasks[{task}]"


def _queue_problems(index: int, queue: Queue, names: _Names, catalogue: Catalogue) -> Iterator[Problem]:
    added: list[str] = []
    for place, task in enumerate(queue.tasks):
        path = task_path(index, place)
        yield from _task_problems(path, task, names, catalogue)
        output = task.output_variable
        if output is None:
            continue
        where = f"{path}.output_variable"
        if not NAME.fullmatch(output):
            yield _bad_name(where, output)
        elif output in names.known or output in added:
            yield Problem(where, "duplicate_name", f"{_shown(output)!r} is already a variable or an output")
        elif output in names.reserved:
            yield _taken(where, output, names.reserved[output])
        elif queue.type == "inline":
            names.known.add(output)
        else:
            added.append(output)
    names.known.update(added)


def _task_problems(path: str, task: Task, names: _Names, catalogue: Catalogue) -> Iterator[Problem]:
    if task.model not in catalogue.models:
        yield Problem(f"{path}.model", "unknown_model", _unknown("model", task.model, catalogue.models))
    for place, addon in enumerate(task.config.addons):
        if addon not in catalogue.addons:
            yield Problem(f"{path}.config.addons[{place}]", "unknown_addon", _unknown("addon", addon, catalogue.addons))
    if not task.prompt.strip():
        yield Problem(f"{path}.prompt", "empty_prompt", "the prompt is empty")
    for key, text in (("prompt", task.prompt), ("input_image", task.input_image or "")):
        for name in references(text):
            if name not in names.known:
                yield _dangling(f"{path}.{key}", path, name, task, names)


def _dangling(where: str, path: str, name: str, task: Task, names: _Names) -> Problem:
    producer = names.producers.get(name)
    if name == task.output_variable or producer == path:
        return Problem(where, "circular_variable", f"{{{name}}} is this task's own output")
    if producer is not None:
        return Problem(
            where,
            "circular_variable",
            f"{{{name}}} is the output of {producer}, which has not run when this task starts",
        )
    return Problem(where, "undefined_variable", f"{{{_shown(name)}}} is not defined; {_hint(name, names.known)}")


def _bad_name(where: str, name: str) -> Problem:
    return Problem(where, "bad_name", f"{_shown(name)!r} is not a name: A-Z, a-z, digits and _, no digit first")


def _taken(where: str, name: str, task: str) -> Problem:
    message = f"{name!r} is the name of the output of {task}, which has no output_variable: choose another"
    return Problem(where, "duplicate_name", message)


def _unknown(what: str, name: str, known: Collection[str]) -> str:
    return f"unknown {what} {_shown(name)!r}; {_hint(name, known)}"


def _hint(name: str, known: Collection[str]) -> str:
    close = get_close_matches(name, known, n=1) if len(name) <= _SHOWN_CHARS else []
    listed = sorted(known)
    shown = ", ".join(map(_shown, listed[:_SHOWN])) + (", …" if len(listed) > _SHOWN else "")
    return (f"did you mean {close[0]!r}? " if close else "") + f"known: {shown or 'none'}"


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
