"""What the caller gets: text, results, faults and sums, and what a session keeps of it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from services.finisher import assembly
from services.finisher.through import UNSAID, Through
from shared.contracts.commands import ChatRequest, FinishRun, Spent, WorkflowRequest
from shared.contracts.conversation import Conversation
from shared.contracts.events import CallSettled, RunAccepted, RunCategorized, RunEnded, RunPlanned, Session, Turn
from shared.contracts.ids import Category, Purpose
from shared.contracts.message import ChatMessage, Fault, Run, Usage
from shared.contracts.workflow import Queue, Task, Workflow
from shared.workflows.graph import compiled

BORN = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
NOW = BORN + timedelta(seconds=7)
RUN = Run(run_id="r1", tenant="acme", session_id="s1", born_at=BORN, deadline_at=BORN + timedelta(seconds=300))
WHY = Fault(type="transient", code="provider_unavailable", message="the provider is down", status=503)
REQUEST = ChatRequest(message="Plan a party")
ACCEPTED = RunAccepted(run=RUN, request=REQUEST, by="categorizer")
WORKFLOW = Workflow(
    workflow=(
        Queue(
            type="linear",
            tasks=(Task(model="a", prompt="p", output_variable="food"), Task(model="b", prompt="p")),
        ),
        Queue(type="inline", tasks=(Task(model="c", prompt="p", output_variable="plan"),)),
    ),
    variables={"topic": "a party", "guests": None},
)
PLANNED = RunPlanned(run=RUN, workflow=WORKFLOW, source="model", spent=Spent(calls=2, cost_usd=0.5))
calm = settings(deadline=None)


def settled(name: str, text: str | None = "text", *, fault: Fault | None = None, **more: Any) -> CallSettled:
    """Return a call that cost a cent and one token in."""
    fields: dict[str, Any] = {
        "role": f"role_{name}",
        "model": f"model/{name}",
        "cost_usd": 0.01,
        "usage": Usage(prompt_tokens=1),
        **more,
    }
    return CallSettled(
        run=RUN,
        call=name,
        purpose=Purpose.TASK,
        outcome="failed" if fault or text is None else "answered",
        text=text,
        fault=fault,
        asked_role=f"role_{name}",
        **fields,
    )


ALL = {"0-0": settled("0-0", "cake"), "0-1": settled("0-1", "tea"), "1-0": settled("1-0", "do it")}
TOLD = settled("acknowledge", "On it.")


def through(tasks: dict[str, CallSettled] = ALL, workflow: Workflow = WORKFLOW) -> Through:
    """Return how far a workflow came in which these calls are settled."""
    states = {name: "d" if call.outcome == "answered" else "f" for name, call in tasks.items()}
    return Through(compiled(workflow), states, {}, tasks)


def end(
    tasks: dict[str, CallSettled] = ALL,
    final: CallSettled | None = None,
    planned: RunPlanned = PLANNED,
    told: CallSettled | None = TOLD,
) -> RunEnded:
    assert planned.workflow is not None
    return assembly.of_workflow(RUN, planned, through(tasks, planned.workflow), None, final, told, NOW)


# One call answers


def test_an_answer_ends_its_run() -> None:
    call = settled("answer", "42", category=Category.L, note="so", spent=Spent(calls=1, cost_usd=0.5, simulated=True))
    ended = assembly.of_answer(call, NOW)
    assert (ended.run, ended.outcome, ended.text, ended.category, ended.note) == (RUN, "completed", "42", "L", "so")
    assert (ended.role, ended.model, ended.fault, ended.ended_at) == ("role_answer", "model/answer", None, NOW)
    assert ended.spent == Spent(calls=2, cost_usd=0.51, usage=Usage(prompt_tokens=1), simulated=True)


def test_a_failed_answer_ends_its_run_with_the_fault() -> None:
    ended = assembly.of_answer(settled("answer", None, fault=WHY), NOW)
    assert (ended.outcome, ended.text, ended.fault) == ("failed", None, WHY)
    assert ended.spent.calls == 1


def test_a_failure_that_gives_no_reason_still_is_one() -> None:
    assert assembly.of_answer(settled("answer", None), NOW).fault == UNSAID
    assert end({**ALL, "0-1": settled("0-1", None)}).outcome == "failed"


# A workflow


def test_the_result_has_variables_and_outputs_by_name() -> None:
    assert end().result == {"topic": "a party", "guests": None, "food": "cake", "task_1_2": "tea", "plan": "do it"}
    assert list(through(dict(reversed(ALL.items()))).outputs()) == ["food", "task_1_2", "plan"]


def test_what_a_plan_was_given_is_no_result() -> None:
    planned = PLANNED.model_copy(update={"material": ("topic",)})
    result = end(planned=planned).result
    assert result is not None
    assert (result.keys() & {"topic", "guests"}, result["food"]) == ({"guests"}, "cake")


def test_an_orchestrated_run_says_what_the_presenting_model_said() -> None:
    final = settled("final", "Here is your party.", role="finished_task_ai")
    ended = end(final=final)
    assert (ended.outcome, ended.text, ended.acknowledgement) == ("completed", "Here is your party.", "On it.")
    assert (ended.category, ended.role, ended.model) == (Category.H, "finished_task_ai", "model/final")


@pytest.mark.parametrize("final", [None, settled("final", None, fault=WHY), settled("final", "")])
def test_without_the_presenting_model_the_last_results_are_the_text(final: CallSettled | None) -> None:
    ended = end(final=final)
    assert (ended.outcome, ended.text, ended.role) == ("completed", "do it", "role_1-0")
    assert ended.fault is None


def test_several_last_results_are_headed_by_their_names() -> None:
    side_by_side = Workflow(workflow=WORKFLOW.workflow[:1])
    planned = PLANNED.model_copy(update={"workflow": side_by_side})
    assert end({"0-0": ALL["0-0"], "0-1": ALL["0-1"]}, planned=planned).text == (
        "## food\n\ncake\n\n## task 1 2\n\ntea"
    )


def test_a_failed_task_fails_the_run_and_what_is_there_is_kept() -> None:
    tasks = {"0-0": settled("0-0", "cake"), "0-1": settled("0-1", None, fault=WHY)}
    ended = end(tasks, settled("explain", "Sorry: the tea is out."))
    assert (ended.outcome, ended.text) == ("failed", "Sorry: the tea is out.")
    assert ended.result == {"topic": "a party", "guests": None, "food": "cake"}
    assert ended.fault is not None
    assert ended.fault.message == "task 'task_1_2' failed: the provider is down"
    assert (ended.fault.code, ended.fault.status) == ("provider_unavailable", 503)
    assert end(tasks).text is None


def test_the_first_fault_is_the_first_of_the_plan() -> None:
    second = WHY.model_copy(update={"code": "other"})
    tasks = {"0-1": settled("0-1", None, fault=second), "0-0": settled("0-0", None, fault=WHY)}
    assert through(tasks).failures() == [("food", WHY), ("task_1_2", second)]
    assert through().failures() == []
    assert through({}).failures() == []


def test_what_failed_is_told_as_data() -> None:
    """What failed, what is kept, what was not done, and what can be done now."""
    failure = end({"0-0": settled("0-0", "cake"), "0-1": settled("0-1", None, fault=WHY)}).failure
    assert failure is not None
    assert [(one.task, one.code) for one in failure.failed] == [("task_1_2", "provider_unavailable")]
    assert (failure.kept, failure.not_done) == (("food",), ("plan",))
    assert "/runs/r1/retry" in failure.next_steps[0]
    assert end().failure is None


@pytest.mark.parametrize("source", ["request", "template"])
def test_a_given_workflow_has_results_and_no_text(source: str) -> None:
    planned = RunPlanned.model_validate({**PLANNED.model_dump(), "source": source})
    ended = end(planned=planned, told=None)
    assert (ended.outcome, ended.text, ended.category, ended.acknowledgement) == ("completed", None, None, None)
    assert (ended.role, ended.model) == ("role_1-0", "model/1-0")


@calm
@given(costs=st.lists(st.floats(0, 100), min_size=5, max_size=5), known=st.booleans(), simulated=st.booleans())
def test_every_call_is_counted_once(costs: list[float], known: bool, simulated: bool) -> None:
    """Before the plan, planning itself, each task, the acknowledgement and the presentation."""
    tasks = {name: settled(name, cost_usd=cost) for name, cost in zip(ALL, costs, strict=False)}
    tasks["0-1"] = tasks["0-1"].model_copy(update={"cost_known": known, "simulated": simulated})
    told, final = settled("acknowledge", cost_usd=costs[3]), settled("final", cost_usd=costs[4])
    ended = end(tasks, final, told=told)
    assert ended.spent.calls == 2 + 3 + 2
    assert ended.spent.cost_usd == pytest.approx(0.5 + sum(costs))
    assert ended.spent.usage.prompt_tokens == 5
    assert (ended.spent.cost_known, ended.spent.simulated) == (known, simulated)


# Refusals and deadlines


@pytest.mark.parametrize(("outcome", "ends_as"), [("denied", "denied"), ("failed", "failed")])
def test_a_refusal_says_why(outcome: str, ends_as: str) -> None:
    command = FinishRun.model_validate({"run": RUN, "outcome": outcome, "fault": WHY})
    ended = assembly.of_refusal(command, Category.H, Spent(calls=1), NOW)
    assert (ended.outcome, ended.fault, ended.category, ended.spent.calls) == (ends_as, WHY, Category.H, 1)


def test_a_deadline_says_what_it_waited_for_and_keeps_what_is_there() -> None:
    ended = assembly.of_deadline(RUN, Category.H, Spent(calls=3), "its plan", through({"0-0": ALL["0-0"]}), NOW)
    assert (ended.outcome, ended.category, ended.result, ended.spent.calls) == ("failed", "H", {"food": "cake"}, 3)
    assert ended.fault is not None
    assert (ended.fault.type, ended.fault.code, ended.fault.status) == ("resource", "deadline", 504)
    assert "not done within 300 s, waiting for its plan" in ended.fault.message
    assert assembly.of_deadline(RUN, None, Spent(), "x", through({}), NOW).result is None


CATEGORIZED = RunCategorized(run=RUN, category=Category.M, reason="r", role="medium_ai", context_tokens=1)


@pytest.mark.parametrize(
    ("accepted", "category", "planned", "calls", "waits"),
    [
        (None, None, None, [], "a categorizer or planner to take its request"),
        (ACCEPTED, None, None, [], "its category"),
        (ACCEPTED, None, None, ["'categorize'"], "the model call 'categorize'"),
        (ACCEPTED, CATEGORIZED, None, [], "an executor to take its call"),
        (ACCEPTED, CATEGORIZED.model_copy(update={"role": None}), None, [], "its plan"),
        (ACCEPTED, CATEGORIZED, PLANNED, [], "the planner or an executor to take its next step"),
        (ACCEPTED, CATEGORIZED, PLANNED, ["'0-0'", "'0-1'"], "the model calls '0-0', '0-1'"),
        (ACCEPTED, None, PLANNED, list("abcdefg"), "the model calls a, b, c, d, e"),
        (RunAccepted(run=RUN, request=WorkflowRequest(workflow=WORKFLOW), by="planner"), None, None, [], "its plan"),
    ],
)
def test_what_a_run_waits_for(
    accepted: RunAccepted | None,
    category: RunCategorized | None,
    planned: RunPlanned | None,
    calls: list[str],
    waits: str,
) -> None:
    assert assembly.waits_for(accepted, category, planned, calls) == waits


# What the presenting models read


def test_the_presenting_model_reads_request_and_results_in_order() -> None:
    prompt = assembly.assembly_prompt(REQUEST, {"food": "cake", "plan": "do it"}, 100_000)
    for earlier, later in (("Plan a party", "<result name='food'>\ncake\n"), ("cake", "<result name='plan'>\ndo it\n")):
        assert 0 < prompt.index(earlier) < prompt.index(later)


@calm
@given(sizes=st.lists(st.integers(0, 60_000), max_size=12), message=st.integers(0, 60_000))
def test_the_presenting_model_gets_no_more_than_it_can_read(sizes: list[int], message: int) -> None:
    results: dict[str, JsonValue] = {f"o{n}": "x" * size for n, size in enumerate(sizes)}
    prompt = assembly.assembly_prompt(ChatRequest(message="m" * message), results, 40_000)
    assert len(prompt) <= 40_000 * 1.25 + 200 + 100 * len(sizes)
    if sum(sizes) + message <= 3_000:
        assert "left out" not in prompt


def test_who_gets_nothing_but_the_answer_gets_all_in_it() -> None:
    """OpenAI's protocols have no place for results beside an answer; `/chat` has."""
    carried = REQUEST.model_copy(update={"conversation": Conversation(model="segue-auto")})
    assert "nothing but your answer" in assembly.assembly_prompt(carried, {"food": "cake"}, 100_000)
    assert "nothing but your answer" not in assembly.assembly_prompt(REQUEST, {"food": "cake"}, 100_000)


