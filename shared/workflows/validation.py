"""The one validator of workflows: for a model's plan, a template, a caller's own workflow.

It is the boundary against a model-written plan: whatever passes may run. It lists every problem, each with
a stable code and the JSON path of what is wrong.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from pydantic import ValidationError

from shared.contracts.workflow import Queue, Task, Workflow
from shared.workflows.substitution import NAME, references


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
    producers: Mapping[str, str] = field(default_factory=dict)


def validate(document: object, catalogue: Catalogue) -> Valid | Invalid:
    """Check a workflow document (`{"workflow": [...], "variables": {...}}`) and return it typed, or its problems."""
    try:
        workflow = Workflow.model_validate(document)
    except ValidationError as error:
        return Invalid(tuple(_shape_problems(error)))
    problems = tuple(_meaning_problems(workflow, catalogue))
    return Invalid(problems) if problems else Valid(workflow)


def _shape_problems(error: ValidationError) -> Iterator[Problem]:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    for item in found:
        if item["type"] == "too_short" and any(_is_inside(other["loc"], item["loc"]) for other in found):
            continue  # pydantic leaves items that are wrong uncounted, and then misses them
        yield Problem(json_path(item["loc"]), str(item["type"]), item["msg"])


def _is_inside(location: Sequence[int | str], other: Sequence[int | str]) -> bool:
    return len(location) > len(other) and location[: len(other)] == other


def json_path(location: Sequence[int | str]) -> str:
    """Return pydantic's location as a JSON path."""
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)


def _meaning_problems(workflow: Workflow, catalogue: Catalogue) -> Iterator[Problem]:
    count = sum(len(queue.tasks) for queue in workflow.workflow)
    if count > catalogue.max_tasks:
        yield Problem("$.workflow", "too_many_tasks", f"{count} tasks; at most {catalogue.max_tasks} are allowed")
    for name in workflow.variables:
        if not NAME.fullmatch(name):
            yield Problem(f"$.variables.{name}", "bad_name", f"{name!r} is not a name: letters, digits and _ only")
    producers = _producers(workflow)
    names = _Names(set(workflow.variables), producers)
    for index, queue in enumerate(workflow.workflow):
        yield from _queue_problems(index, queue, names, catalogue)


def _producers(workflow: Workflow) -> Mapping[str, str]:
    return {
        task.output_variable: task_path(q, t)
        for q, queue in enumerate(workflow.workflow)
        for t, task in enumerate(queue.tasks)
        if task.output_variable is not None
    }


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
        if not NAME.fullmatch(output):
            yield Problem(
                f"{path}.output_variable", "bad_name", f"{output!r} is not a name: letters, digits and _ only"
            )
        elif output in names.known or output in added:
            yield Problem(f"{path}.output_variable", "duplicate_name", f"{output!r} is already a variable or an output")
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
    known = ", ".join(sorted(names.known)) or "none"
    return Problem(where, "undefined_variable", f"{{{name}}} is not defined; known here: {known}")


def _unknown(what: str, name: str, known: frozenset[str]) -> str:
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    listed = sorted(known)
    shown = ", ".join(listed[:20]) + (", …" if len(listed) > 20 else "")
    return f"unknown {what} {name!r}; {hint}known: {shown}"
