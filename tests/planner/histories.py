"""Random workflows, and the random histories that they may have: what the planner does, without any bus."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from services.planner import advance
from services.planner.advance import Bounds, Due, Outcome
from shared.contracts.events import Progress
from shared.contracts.workflow import Workflow
from shared.workflows.graph import Graph, Kind, Node
from shared.workflows.outputs import OVER, State, Values
from shared.workflows.validation import Catalogue, Valid, validate

CATALOGUE = Catalogue(frozenset({"m"}), frozenset())
BOUNDS = Bounds(max_fan_out=20)
LISTS: dict[str, Any] = {"none": [], "one": [1], "three": [1, 2, 3], "six": [1, 2, 3, 4, 5, 6], "text": "no list"}
TRUTHS: dict[str, Any] = {"yes": True, "no": False}

NAMED: dict[str, Any] = {**LISTS, **TRUTHS}


@st.composite
def tasks(draw: st.DrawFn, known: list[str], beside: list[str], name: str, depth: int) -> dict[str, Any]:
    """Return a task that may refer to what is known, and wait for what stands beside it."""
    kinds = ["call", "call", "call", "fan", "approval", "gated", "schema"] + (["group"] if depth else [])
    kind = draw(st.sampled_from(kinds))
    task: dict[str, Any] = {
        "output_variable": name,
        "on_error": draw(st.sampled_from(["fail", "continue", "substitute"])),
    }
    if task["on_error"] == "substitute":
        task["substitute"] = "instead"
    refers = draw(st.lists(st.sampled_from(known), max_size=2)) if known else []
    if beside:
        task["needs"] = draw(st.lists(st.sampled_from(beside), max_size=2, unique=True))
    if draw(st.integers(0, 4)) == 0:
        task["when"] = draw(st.sampled_from(list(TRUTHS)))
    prompt = "do " + " ".join(f"{{{one}}}" for one in refers)
    match kind:
        case "approval":
            task["approve"] = {"message": prompt}
        case "group":
            task["workflow"] = draw(queues(depth - 1))
        case _:
            task |= {"model": "m", "prompt": prompt}
    if kind == "gated":
        task["approve"] = True
    if kind == "schema":
        task["output_schema"] = {"type": "integer"}
    if kind == "fan":
        task["for_each"] = {"items": f"{{{draw(st.sampled_from(list(LISTS)))}}}"}
        if draw(st.booleans()):
            task["for_each"]["concurrency"] = draw(st.integers(1, 3))
    return task


@st.composite
def queues(draw: st.DrawFn, depth: int = 1) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    known: list[str] = []
    for q in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["linear", "inline", "graph"]))
        made: list[dict[str, Any]] = []
        names: list[str] = []
        for t in range(draw(st.integers(1, 4))):
            name = f"o{q}_{t}"
            made.append(draw(tasks(list(known), names if kind == "graph" else [], name, depth)))
            names.append(name)
            if kind == "inline":
                known.append(name)
        if kind == "graph" and draw(st.booleans()):
            made.reverse()  # a graph's tasks may stand in any order
        known += [name for name in names if name not in known]
        found.append({"type": kind, "tasks": made})
    return found


def _valid(document: list[dict[str, Any]]) -> Workflow:
    _with_truths(document)
    found = validate({"workflow": document, "variables": NAMED}, CATALOGUE)
    assert isinstance(found, Valid), found
    return found.workflow


def _with_truths(document: Iterable[dict[str, Any]]) -> None:
    """Give inner workflows the names that their tasks look at."""
    for queue in document:
        for task in queue["tasks"]:
            if "workflow" in task:
                task["variables"] = NAMED
                _with_truths(task["workflow"])


WORKFLOWS = queues().map(_valid)


@dataclass
class World:
    """The log and whoever settles calls: outcomes follow from a seed and the call's name, never from the order."""

    graph: Graph
    seed: int
    failing: float
    log: dict[str, Outcome] = field(default_factory=dict)
    decided: dict[str, bool] = field(default_factory=dict)

    def chance(self, name: str) -> float:
        return random.Random(f"{self.seed} {name}").random()

    def outcome(self, due: Due) -> Outcome:
        """Return what a call comes to. A fan's call without items is one whose list is none: it cannot be done."""
        chance = self.chance(due.name)
        if due.node.kind is Kind.FAN and due.item is None:
            return Outcome(due.name, False)
        fits = due.node.task.output_schema is None or self.chance(f"fits {due.name}") > self.failing
        return Outcome(due.name, chance > self.failing, fits, cost_usd=0.5)

    def approves(self, node: Node) -> bool:
        return self.chance(f"approve {node.name}") > self.failing

    def values(self) -> Values:
        return _Anything()


class _Anything(Values):
    """Every output is some text: nothing in these workflows decides upon one."""

    def __missing__(self, name: str) -> Any:
        return "some text"


@dataclass
class Planner:
    """One planner and its record, driven by hand."""

    world: World
    progress: Progress = field(default_factory=Progress)

    def go_on(self, approved: Iterable[str] = ()) -> None:
        self.progress = advance.flow(self.world.graph, self.progress, self.world.values(), BOUNDS, tuple(approved))
        if self.progress.rebuilt and not self.over:
            self._catch_up(tuple(approved))

    def _catch_up(self, approved: tuple[str, ...]) -> None:
        """As the runner does with a record that was made again: what is due and settled already is taken in."""
        for due in self.dues():
            node = due.node
            if (
                due.question
                and due.name not in approved
                and self.world.decided.get(node.name)
                and node.kind is not Kind.APPROVAL
            ):
                return self.go_on([*approved, node.name])
            if due.name in self.world.log:
                return self.take_in(self.world.log[due.name])
        return None

    def take_in(self, outcome: Outcome) -> None:
        self.progress = advance.settle(self.world.graph, self.progress, outcome)
        self.go_on()

    def decide(self, node: Node, approved: bool) -> None:
        """As the handlers do: a rejection, and the word of a task without a model, become the call's settlement."""
        if approved and node.kind is not Kind.APPROVAL:
            self.go_on([node.name])
        else:
            self.world.log[node.name] = Outcome(node.name, approved)
            self.take_in(self.world.log[node.name])

    def dues(self) -> tuple[Due, ...]:
        return advance.dues(self.world.graph, self.progress)

    @property
    def over(self) -> bool:
        return advance.is_over(self.world.graph, self.progress, BOUNDS)


def rebuilt(world: World) -> Planner:
    """Return a planner whose record was made again from the log alone."""
    planner = Planner(world, Progress(rebuilt=True))
    planner.go_on()
    return planner


def wanting(graph: Graph, progress: Progress, node: Node) -> list[str]:
    """Return what of a started task's conditions is not fulfilled: nothing, or the engine is wrong."""
    scope = graph.scopes[node.scope]
    before = [*(one.name for one in scope.nodes[: node.barrier]), *node.needs]
    wrong = [name for name in before if progress.states.get(name) not in OVER]
    if node.scope:
        parent = graph.nodes[node.scope]
        if progress.states.get(parent.name) not in {State.STARTED, State.EXPANDED}:
            wrong.append(f"its own task {parent.name} does not run")
    return wrong
