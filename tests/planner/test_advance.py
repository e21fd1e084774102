"""How a workflow goes on: the same end in any order, nothing too early, nothing after a failure, always an end."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.planner import advance
from services.planner.advance import DONE, FAILED, STARTED, WAITING, NoSuchTask, Step
from shared.contracts.events import Progress
from shared.contracts.workflow import Queue, Task, Workflow

calm = settings(deadline=None)
SHAPES = st.lists(st.tuples(st.sampled_from(["linear", "inline"]), st.integers(1, 4)), min_size=1, max_size=4)


def workflow(*shape: tuple[str, int]) -> Workflow:
    """Return a workflow of queues of so many tasks."""
    task = Task(model="m", prompt="p")
    return Workflow(
        workflow=tuple(Queue.model_validate({"type": kind, "tasks": (task,) * count}) for kind, count in shape)
    )


def names(steps: Sequence[Step]) -> list[str]:
    return [step.name for step in steps]


def after(plan: Workflow, *settlements: str) -> str:
    """Return the states after settlements, `0-1` for an answer and `0-1!` for a failure."""
    progress = advance.begin(plan)
    for settlement in settlements:
        progress = advance.settle(plan, progress, settlement.rstrip("!"), answered=not settlement.endswith("!"))
    return progress.states


def test_steps_have_their_place_and_a_name() -> None:
    plan = Workflow(
        workflow=(
            Queue(type="linear", tasks=(Task(model="m", prompt="p"), Task(model="m", prompt="p", output_variable="x"))),
            Queue(type="inline", tasks=(Task(model="m", prompt="p"),)),
        )
    )
    assert [(step.index, step.name, step.output) for step in advance.steps(plan)] == [
        (0, "0-0", "task_1_1"),
        (1, "0-1", "x"),
        (2, "1-0", "task_2_1"),
    ]


@pytest.mark.parametrize(
    ("shape", "states", "out"),
    [
        ([("linear", 1)], "s", ["0-0"]),
        ([("linear", 3)], "sss", ["0-0", "0-1", "0-2"]),
        ([("inline", 3)], "sww", ["0-0"]),
        ([("linear", 2), ("inline", 2)], "ssww", ["0-0", "0-1"]),
        ([("inline", 2), ("linear", 2)], "swww", ["0-0"]),
    ],
)
def test_what_begins(shape: list[tuple[str, int]], states: str, out: list[str]) -> None:
    plan = workflow(*shape)
    assert advance.begin(plan).states == states
    assert names(advance.started(plan, advance.begin(plan))) == out


MIXED = (("linear", 2), ("inline", 2), ("linear", 2))


@pytest.mark.parametrize(
    ("settlements", "states"),
    [
        ([], "sswwww"),
        (["0-1"], "sdwwww"),
        (["0-0", "0-1"], "ddswww"),
        (["0-1", "0-0", "1-0"], "dddsww"),
        (["0-0", "0-1", "1-0", "1-1"], "ddddss"),
        (["0-0", "0-1", "1-0", "1-1", "2-1"], "ddddsd"),
        (["0-0", "0-1", "1-0", "1-1", "2-1", "2-0"], "dddddd"),
        # a failure starts nothing; what runs beside it is waited for
        (["0-0!"], "fswwww"),
        (["0-0!", "0-1"], "fdwwww"),
        (["0-1", "0-0!"], "fdwwww"),
        (["0-0!", "0-1!"], "ffwwww"),
        (["0-0", "0-1", "1-0!"], "ddfwww"),
        (["0-0", "0-1", "1-0", "1-1", "2-0!"], "ddddfs"),
        (["0-0", "0-1", "1-0", "1-1", "2-0!", "2-1"], "ddddfd"),
        # said again, in the same or in other words: the first word counts
        (["0-0", "0-0", "0-0!"], "dswwww"),
        (["0-0!", "0-0", "0-1", "0-0"], "fdwwww"),
    ],
)
def test_what_a_settlement_leads_to(settlements: list[str], states: str) -> None:
    assert after(workflow(*MIXED), *settlements) == states


@pytest.mark.parametrize(
    ("states", "over"),
    [("s", False), ("w", False), ("d", True), ("f", True), ("ds", False), ("dd", True), ("fs", False), ("fw", True),
     ("fdw", True), ("dfs", False), ("dw", False)],
)  # fmt: skip
def test_when_it_is_over(states: str, over: bool) -> None:
    assert advance.is_over(Progress(states=states)) is over


@pytest.mark.parametrize("name", ["0-2", "3-0", "answer", "", "00-0", "0-0 "])
def test_a_task_that_the_plan_does_not_have_is_an_error(name: str) -> None:
    plan = workflow(*MIXED)
    with pytest.raises(NoSuchTask, match="has no task"):
        advance.settle(plan, advance.begin(plan), name, answered=True)


@calm
@given(shape=SHAPES, data=st.data())
def test_every_run_ends_in_the_same_state_whatever_the_order(shape: list[tuple[str, int]], data: st.DataObject) -> None:
    """Outcomes are drawn once; then settlements come in two random orders, again and again, late and in other words."""
    plan = workflow(*shape)
    count = sum(tasks for _, tasks in shape)
    answered = data.draw(st.lists(st.booleans() | st.just(True), min_size=count, max_size=count))
    ends = [_played(plan, answered, data) for _ in range(2)]
    assert ends[0] == ends[1]
    assert advance.is_over(ends[0])
    assert advance.started(plan, ends[0]) == ()
    assert (FAILED in ends[0].states) or ends[0].states == DONE * count


def _played(plan: Workflow, answered: list[bool], data: st.DataObject) -> Progress:
    progress = advance.begin(plan)
    settled: list[Step] = []
    for _ in range(200):
        open_ones = advance.started(plan, progress)
        if advance.is_over(progress):
            return progress
        assert open_ones, "neither over nor anything to wait for"
        step = data.draw(st.sampled_from([*open_ones, *settled]), label="settled")
        again = step in settled
        says = answered[step.index] if not again else data.draw(st.booleans(), label="said again")
        later = advance.settle(plan, progress, step.name, answered=says)
        _look(plan, progress, later)
        assert not again or later == progress
        if not again:
            settled.append(step)
        progress = later
    # repetitions only ever delay: settle the rest straight on
    while not advance.is_over(progress):
        step = advance.started(plan, progress)[0]
        progress = advance.settle(plan, progress, step.name, answered=answered[step.index])
    return progress


def _look(plan: Workflow, before: Progress, later: Progress) -> None:
    """Nobody goes backwards; what starts was allowed to; after a failure nothing does."""
    allowed = {WAITING: WAITING + STARTED, STARTED: STARTED + DONE + FAILED, DONE: DONE, FAILED: FAILED}
    assert all(new in allowed[old] for old, new in zip(before.states, later.states, strict=True))
    first = 0
    done_so_far = True
    for queue in plan.workflow:
        own = later.states[first : first + len(queue.tasks)]
        assert done_so_far or own == WAITING * len(own), "begun before the queue before was done"
        if queue.type == "inline":
            assert own.count(STARTED) <= 1
            assert all(earlier == DONE for earlier, state in pairwise(own) if state != WAITING)
        done_so_far = own == DONE * len(own)
        first += len(own)
    if FAILED in later.states:
        fresh = [
            i for i, (old, new) in enumerate(zip(before.states, later.states, strict=True)) if old == WAITING != new
        ]
        assert fresh == []


@calm
@given(shape=SHAPES, data=st.data())
def test_the_state_can_be_rebuilt_from_what_is_settled(shape: list[tuple[str, int]], data: st.DataObject) -> None:
    """The planner's record is a cache: settlements read from the log in the plan's order give the same state."""
    plan = workflow(*shape)
    progress = advance.begin(plan)
    outcomes: dict[str, bool] = {}
    for _ in range(data.draw(st.integers(0, 16))):
        open_ones = advance.started(plan, progress)
        if not open_ones:
            break
        step = data.draw(st.sampled_from(open_ones))
        outcomes[step.name] = data.draw(st.booleans() | st.just(True))
        progress = advance.settle(plan, progress, step.name, answered=outcomes[step.name])
    rebuilt = advance.begin(plan)
    for step in advance.steps(plan):
        if step.name in outcomes:
            rebuilt = advance.settle(plan, rebuilt, step.name, answered=outcomes[step.name])
    assert rebuilt == progress


def test_five_hundred_tasks_fit_in_their_record() -> None:
    """At most 64 bytes a task: it is read and written at every settlement."""
    plan = workflow(("linear", 500))
    assert len(advance.begin(plan).encode()) < 600
    progress = advance.begin(plan)
    for step in reversed(list(advance.steps(plan))):
        progress = advance.settle(plan, progress, step.name, answered=True)
    assert progress.states == DONE * 500
