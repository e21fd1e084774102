"""What a workflow will probably take: the longest chain, every call's tokens and money, and what is only assumed."""

from typing import Any

import pytest
from hypothesis import given, settings

from shared.workflows.estimate import Estimate, Figures, estimate
from shared.workflows.graph import compiled
from shared.workflows.validation import Catalogue, Valid, validate
from tests.planner.histories import WORKFLOWS

FAST = Figures("maker/fast", 1.0, 100, 10, 0.001, 0.002, "measured")
SLOW = Figures("maker/slow", 10.0, 1000, 0, 0.0, 0.01, "measured")
FREE = Figures("local/own", 2.0, 50)
ROLES = {"fast": FAST, "slow": SLOW, "free": FREE}
CATALOGUE = Catalogue(frozenset(ROLES), frozenset())


def task(output: str, model: str = "fast", prompt: str = "do", **more: Any) -> dict[str, Any]:
    return {"model": model, "prompt": prompt, "output_variable": output, **more}


def found(*queues: tuple[str, list[dict[str, Any]]], **variables: Any) -> Estimate:
    document = {"workflow": [{"type": kind, "tasks": tasks} for kind, tasks in queues], "variables": variables}
    checked = validate(document, CATALOGUE)
    assert isinstance(checked, Valid), checked
    return estimate(compiled(checked.workflow), ROLES)


def test_side_by_side_takes_as_long_as_the_longest() -> None:
    both = found(("linear", [task("a"), task("b", "slow"), task("c")]))
    assert (both.seconds, both.path, both.calls) == (10.0, ("b",), 3)


def test_one_after_the_other_adds_up() -> None:
    both = found(("inline", [task("a"), task("b", "slow"), task("c")]))
    assert (both.seconds, both.path) == (12.0, ("a", "b", "c"))


def test_the_critical_path_of_a_graph_is_its_longest_chain_however_it_is_written() -> None:
    tasks = [
        task("end", prompt="{left} {right}"),
        task("left", prompt="{first}"),
        task("right", "slow", "{first}"),
        task("first"),
        task("aside", "slow"),
    ]
    graph = found(("graph", tasks))
    assert (graph.seconds, graph.path) == (12.0, ("first", "right", "end"))
    starts = {part.output: part.starts_s for part in graph.tasks}
    assert starts == {"first": 0.0, "aside": 0.0, "left": 1.0, "right": 1.0, "end": 11.0}


def test_a_call_pays_for_what_it_is_told_what_it_is_given_and_what_it_says() -> None:
    one = found(("inline", [task("a", prompt="x" * 40)]))
    assert one.tokens == 10 + 10 + 100
    assert one.cost_usd == pytest.approx(20 * 0.001 + 100 * 0.002)
    two = found(("inline", [task("a", "slow"), task("b", prompt="{a}")]))
    assert two.tasks[1].tokens == 10 + 1 + 1000 + 100, "an earlier answer goes in whole"
    given = found(("inline", [task("b", prompt="{text}")]), text="y" * 400)
    assert given.tokens == 10 + 2 + 100 + 100


def test_an_answer_that_is_bounded_takes_less() -> None:
    short = found(("inline", [task("a", config={"max_tokens": 50})]))
    assert (short.seconds, short.tokens) == (0.5, 10 + 1 + 50)


def test_a_fan_takes_rounds() -> None:
    fan = task("a", prompt="{item}", for_each={"items": "{list}", "concurrency": 2})
    assert (found(("inline", [fan]), list=[1, 2, 3, 4, 5]).seconds, found(("inline", [fan]), list=[]).calls) == (3.0, 0)
    every = found(("inline", [task("a", prompt="{item}", for_each={"items": "{list}"})]), list=[1, 2, 3])
    assert (every.seconds, every.calls, every.notes) == (1.0, 3, ())
    unknown = found(("inline", [task("list"), task("a", prompt="{item}", for_each={"items": "{list}"})]))
    assert unknown.calls == 6
    assert any("list of 5" in note for note in unknown.notes)


def test_inner_workflows_count_with_their_own_longest_chain() -> None:
    inner = {"workflow": [{"type": "linear", "tasks": [task("x", "slow"), task("y")]}], "output_variable": "group"}
    whole = found(("inline", [task("a"), inner, task("b")]))
    assert (whole.seconds, whole.calls, whole.path) == (12.0, 4, ("a", "group", "b"))


def test_what_nobody_knows_is_said() -> None:
    priceless = found(("inline", [task("a", "free"), task("b", when="a != ''"), {"approve": {"message": "ok?"}}]))
    assert not priceless.cost_known
    assert priceless.basis == "assumed"
    assert any("local/own" in note for note in priceless.notes)
    assert any("only if" in note for note in priceless.notes)
    assert any("person" in note for note in priceless.notes)
    known = found(("inline", [task("a")]))
    assert (known.cost_known, known.basis, known.notes) == (True, "measured", ())


@settings(deadline=None)
@given(WORKFLOWS)
def test_every_workflow_has_an_estimate_that_hangs_together(workflow: Any) -> None:
    """The path is a chain of its tasks, no task ends after the whole, and money is the tasks' sum."""
    graph = compiled(workflow)
    whole = estimate(graph, {"m": FAST})
    outputs = {node.output for node in graph.root.nodes}
    assert {part.output for part in whole.tasks} == outputs
    assert set(whole.path) <= outputs
    assert whole.seconds == pytest.approx(max(part.starts_s + part.seconds for part in whole.tasks))
    assert whole.cost_usd == pytest.approx(sum(part.cost_usd for part in whole.tasks))
    on_path = {part.output: part.seconds for part in whole.tasks}
    assert whole.seconds == pytest.approx(sum(on_path[output] for output in whole.path))
