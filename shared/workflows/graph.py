"""A workflow as a graph: every task with what has to be over before it starts. Pure, and the same everywhere.

A task's name is its call's: `<queue>-<place>`, inside another task `<that one's name>_<queue>-<place>`; an item of
`for_each` is `<name>_<place>`, the call that repairs an output `<name>_r`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from pydantic import JsonValue

from shared.contracts.workflow import Queue, Task, Workflow
from shared.workflows.conditions import names_in
from shared.workflows.substitution import heads, references

REPAIR = "_r"


class Kind(StrEnum):
    """What a task is done by."""

    CALL = "call"
    FAN = "fan"
    """A call for every item of a list."""
    GROUP = "group"
    """Tasks of its own."""
    EXPANSION = "expansion"
    """A call whose answer is a workflow, then that one's tasks."""
    APPROVAL = "approval"
    """Nothing but a person's word."""


@dataclass(frozen=True, slots=True)
class Node:
    """A task at its place."""

    name: str
    output: str
    """The name that its output goes by."""
    task: Task
    kind: Kind
    scope: str
    """The name of the task that it is a part of; empty for the workflow's own."""
    place: int
    """Among its scope's tasks, in the order in which they are written."""
    barrier: int
    """So many of its scope's first tasks must be over before it."""
    needs: tuple[str, ...]
    """Tasks of its scope, by name, that must be over too."""
    queue: int

    def item(self, place: int) -> str:
        """Return the name of an item's call."""
        return f"{self.name}_{place}"


@dataclass(frozen=True, slots=True)
class Scope:
    """Tasks that know each other's outputs."""

    name: str
    variables: Mapping[str, JsonValue]
    nodes: tuple[Node, ...]
    producers: Mapping[str, str]
    """Tasks' names by their outputs."""


@dataclass(frozen=True)
class Graph:
    """Every scope of a workflow, the outermost first."""

    scopes: Mapping[str, Scope]
    expanded: Mapping[str, Workflow] = field(default_factory=dict)

    @cached_property
    def nodes(self) -> Mapping[str, Node]:
        return {node.name: node for scope in self.scopes.values() for node in scope.nodes}

    @property
    def root(self) -> Scope:
        return self.scopes[""]

    def children(self, node: Node) -> Sequence[Node]:
        """Return the tasks that a task stands for, where it does and they are known."""
        scope = self.scopes.get(node.name)
        return scope.nodes if scope is not None else ()

    def last(self, node: Node) -> Node:
        """Return the task whose output is that of the workflow that a task stands for."""
        return self.scopes[node.name].nodes[-1]


@dataclass(frozen=True, slots=True)
class Place:
    """What a call's name says."""

    node: Node
    item: int | None = None
    repair: bool = False


def located(graph: Graph, call: str) -> Place | None:
    """Return which task a call belongs to; None for a name that the workflow does not have."""
    base = call.removesuffix(REPAIR)
    repair = base != call
    node = graph.nodes.get(base)
    if node is not None:
        return Place(node, repair=repair)
    name, _, item = base.rpartition("_")
    node = graph.nodes.get(name)
    if node is None or node.kind is not Kind.FAN or not (item.isascii() and item.isdigit()):
        return None
    return Place(node, int(item), repair)


def compiled(workflow: Workflow, expanded: Mapping[str, Workflow] | None = None) -> Graph:
    """Return a valid workflow's graph. `expanded`: what tasks with `expand` have become so far, by their names."""
    known = dict(expanded or {})
    scopes: dict[str, Scope] = {}
    _add(scopes, "", workflow.workflow, workflow.variables, known)
    return Graph(scopes, known)


def unnamed_output(queue: int, task: int) -> str:
    """Return the name that a task's output goes by in the result when the task gives it none."""
    return f"task_{queue + 1}_{task + 1}"


def named(task: Task, queue: int, place: int) -> str:
    """Return the name that a task's output goes by."""
    return task.output_variable if task.output_variable is not None else unnamed_output(queue, place)


def kind_of(task: Task) -> Kind:
    """Return what a task is done by."""
    if task.workflow is not None or task.template is not None:
        return Kind.GROUP
    if task.expand:
        return Kind.EXPANSION
    if task.model is None:
        return Kind.APPROVAL
    return Kind.FAN if task.for_each is not None else Kind.CALL


