"""What the caller gets. Pure: the end of a run as a function of what is on its log."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from pydantic import JsonValue

from services.finisher.through import UNSAID, Through
from shared.contracts.commands import ChatRequest, FinishRun, Spent
from shared.contracts.events import (
    CallSettled,
    FailedTask,
    Failure,
    RunAccepted,
    RunCategorized,
    RunEnded,
    RunPlanned,
    Session,
    Turn,
)
from shared.contracts.ids import Category
from shared.contracts.message import ChatMessage, Fault, Run
from shared.conversation import question_of, user_message
from shared.workflows.substitution import as_text

MOST_RESULT_CHARS = 8_000_000
"""Of all values of a run's result together: more is named, not carried."""
PREVIEW_CHARS = 200
MOST_ARTIFACTS = 1_000
"""That a run's end lists; every call has its own."""
KEPT_SESSION_CHARS = 4_000_000
"""A session keeps its latest turns within this, which is more than any model of 2026 can read (900,000 tokens)."""


def of_answer(settled: CallSettled, now: datetime) -> RunEnded:
    """Return the end of a run that one call answers."""
    spent = settled.spent.plus(settled.as_spent())
    answered = settled.outcome == "answered"
    return RunEnded(
        run=settled.run,
        outcome="completed" if answered else "failed",
        category=settled.category,
        text=settled.text,
        artifacts=settled.artifacts,
        tool_calls=settled.tool_calls,
        finish_reason=settled.finish_reason,
        fault=None if answered else settled.fault or UNSAID,
        note=settled.note,
        role=settled.role,
        model=settled.model,
        spent=spent,
        ended_at=now,
    )


def of_refusal(command: FinishRun, category: Category | None, spent: Spent, now: datetime) -> RunEnded:
    """Return the end of a run that was denied, or that cannot go on."""
    outcome = "denied" if command.outcome == "denied" else "failed"
    return RunEnded(run=command.run, outcome=outcome, category=category, fault=command.fault, spent=spent, ended_at=now)


def of_deadline(
    run: Run,
    category: Category | None,
    spent: Spent,
    waited_for: str,
    through: Through | None,
    now: datetime,
) -> RunEnded:
    """Return the end of a run whose time is over: what it waited for, and what it has so far."""
    given_s = (run.deadline_at - run.born_at).total_seconds()
    fault = Fault(
        type="resource",
        code="deadline",
        status=504,
        message=f"not done within {given_s:.0f} s, waiting for {waited_for}. Try again, or allow more time",
    )
    return RunEnded(
        run=run,
        outcome="failed",
        category=category,
        fault=fault,
        failure=failure_of(run, through) if through is not None else None,
        spent=spent,
        result=_so_far(run, through),
        ended_at=now,
    )


def of_cancel(
    run: Run,
    category: Category | None,
    spent: Spent,
    by: str,
    reason: str | None,
    through: Through | None,
    now: datetime,
) -> RunEnded:
    """Return the end of a run that somebody does not want any more: with what it has so far."""
    said = f"cancelled by {by}" + (f": {reason}" if reason else "")
    return RunEnded(
        run=run,
        outcome="cancelled",
        category=category,
        fault=Fault(type="logical", code="cancelled", status=409, message=said),
        failure=failure_of(run, through) if through is not None else None,
        spent=spent,
        result=_so_far(run, through),
        ended_at=now,
    )


def _so_far(run: Run, through: Through | None) -> dict[str, JsonValue] | None:
    return bounded(run, through.outputs()) or None if through is not None else None


