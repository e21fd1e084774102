"""What tasks put out, and what names stand for: from the letters of their states and the answers on the log. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Final

from pydantic import JsonValue

from shared.workflows.graph import REPAIR, Graph, Kind, Node, Scope
from shared.workflows.schemas import read_output
from shared.workflows.substitution import as_json, heads, references, substitute, value_at, whole


class State(StrEnum):
    """A task's, or an item's of a fan. One that has none waits."""

    WAITING = "w"
    STARTED = "s"
    ASKED = "a"
    """A person is asked."""
    REPAIRING = "r"
    """Its output was handed back with its errors."""
    EXPANDED = "e"
    """The workflow that its model wrote runs."""
    DONE = "d"
    REPAIRED = "p"
    """Done: its repaired output counts."""
    FAILED = "f"
    SKIPPED = "k"
    CONTINUED = "c"
    """Failed, and its output is empty."""
    SUBSTITUTED = "u"
    """Failed, and its output is the substitute."""


OVER: Final = frozenset("dpfkcu")
"""States that never change."""


class Missing(LookupError):
    """A value is needed that was not given: the output of the task `name`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Unfit(ValueError):
    """A task cannot be done with the values that it met."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Values(dict[str, JsonValue]):
    """Tasks' outputs by the tasks' names. Looking up one that is not there raises `Missing`."""

    def __init__(self) -> None:
        super().__init__()
        self.lists: dict[str, list[JsonValue]] = {}
        """Items of fans, by the tasks' names: read once, however many calls they become."""

    def __missing__(self, name: str) -> JsonValue:
        raise Missing(name)


def sources(graph: Graph, node: Node, states: Mapping[str, str], fans: Mapping[str, str]) -> Iterator[str]:
    """Yield the calls whose answers a task's output is made of."""
    match states.get(node.name):
        case State.REPAIRED if node.kind is not Kind.FAN:
            yield node.name + REPAIR
        case State.DONE:
            if node.kind is Kind.FAN:
                for place, letter in enumerate(fans.get(node.name, "")):
                    if letter in (State.DONE, State.REPAIRED):
                        yield node.item(place) + (REPAIR if letter == State.REPAIRED else "")
            elif graph.children(node):
                yield from sources(graph, graph.last(node), states, fans)
            else:
                yield node.name


def output(
    graph: Graph, node: Node, states: Mapping[str, str], fans: Mapping[str, str], answers: Mapping[str, str]
) -> JsonValue:
    """Return the output of a task that is over. `answers`: the texts of its `sources`, by call."""
    task = node.task
    match states.get(node.name):
        case State.SUBSTITUTED:
            return task.substitute
        case State.REPAIRED:
            return _read(node, answers[node.name + REPAIR])
        case State.DONE if node.kind is Kind.FAN:
            letters = enumerate(fans.get(node.name, ""))
            return [_item(node, place, letter, answers) for place, letter in letters]
        case State.DONE if graph.children(node):
            return output(graph, graph.last(node), states, fans, answers)
        case State.DONE:
            return _read(node, answers[node.name])
    return None


def _item(node: Node, place: int, letter: str, answers: Mapping[str, str]) -> JsonValue:
    match letter:
        case State.DONE:
            return _read(node, answers[node.item(place)])
        case State.REPAIRED:
            return _read(node, answers[node.item(place) + REPAIR])
        case State.SUBSTITUTED:
            return node.task.substitute
    return None


def _read(node: Node, text: str) -> JsonValue:
    return text if node.task.output_schema is None else read_output(text, node.task.output_schema)[0]


def environment(graph: Graph, scope: Scope, names: Iterable[str], values: Values) -> dict[str, JsonValue]:
    """Return what names stand for in a scope. Raises `Missing`; names that nobody knows are left out."""
    found: dict[str, JsonValue] = {}
    for name in names:
        if name in scope.producers:
            found[name] = values[scope.producers[name]]
        elif name in scope.variables:
            found[name] = _variable(graph, scope, name, values)
    return found


def _variable(graph: Graph, scope: Scope, name: str, values: Values) -> JsonValue:
    """Return a variable's value: in a task's own workflow a text may refer to what is known around the task."""
    raw = scope.variables[name]
    if not scope.name or not isinstance(raw, str) or graph.nodes[scope.name].task.workflow is None:
        return raw
    return filled(graph, graph.scopes[graph.nodes[scope.name].scope], raw, values)


def filled(graph: Graph, scope: Scope, text: str, values: Values) -> JsonValue:
    """Return a text with its references put in; the value itself where the text is one reference and nothing else."""
    names = (*references(text), *heads(text, {**scope.producers, **scope.variables}))
    known = environment(graph, scope, names, values)
    reference = whole(text)
    if reference is not None:
        try:
            return value_at(reference, known)
        except KeyError:
            return text
    return substitute(text, known)


def items_of(graph: Graph, node: Node, values: Values, most: int) -> list[JsonValue]:
    """Return the items of a task with `for_each`. Raises `Missing`, or `Unfit` for what is no list or too long."""
    assert node.task.for_each is not None
    if (read := values.lists.get(node.name)) is not None:
        return read
    written = node.task.for_each.items
    found = as_json(filled(graph, graph.scopes[node.scope], written, values))
    if not isinstance(found, list):
        raise Unfit("not_a_list", f"for_each: {written} is no list, and no text that is a JSON list: {found!r:.120}")
    if len(found) > most:
        raise Unfit("too_many_items", f"for_each: {written} has {len(found)} items; at most {most} are allowed")
    values.lists[node.name] = found
    return found
