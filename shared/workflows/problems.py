"""What can be wrong with a workflow, how it is said, and what a workflow may name."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final, Protocol

from pydantic import JsonValue

from shared.contracts.workflow import Queue

_SHOWN: Final = 20
_SHOWN_CHARS: Final = 80


class Blueprint(Protocol):
    """A template, as far as a task that stands for it needs to know it."""

    @property
    def workflow(self) -> tuple[Queue, ...]: ...

    def bound(self, given: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Return its variables: what is given, then the defaults."""
        ...

    def problems(self, given: Mapping[str, JsonValue]) -> Iterator[tuple[str, str]]:
        """Yield (name, what is wrong) for every value that is missing, of the wrong type or unknown."""
        ...


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What a workflow may name, and how large it may be."""

    models: frozenset[str]
    addons: frozenset[str]
    max_tasks: int = 500
    max_depth: int = 2
    """Of workflows within a workflow's tasks."""
    max_fan_out: int = 1_000
    """Items of one `for_each`."""
    max_s: float = 86_400
    """Of any time that a task names."""
    templates: Mapping[str, Blueprint] = field(default_factory=dict)
    """Those that its tasks stand for: see `templates_named`."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `path` is a JSON path from the document's root, `code` is stable."""

    path: str
    code: str
    message: str


def templates_named(document: object) -> frozenset[str]:
    """Return the templates that a document's tasks stand for, whatever else is wrong with it."""
    found: set[str] = set()
    waiting = [document]
    while waiting:
        match waiting.pop():
            case {"template": str() as name, **rest}:
                found.add(name)
                waiting += rest.values()
            case dict() as fields:
                waiting += fields.values()
            case list() | tuple() as items:
                waiting += items
    return frozenset(found)


def templates_in(queues: Sequence[Queue]) -> frozenset[str]:
    """Return the templates that a workflow's tasks stand for and that are not put in yet."""
    tasks = [task for queue in queues for task in queue.tasks]
    inner = (templates_in(task.workflow) for task in tasks if task.workflow is not None)
    named = frozenset(task.template for task in tasks if task.template is not None and task.workflow is None)
    return named.union(*inner)


def roles_of(queues: Sequence[Queue]) -> frozenset[str]:
    """Return the roles that a workflow's tasks name, those of workflows inside it too."""
    tasks = [task for queue in queues for task in queue.tasks]
    inner = (roles_of(task.workflow) for task in tasks if task.workflow is not None)
    return frozenset(task.model for task in tasks if task.model is not None).union(*inner)


def json_path(location: Sequence[int | str]) -> str:
    """Return pydantic's location as a JSON path (RFC 9535)."""
    return "$" + "".join(_path_part(part) for part in location)


def _path_part(part: int | str) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    if re.fullmatch(r"[^\W\d]\w*", part):
        return f".{shown(part)}"
    escaped = shown(part).replace("\\", "\\\\").replace("'", "\\'")
    return f"['{escaped}']"


def bad_name(where: str, name: str) -> Problem:
    return Problem(where, "bad_name", f"{shown(name)!r} is not a name: A-Z, a-z, digits and _, no digit first")


def taken(where: str, name: str, task: str) -> Problem:
    message = f"{name!r} is the name of the output of {task}, which has no output_variable: choose another"
    return Problem(where, "duplicate_name", message)


def unknown(what: str, name: str, known: Collection[str]) -> str:
    return f"unknown {what} {shown(name)!r}; {hint(name, known)}"


def hint(name: str, known: Collection[str]) -> str:
    close = get_close_matches(name, known, n=1) if len(name) <= _SHOWN_CHARS else []
    listed = sorted(known)
    some = ", ".join(map(shown, listed[:_SHOWN])) + (", …" if len(listed) > _SHOWN else "")
    return (f"did you mean {close[0]!r}? " if close else "") + f"known: {some or 'none'}"


def shown(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
