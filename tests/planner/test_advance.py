"""How a workflow goes on: whatever the order, the repetitions and the losses, it ends, and in the same way."""

import os
import random
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from services.planner import advance
from services.planner.advance import Bounds, NoSuchTask, Outcome
from shared.contracts.events import Progress
from shared.contracts.workflow import Workflow
from shared.workflows.graph import Kind, compiled
from shared.workflows.outputs import OVER, State, Values
from tests.planner.histories import BOUNDS, WORKFLOWS, Planner, World, rebuilt, wanting

HISTORIES = int(os.environ.get("SEGUE_TEST_HISTORIES", "150"))
"""Of each property: ten thousand take some minutes."""
many = settings(deadline=None, max_examples=HISTORIES, phases=(Phase.explicit, Phase.reuse, Phase.generate))


def run_through(planner: Planner, chance: random.Random, *, disturbed: bool) -> list[str]:
    """Drive a planner to the run's end, in any order. Returns the calls that were settled, in theirs."""
    world, order = planner.world, list[str]()
    planner.go_on()
    for _ in range(2_000):
        before = planner.progress
        if planner.over:
            return order
        dues = list(planner.dues())
        assert dues, f"nothing is due and the run is not over: {before}"
        for due in dues:
            assert due.name not in world.log or due.question or due.name in world.decided, f"{due.name} is due again"
            if before.states.get(due.node.name) != State.EXPANDED:
                assert not wanting(world.graph, before, due.node), f"{due.name} is due too early"
        due = chance.choice(dues)
        if due.question:
            approved = world.decided.setdefault(due.node.name, world.approves(due.node))
            planner.decide(due.node, approved)
        else:
            world.log[due.name] = world.outcome(due)
            order.append(due.name)
            planner.take_in(world.log[due.name])
        if disturbed:
            _disturb(planner, chance)
    raise AssertionError(f"the run does not end: {planner.progress}")


def _disturb(planner: Planner, chance: random.Random) -> None:
    """Deliver something again, lose the record, or do nothing."""
    match chance.randrange(4):
        case 0 if planner.world.log:
            before = planner.progress
            planner.take_in(planner.world.log[chance.choice(sorted(planner.world.log))])
            assert planner.progress == before, "what was taken in before changes nothing"
        case 1:
            planner.progress = rebuilt(planner.world).progress


@many
@given(workflow=WORKFLOWS, seed=st.integers(0, 2**32), orders=st.integers(0, 2**32))
def test_any_order_of_what_succeeds_ends_in_the_same_states(workflow: Workflow, seed: int, orders: int) -> None:
    """Nothing fails for good here: two orders, one of them with repetitions and lost records, end alike."""
    graph = compiled(workflow)
    ends = []
    for disturbed in (False, True):
        planner = Planner(World(graph, seed, failing=0.0))
        run_through(planner, random.Random(f"{orders} {disturbed}"), disturbed=disturbed)
        ends.append((planner.progress.states, planner.progress.fans))
    failed = any(letter == State.FAILED for states, _ in ends for letter in states.values())
    assert failed or ends[0] == ends[1]  # only a list that is none fails, and what runs beside it depends on the order


@many
@given(workflow=WORKFLOWS, seed=st.integers(0, 2**32), orders=st.integers(0, 2**32))
def test_every_run_ends_whatever_fails(workflow: Workflow, seed: int, orders: int) -> None:
    """Whatever fails, in any order: the run ends, with the same outcome, and what was settled agrees."""
    graph = compiled(workflow)
    ended = []
    for attempt in range(2):
        world = World(graph, seed, failing=0.25)
        planner = Planner(world)
        run_through(planner, random.Random(f"{orders} {attempt}"), disturbed=bool(attempt))
        ended.append(planner.progress)
        assert not [due for due in planner.dues() if not due.question]
    agreed = ended[0].states.keys() & ended[1].states.keys()
    for name in agreed:
        letters = {one.states[name] for one in ended}
        assert len(letters & OVER) <= 1 or _in_doomed(name, ended), (name, letters)
    root = [node.name for node in graph.root.nodes]
    failed = [any(one.states.get(name) == State.FAILED for name in root) for one in ended]
    assert failed[0] == failed[1]


def _in_doomed(name: str, ended: list[Progress]) -> bool:
    """Whether a task's state may depend on the order: it holds others, and one of those failed beside running ones."""
    return any(name in one.fans or any(other.startswith(f"{name}_") for other in one.states) for one in ended)