def test_of_a_long_result_head_and_tail_are_read() -> None:
    prompt = assembly.assembly_prompt(REQUEST, {"food": "HEAD" + "x" * 10_000 + "TAIL"}, 1_000)
    assert "HEADx" in prompt
    assert "xTAIL" in prompt
    assert "\n[… 9,008 characters left out …]\n" in prompt


def test_the_explaining_model_reads_what_failed_and_what_is_kept() -> None:
    prompt = assembly.failure_prompt(REQUEST, "tea", WHY, {"food": "cake"})
    assert "Plan a party" in prompt
    assert "'tea' failed: the provider is down (transient error, provider_unavailable). Kept: food." in prompt
    assert "Kept: nothing." in assembly.failure_prompt(REQUEST, "tea", WHY, {})


# Sessions


def completed(**more: Any) -> RunEnded:
    fields: dict[str, Any] = {"run": RUN, "outcome": "completed", "text": "Tea.", "ended_at": NOW, **more}
    return RunEnded(**fields)


def test_a_turn_is_question_and_answer_with_their_times() -> None:
    turn = assembly.turn_of(ACCEPTED, completed())
    assert turn == Turn(
        run_id="r1",
        user=ChatMessage(role="user", content="Plan a party"),
        assistant=ChatMessage(role="assistant", content="Tea."),
        asked_at=BORN,
        answered_at=NOW,
    )


