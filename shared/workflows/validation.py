"""The one validator of workflows: for a model's plan, a template, a caller's own workflow.

It is the boundary against a model-written plan: whatever passes may run. It lists every problem, each with
a stable code and the JSON path of what is wrong.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from typing import Final

from pydantic import ValidationError

from shared.contracts.workflow import Workflow
from shared.workflows.meaning import inlined, problems_of
from shared.workflows.problems import Catalogue, Problem, json_path, templates_named

MAX_DEPTH: Final = 64
"""Of values within values: what readers on the bus take is not much more than twice of it."""
MAX_PROBLEMS: Final = 200

__all__ = ["Catalogue", "Invalid", "Problem", "Valid", "checked", "json_path", "templates_named", "validate"]


@dataclass(frozen=True, slots=True)
class Valid:
    workflow: Workflow


@dataclass(frozen=True, slots=True)
class Invalid:
    problems: tuple[Problem, ...]

    def __str__(self) -> str:
        return "; ".join(f"{problem.path}: {problem.message}" for problem in self.problems)


def validate(document: object, catalogue: Catalogue) -> Valid | Invalid:
    """Check a workflow document (`{"workflow": [...], "variables": {...}}`) and return it typed, or its problems."""
    if problems := _listed(_unfit(document, (), MAX_DEPTH)):
        return Invalid(problems)  # no JSON: nothing more can be said of it
    try:
        workflow = Workflow.model_validate(document)
    except ValidationError as error:
        return Invalid(_listed(_shape_problems(error)))
    return checked(workflow, catalogue)


def checked(workflow: Workflow, catalogue: Catalogue) -> Valid | Invalid:
    """Check a workflow that has the right shape, and return it with its templates put in, or its problems."""
    problems = _listed(problems_of(workflow, catalogue))
    return Invalid(problems) if problems else Valid(inlined(workflow, catalogue))


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