@many
@given(workflow=WORKFLOWS, seed=st.integers(0, 2**32))
def test_the_record_can_be_made_again_from_the_log_at_any_moment(workflow: Workflow, seed: int) -> None:
    chance = random.Random(seed)
    world = World(compiled(workflow), seed, failing=0.0)
    planner = Planner(world)
    planner.go_on()
    while not planner.over and (dues := planner.dues()):
        due = chance.choice(dues)
        if due.question:
            planner.decide(due.node, world.decided.setdefault(due.node.name, world.approves(due.node)))
        else:
            world.log[due.name] = world.outcome(due)
            planner.take_in(world.log[due.name])
        again = rebuilt(world).progress
        if State.FAILED not in planner.progress.states.values():
            assert (again.states, again.fans) == (planner.progress.states, planner.progress.fans)


@many
@given(workflow=WORKFLOWS, seed=st.integers(0, 2**32))
def test_fans_keep_their_bound_and_records_are_small(workflow: Workflow, seed: int) -> None:
    world = World(compiled(workflow), seed, failing=0.0)
    planner = Planner(world)
    chance = random.Random(seed)
    planner.go_on()
    while not planner.over and (dues := planner.dues()):
        for node in world.graph.nodes.values():
            if node.kind is Kind.FAN and node.task.for_each is not None and node.task.for_each.concurrency:
                running = sum(letter in "sr" for letter in planner.progress.fans.get(node.name, ""))
                assert running <= node.task.for_each.concurrency
        due = chance.choice(dues)
        if due.question:
            planner.decide(due.node, True)
        else:
            world.log[due.name] = world.outcome(due)
            planner.take_in(world.log[due.name])
        items = sum(len(letters) for letters in planner.progress.fans.values())
        assert len(planner.progress.encode()) <= 100 + 64 * (len(world.graph.nodes) + items)


@many
@given(workflow=WORKFLOWS, seed=st.integers(0, 2**32))
def test_while_paused_nothing_new_is_started(workflow: Workflow, seed: int) -> None:
    world = World(compiled(workflow), seed, failing=0.0)
    planner = Planner(world)
    planner.go_on()
    planner.progress = advance.hold(planner.progress, 1, held=True)
    out = {(due.name, due.question) for due in planner.dues()}
    for due in planner.dues():
        if not due.question:
            planner.take_in(world.outcome(due))
    repairs = {(due.name, due.question) for due in planner.dues() if due.repair}
    assert {(due.name, due.question) for due in planner.dues()} <= out | repairs
    planner.progress = advance.hold(planner.progress, 2, held=False)
    planner.progress = advance.hold(planner.progress, 1, held=True)  # an old one changes nothing
    assert not planner.progress.held


def graph_of(*tasks: dict[str, Any], kind: str = "graph") -> Any:
    filled = [{"model": "m", "prompt": "p", **task} for task in tasks]
    return compiled(Workflow.model_validate({"workflow": [{"type": kind, "tasks": filled}]}))


def begun(graph: Any) -> Progress:
    return advance.flow(graph, Progress(), Values(), BOUNDS)


def names(graph: Any, progress: Progress) -> list[str]:
    return [due.name for due in advance.dues(graph, progress)]


@pytest.mark.parametrize(
    ("kind", "first"), [("linear", ["0-0", "0-1", "0-2"]), ("inline", ["0-0"]), ("graph", ["0-0", "0-2"])]
)
def test_what_a_queue_starts_with(kind: str, first: list[str]) -> None:
    graph = graph_of({"output_variable": "a"}, {"needs": ["a"]} if kind == "graph" else {}, {}, kind=kind)
    assert names(graph, begun(graph)) == first


def test_a_task_that_the_plan_does_not_have_is_refused() -> None:
    graph = graph_of({})
    for name in ("7-7", "0-0_1", "nonsense", ""):
        with pytest.raises(NoSuchTask):
            advance.settle(graph, begun(graph), Outcome(name, True))


def test_a_budget_that_is_spent_starts_nothing_more() -> None:
    graph = graph_of({}, {}, kind="inline")
    bounds = Bounds(max_cost_usd=1.0)
    progress = advance.settle(graph, begun(graph), Outcome("0-0", True, cost_usd=1.5))
    after = advance.flow(graph, progress, Values(), bounds)
    assert names(graph, after) == []
    assert advance.is_over(graph, after, bounds)
    assert not advance.is_over(graph, advance.flow(graph, progress, Values(), BOUNDS), BOUNDS)