@pytest.mark.parametrize("ended", [completed(outcome="failed"), completed(outcome="denied"), completed(text=None)])
def test_what_has_no_answer_is_no_turn(ended: RunEnded) -> None:
    assert assembly.turn_of(ACCEPTED, ended) is None


def test_a_workflow_is_no_turn() -> None:
    accepted = RunAccepted(run=RUN, request=WorkflowRequest(workflow=WORKFLOW), by="planner")
    assert assembly.turn_of(accepted, completed()) is None


def turn(run_id: str, at: int, size: int = 1) -> Turn:
    return Turn(
        run_id=run_id,
        user=ChatMessage(role="user", content="q"),
        assistant=ChatMessage(role="assistant", content="a" * size),
        asked_at=BORN + timedelta(seconds=at),
        answered_at=NOW,
    )


def ids(session: Session | None) -> list[str]:
    assert session is not None
    return [one.run_id for one in session.turns]


def test_the_first_turn_makes_the_session() -> None:
    session = assembly.with_turn(None, turn("a", 5), "a")
    assert session == Session(created_at=BORN + timedelta(seconds=5), turns=(turn("a", 5),))
    assert assembly.with_turn(None, None, "a") is None


def test_turns_stand_in_the_order_of_asking_not_of_answering() -> None:
    session = None
    for name, at in (("c", 3), ("a", 1), ("b", 2)):
        session = assembly.with_turn(session, turn(name, at), name)
    assert ids(session) == ["a", "b", "c"]