def bounded(run: Run, result: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return a result that can travel: of one that is too large, the largest values are only named."""
    sizes = {name: len(as_text(value)) for name, value in result.items()}
    kept = dict(result)
    total = sum(sizes.values())
    for name in sorted(sizes, key=lambda one: -sizes[one]):
        if total <= MOST_RESULT_CHARS:
            break
        total -= sizes[name]
        kept[name] = {
            "href": f"/runs/{run.run_id}/outputs/{name}",
            "chars": sizes[name],
            "preview": as_text(result[name])[:PREVIEW_CHARS],
        }
    return kept


def of_plan(run: Run, planned: RunPlanned, now: datetime) -> RunEnded:
    """Return the end of a run that was only to be planned: its result is the workflow, ready to be sent back."""
    workflow = planned.workflow
    found = workflow.model_dump(mode="json", exclude_defaults=True) if workflow is not None else {}
    return RunEnded(
        run=run,
        outcome="completed",
        category=Category.H,
        result={"variables": {}, **found},
        note=planned.note,
        spent=planned.spent,
        ended_at=now,
    )


def of_workflow(
    run: Run,
    planned: RunPlanned,
    through: Through,
    fault: Fault | None,
    final: CallSettled | None,
    acknowledgement: CallSettled | None,
    now: datetime,
) -> RunEnded:
    """Return the end of a workflow. `fault`: why it ended early. `final`: the presenting call's word."""
    assert planned.workflow is not None
    spent = planned.spent
    for call in (*through.settled.values(), *(one for one in (acknowledgement, final) if one is not None)):
        spent = spent.plus(call.as_spent())
    put_out = through.outputs()
    failures = through.failures()
    fault = fault or (_told(*failures[0]) if failures else None)
    known = {name: value for name, value in planned.workflow.variables.items() if name not in planned.material}
    orchestrated = planned.source == "model"
    presented = final is not None and final.outcome == "answered" and bool(final.text)
    speaker = final if presented else through.last_answer()
    text = final.text if final is not None and presented else None
    if text is None and orchestrated and fault is None:
        text = _joined(through, put_out)
    return RunEnded(
        run=run,
        outcome="completed" if fault is None else "failed",
        category=Category.H if orchestrated else None,
        text=text,
        acknowledgement=acknowledgement.text if acknowledgement is not None else None,
        result=bounded(run, {**known, **put_out}),
        artifacts=tuple(one for call in through.settled.values() for one in call.artifacts)[:MOST_ARTIFACTS],
        fault=fault,
        failure=None if fault is None else failure_of(run, through),
        role=speaker.role if speaker is not None else None,
        model=speaker.model if speaker is not None else None,
        spent=spent,
        ended_at=now,
    )


def failure_of(run: Run, through: Through) -> Failure:
    """Return what failed of a workflow, what is kept, and what can be done now."""
    kept = tuple(through.outputs())
    again = f"POST /runs/{run.run_id}/retry does again what failed or was not done"
    return Failure(
        failed=tuple(
            FailedTask(task=name, code=fault.code, message=fault.message) for name, fault in through.failures()
        ),
        kept=kept,
        not_done=through.not_done(),
        next_steps=(
            f"{again}, and pays for nothing of what is kept" if kept else again,
            f"POST /runs/{run.run_id}/fork does a task again with another prompt, model or variable",
        ),
    )


def _told(output: str, fault: Fault) -> Fault:
    return fault.model_copy(update={"message": f"task {output!r} failed: {fault.message}"})


def _joined(through: Through, put_out: Mapping[str, JsonValue]) -> str:
    """Return the results themselves, for when the assembling model cannot be had: those of the last queue."""
    texts = [(name, as_text(put_out[name])) for name in through.last_outputs() if name in put_out]
    if len(texts) == 1:
        return texts[0][1]
    return "\n\n".join(f"## {name.replace('_', ' ')}\n\n{text}" for name, text in texts)


def assembly_prompt(request: ChatRequest, put_out: Mapping[str, JsonValue], budget_chars: int) -> str:
    """Return what the Finished Task AI gets to read: the request and every result, long ones shortened."""
    share = max(500, budget_chars // max(1, len(put_out)))
    parts = [f"<result name={name!r}>\n{_shortened(as_text(text), share)}\n</result>" for name, text in put_out.items()]
    return (
        f"The request was:\n<request>\n{_shortened(question_of(request), budget_chars // 4)}\n</request>\n\n"
        f"The work is done. The results, in order:\n" + "\n".join(parts) + f"\n\n{_closing(request)}"
    )


def _closing(request: ChatRequest) -> str:
    """Return what is asked for in the end. OpenAI's protocols have no place for results beside the answer."""
    if request.conversation is None:
        return "Write the final answer to the request."
    return (
        "Write the final answer to the request. This time the person gets nothing but your answer, not the results: "
        "everything that they asked for has to stand in it, whole and word for word, however long it is, in the form "
        "that the request and its instructions ask for."
    )


def failure_prompt(request: ChatRequest, task: str, fault: Fault, put_out: Mapping[str, JsonValue]) -> str:
    """Return what the AI Workers Failed AI gets to read."""
    kept = ", ".join(put_out) or "nothing"
    return (
        f"The request was:\n<request>\n{_shortened(request.message, 4_000)}\n</request>\n\n"
        f"The step {task!r} failed: {fault.message} ({fault.type} error, {fault.code}). Kept: {kept}.\n\n"
        "Explain this to the person who asked, honestly and briefly, and say what they can do now."
    )


def _shortened(text: str, chars: int) -> str:
    if len(text) <= chars:
        return text
    half = chars // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half:,} characters left out …]\n{text[-half:]}"


def turn_of(accepted: RunAccepted, ended: RunEnded) -> Turn | None:
    """Return what a run adds to its session; None for what is no conversation or has no answer."""
    if not isinstance(accepted.request, ChatRequest) or ended.outcome != "completed" or ended.text is None:
        return None
    return Turn(
        run_id=ended.run.run_id,
        user=user_message(accepted.request.message, accepted.request.images),
        assistant=ChatMessage(role="assistant", content=ended.text),
        asked_at=ended.run.born_at,
        answered_at=ended.ended_at,
    )


def with_turn(session: Session | None, turn: Turn | None, run_id: str) -> Session | None:
    """Return the session with a run's turn in it exactly once, in the order of asking; None when it is so already.

    A `turn` of None takes away what an earlier try may have written for this run.
    """
    others = tuple(other for other in session.turns if other.run_id != run_id) if session is not None else ()
    turns = others if turn is None else _latest(tuple(sorted((*others, turn), key=_order)))
    if session is None:
        return None if turn is None else Session(created_at=turn.asked_at, turns=turns)
    return None if turns == session.turns else session.model_copy(update={"turns": turns})


def _order(turn: Turn) -> tuple[datetime, str]:
    return turn.asked_at, turn.run_id


def _latest(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    left = KEPT_SESSION_CHARS
    for kept, turn in enumerate(reversed(turns)):
        left -= len(str(turn.user.content)) + len(str(turn.assistant.content if turn.assistant else ""))
        if left < 0 and kept > 0:
            return turns[len(turns) - kept :]
    return turns


def waits_for(
    accepted: RunAccepted | None, category: RunCategorized | None, planned: RunPlanned | None, open_calls: Sequence[str]
) -> str:
    """Return in words what a run that has not ended waits for."""
    if open_calls:
        return f"the model call{'s' if len(open_calls) > 1 else ''} {', '.join(open_calls[:5])}"
    if accepted is None:
        return "a categorizer or planner to take its request"
    if planned is not None:
        return "the planner or an executor to take its next step"
    if category is None and isinstance(accepted.request, ChatRequest):
        return "its category"
    return "an executor to take its call" if category is not None and category.role is not None else "its plan"