def _add(
    scopes: dict[str, Scope],
    name: str,
    queues: Sequence[Queue],
    variables: Mapping[str, JsonValue],
    expanded: Mapping[str, Workflow],
) -> None:
    prefix = f"{name}_" if name else ""
    places = [(q, t, task) for q, queue in enumerate(queues) for t, task in enumerate(queue.tasks)]
    producers = {named(task, q, t): f"{prefix}{q}-{t}" for q, t, task in places}
    nodes = tuple(_nodes(name, prefix, queues, producers))
    scopes[name] = Scope(name, variables, nodes, producers)
    for node in nodes:
        if node.task.workflow is not None:
            _add(scopes, node.name, node.task.workflow, node.task.variables, expanded)
        elif (written := expanded.get(node.name)) is not None:
            _add(scopes, node.name, written.workflow, written.variables, expanded)


def _nodes(scope: str, prefix: str, queues: Sequence[Queue], producers: Mapping[str, str]) -> Iterator[Node]:
    place = 0
    for q, queue in enumerate(queues):
        before = place
        for t, task in enumerate(queue.tasks):
            name = f"{prefix}{q}-{t}"
            wanted = (producers[one] for one in wanted_by(task, producers) if one in producers)
            yield Node(
                name=name,
                output=named(task, q, t),
                task=task,
                kind=kind_of(task),
                scope=scope,
                place=place,
                barrier=place if queue.type == "inline" else before,
                needs=tuple(dict.fromkeys(one for one in wanted if one != name)) if queue.type == "graph" else (),
                queue=q,
            )
            place += 1


def texts_of(task: Task) -> tuple[str, ...]:
    """Return the texts of a task in which references stand."""
    inner = (value for value in task.variables.values() if isinstance(value, str))
    approve = (task.approve.message,) if task.approve is not None else ()
    items = (task.for_each.items,) if task.for_each is not None else ()
    return (task.prompt, task.input_image or "", *items, *approve, *inner)


def own_names(task: Task) -> frozenset[str]:
    """Return the names that a task knows by itself: the item and its place."""
    return frozenset({task.for_each.item, "index"}) if task.for_each is not None else frozenset()


def referred_by(task: Task, known: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names that a task's values come from, in the order in which they stand."""
    own = own_names(task)
    found: list[str] = []
    for text in texts_of(task):
        found += references(text)
        found += heads(text, known)
    if task.when is not None:
        found += names_in(task.when)
    return tuple(dict.fromkeys(name for name in found if name not in own))


def wanted_by(task: Task, known: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names of whatever must be there before a task starts."""
    return tuple(dict.fromkeys((*task.needs, *referred_by(task, known))))


def edges(scope: Scope) -> Iterator[tuple[str, str]]:
    """Yield (earlier, later) for showing: what a task refers to, else all of the queue before."""
    by_queue: dict[int, list[Node]] = {}
    for node in scope.nodes:
        by_queue.setdefault(node.queue, []).append(node)
    for node in scope.nodes:
        earlier = {one.name for one in scope.nodes[: node.barrier]} | set(node.needs)
        wanted = [scope.producers[one] for one in wanted_by(node.task, scope.producers) if one in scope.producers]
        direct = [one for one in dict.fromkeys(wanted) if one in earlier]
        if not direct and node.barrier:
            inline = node.barrier == node.place
            direct = [scope.nodes[node.place - 1].name] if inline else [one.name for one in by_queue[node.queue - 1]]
        for one in direct:
            yield one, node.name


def after(graph: Graph, starts: Sequence[str]) -> frozenset[str]:
    """Return the tasks of the outermost scope that follow from `starts` (names), those included."""
    again: set[str] = set(starts)
    grown = True
    while grown:  # a graph queue's tasks stand in any order
        grown = False
        for node in graph.root.nodes:
            if node.name in again:
                continue
            wanted = (graph.root.producers.get(one) for one in wanted_by(node.task, graph.root.producers))
            if any(one in again for one in (*node.needs, *wanted)):
                again.add(node.name)
                grown = True
    return frozenset(again)