def test_another_word_for_the_same_run_replaces_the_first_or_takes_it_away() -> None:
    """An end that somebody else wrote is what counts, also for the session. (ADR 0004)"""
    session = assembly.with_turn(assembly.with_turn(None, turn("a", 1), "a"), turn("b", 2), "b")
    longer = assembly.with_turn(session, turn("a", 1, 9), "a")
    assert ids(longer) == ["a", "b"]
    assert longer is not None
    assert longer.turns[0] == turn("a", 1, 9)
    assert ids(assembly.with_turn(session, None, "a")) == ["b"]
    assert assembly.with_turn(session, None, "x") is None


TURNS = st.lists(st.builds(turn, st.sampled_from("abcdef"), st.integers(0, 3), st.integers(0, 400_000)), max_size=10)


@calm
@given(turns=TURNS, again=st.integers(0, 9))
def test_a_turn_is_there_once_and_writing_it_again_changes_nothing(turns: list[Turn], again: int) -> None:
    session: Session | None = None
    for one in turns:
        changed = assembly.with_turn(session, one, one.run_id)
        session = changed or session
        assert assembly.with_turn(session, one, one.run_id) is None
    if session is None:
        return
    assert len(set(ids(session))) == len(session.turns)
    assert list(session.turns) == sorted(session.turns, key=lambda one: (one.asked_at, one.run_id))
    repeated = turns[again % len(turns)]
    if repeated in session.turns:
        assert assembly.with_turn(session, repeated, repeated.run_id) is None


@calm
@given(turns=st.lists(st.builds(turn, st.uuids().map(str), st.integers(0, 9)), max_size=6), data=st.data())
def test_the_session_is_the_same_whoever_ends_first(turns: list[Turn], data: st.DataObject) -> None:
    orders = [turns, data.draw(st.permutations(turns))]
    ends: list[Session | None] = [None, None]
    for place, order in enumerate(orders):
        for one in order:
            ends[place] = assembly.with_turn(ends[place], one, one.run_id) or ends[place]
    if turns:
        assert ids(ends[0]) == ids(ends[1])


def test_a_session_keeps_its_latest_turns_within_a_bound() -> None:
    size = assembly.KEPT_SESSION_CHARS // 4
    session: Session | None = None
    for n in range(10):
        session = assembly.with_turn(session, turn(f"t{n}", n, size), f"t{n}") or session
    assert ids(session) == ["t7", "t8", "t9"]
    oldest = turn("t0", 0, size)
    assert assembly.with_turn(session, oldest, "t0") is None  # it would be dropped at once
    giant = turn("giant", 99, assembly.KEPT_SESSION_CHARS * 2)
    assert ids(assembly.with_turn(session, giant, "giant")) == ["giant"]
