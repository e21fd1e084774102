"""How a run is seen. Pure: a function of what the log has of it."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from services.gateway.chronicle import Chronicle
from services.gateway.http.answers import difference
from services.gateway.http.models import ErrorBody
from services.gateway.http.run_models import (
    AttemptView,
    CallbackView,
    DeliveryView,
    Ledger,
    RunState,
    RunView,
    Span,
    TaskState,
    TaskView,
    TimelineView,
)
from shared import accounts
from shared.contracts.commands import ChatRequest, WorkflowRequest
from shared.contracts.events import ApprovalAsked, CallSettled, CallWrittenOff
from shared.contracts.ids import Category
from shared.contracts.message import Fault
from shared.workflows.graph import REPAIR, Graph, Kind, Node, compiled, edges
from shared.workflows.outputs import State

PREVIEW_CHARS = 200

_STATES: dict[str, TaskState] = {
    State.WAITING: "waiting",
    State.STARTED: "running",
    State.ASKED: "awaiting_approval",
    State.REPAIRING: "repairing",
    State.EXPANDED: "running",
    State.DONE: "done",
    State.REPAIRED: "done",
    State.FAILED: "failed",
    State.SKIPPED: "skipped",
    State.CONTINUED: "substituted",
    State.SUBSTITUTED: "substituted",
}


def view(run: Chronicle) -> RunView:
    """Return a run as a person wants to see it."""
    born, ended, planned, request = run.accepted.run, run.ended, run.planned, run.accepted.request
    state = state_of(run)
    lineage = run.accepted.lineage
    graph = graph_of(run)
    fault = ended.fault if ended is not None else None
    return RunView(
        run_id=born.run_id,
        state=state,
        waits_for=waits_for(run, state) if ended is None else None,
        waits_until=waits_until(run) if ended is None else None,
        kind="chat" if isinstance(request, ChatRequest) else "workflow",
        category=run.category.category if run.category else (ended.category if ended else None),
        template=request.template if isinstance(request, WorkflowRequest) else None,
        plan=planned.source if planned is not None else None,
        note=planned.note if planned is not None else None,
        session_id=born.session_id,
        priority=born.priority,
        born_at=born.born_at,
        deadline_at=born.deadline_at,
        ended_at=ended.ended_at if ended is not None else None,
        parent=lineage.parent if lineage is not None else None,
        lineage=lineage.kind if lineage is not None else None,
        tasks=[_task(run, graph, node) for node in graph.root.nodes] if graph is not None else [],
        calls=[_call(run, name) for name in sorted({*run.attempts, *run.settled}) if not name.startswith("task.")],
        ledger=ledger(run),
        error=_error(fault),
        failure=ended.failure if ended is not None else None,
        callback=callback_of(run),
    )


def callback_of(run: Chronicle) -> CallbackView | None:
    """Return where a run's answer is POSTed and what has become of that; None: nowhere."""
    if run.accepted.callback is None:
        return None
    deliveries = [
        DeliveryView(
            number=number,
            state=one.outcome,
            reason=one.reason,
            message_id=one.message_id,
            attempts=list(one.attempts),
            settled_at=one.settled_at,
        )
        for number, one in sorted(run.callbacks.items())
    ]
    going = run.calling_back
    if going is not None and going.number not in run.callbacks:
        deliveries.append(DeliveryView(number=going.number, state="waiting", attempts=list(going.tried)))
    return CallbackView(url=run.accepted.callback.url, deliveries=deliveries)


def graph_of(run: Chronicle) -> Graph | None:
    """Return a run's graph, with what its tasks have become; None without a workflow."""
    if run.planned is None or run.planned.workflow is None:
        return None
    return compiled(run.planned.workflow, {name: fact.workflow for name, fact in run.expanded.items()})


def state_of(run: Chronicle) -> RunState:
    """Return where a run is."""
    if run.ended is not None:
        return run.ended.outcome
    if run.planned is None:
        orchestrated = run.category is None or run.category.category is Category.H
        if isinstance(run.accepted.request, ChatRequest) and run.category is None:
            return "accepted"
        return "planning" if orchestrated else "running"
    if run.planned.workflow is None:
        return "running"
    if run.progress is None:
        return "waiting"
    if run.progress.held:
        return "paused"
    letters = run.progress.states.values()
    running = any(letter in "sre" for letter in letters)
    return "awaiting_approval" if not running and _questions(run) else "running"


def waits_for(run: Chronicle, state: RunState) -> str:
    """Return what a run that has not ended waits for, in words."""
    open_calls = [name.partition(".")[2] for name in run.attempts if name not in run.settled]
    match state:
        case "accepted":
            return "its category" if not open_calls else f"the model call {open_calls[0]!r}"
        case "planning":
            return "its plan"
        case "waiting":
            return "a place among the running workflows (orchestration.maxConcurrentWorkflows)"
        case "paused":
            return "somebody to resume it"
        case "awaiting_approval":
            return f"a person's word about {', '.join(repr(one.output) for one in _questions(run))}"
    if open_calls:
        return f"the model call{'s' if len(open_calls) > 1 else ''} {', '.join(map(repr, open_calls[:5]))}"
    return "an executor to take its next call, or the planner to go on"


def waits_until(run: Chronicle) -> datetime:
    """Return until when that is waited for at the most: the run's deadline, or a person's before it."""
    until = [one.until for one in _questions(run)]
    return min([*until, run.accepted.run.deadline_at])


def _questions(run: Chronicle) -> list[ApprovalAsked]:
    """Return what a person is asked. The record is read after the facts and can be ahead of them for a moment."""
    states = run.progress.states if run.progress is not None else {}
    return [fact for name, fact in run.asked.items() if states.get(name) == State.ASKED]


def _letter(run: Chronicle, node: Node) -> str:
    """Return a task's state: by the planner's record, else by what is settled."""
    if run.progress is not None and run.ended is None:
        return run.progress.states.get(node.name, State.WAITING)
    settled = run.settled.get(f"task.{node.name}{REPAIR}") or run.settled.get(f"task.{node.name}")
    if settled is None:
        kept = run.ended is not None and run.ended.result is not None and node.output in run.ended.result
        if kept and not node.scope:
            return State.DONE
        through = run.ended is not None and run.ended.outcome == "completed"
        carried_out = run.planned is not None and not run.planned.plan_only
        return State.SKIPPED if through and carried_out and node.kind is not Kind.GROUP else State.WAITING
    failed = settled.outcome == "failed"
    failing = run.ended.failure.failed if run.ended is not None and run.ended.failure is not None else ()
    if failed or (not node.scope and node.output in {one.task for one in failing}):
        return {"fail": State.FAILED, "continue": State.CONTINUED, "substitute": State.SUBSTITUTED}[node.task.on_error]
    return State.DONE


def states_of(run: Chronicle, graph: Graph) -> tuple[dict[str, str], dict[str, str]]:
    """Return tasks' and items' letters: the planner's record, else what they must have been by what is settled."""
    if run.progress is not None:
        return run.progress.states, run.progress.fans
    states = {node.name: _letter(run, node) for node in graph.nodes.values()}
    fans: dict[str, str] = {}
    for node in graph.nodes.values():
        if node.task.for_each is None or states[node.name] not in {State.DONE}:
            continue
        letters, place = "", 0
        while (settled := run.settled.get(f"task.{node.item(place)}")) is not None:
            repaired = run.settled.get(f"task.{node.item(place)}{REPAIR}")
            if settled.outcome == "failed" or (repaired is not None and repaired.outcome == "failed"):
                letters += State.SUBSTITUTED if node.task.on_error == "substitute" else State.CONTINUED
            else:
                letters += State.REPAIRED if repaired is not None else State.DONE
            place += 1
        fans[node.name] = letters
    return states, fans


def _task(run: Chronicle, graph: Graph, node: Node) -> TaskView:
    names = [f"task.{node.name}", f"task.{node.name}{REPAIR}"]
    settled = run.settled.get(names[1]) or run.settled.get(names[0])
    items = [call for name, call in run.settled.items() if _is_item(name, node)]
    all_of_it = [run.settled[name] for name in names if name in run.settled] + [
        call for call in items if call is not settled
    ]
    scope = graph.scopes[node.scope]
    letter = _letter(run, node)
    text = settled.text if settled is not None else None
    question = run.asked.get(node.name)
    return TaskView(
        name=node.name,
        output=node.output,
        state=_STATES[letter],
        role=(settled.role if settled is not None else None) or node.task.model,
        model=settled.model if settled is not None else None,
        after=[graph.nodes[earlier].output for earlier, later in edges(scope) if later == node.name],
        attempts=[one for name in names for one in _attempts(run, name)],
        items=_items(run, node),
        tasks=[_task(run, graph, child) for child in graph.children(node)],
        took_s=round(sum(call.took_s for call in all_of_it), 6) if all_of_it else None,
        cost_usd=sum(call.cost_usd for call in all_of_it)
        + sum(_found_usd(run, f"{call.purpose}.{call.call}") for call in all_of_it),
        tokens=sum(call.usage.total_tokens for call in all_of_it),
        reused_from=settled.reused_from if settled is not None else None,
        output_href=f"/runs/{run.accepted.run.run_id}/outputs/{node.output}"
        if letter in "dpcu" and not node.scope
        else None,
        output_chars=settled.chars if settled is not None and text is not None else None,
        preview=text[:PREVIEW_CHARS] if text is not None else None,
        error=_error(settled.fault if settled is not None else None),
        question=question.message if question is not None else None,
    )


def _is_item(name: str, node: Node) -> bool:
    """Whether a call is one of a fan's: `task.<name>_<place>`, repaired or not."""
    rest = name.removeprefix(f"task.{node.name}_")
    return rest != name and rest.removesuffix(REPAIR).isdigit()


def _items(run: Chronicle, node: Node) -> dict[str, int] | None:
    letters = run.progress.fans.get(node.name) if run.progress is not None else None
    if letters is None:
        return None
    return dict(Counter(_STATES[letter] for letter in letters))


def _call(run: Chronicle, name: str) -> TaskView:
    settled = run.settled.get(name)
    state: TaskState = "running" if settled is None else "done" if settled.outcome == "answered" else "failed"
    return TaskView(
        name=name,
        state=state,
        role=settled.role if settled is not None else None,
        model=settled.model if settled is not None else None,
        attempts=list(_attempts(run, name)),
        took_s=settled.took_s if settled is not None else None,
        cost_usd=(settled.cost_usd if settled is not None else 0.0) + _found_usd(run, name),
        tokens=settled.usage.total_tokens if settled is not None else 0,
        error=_error(settled.fault if settled is not None else None),
    )


def _attempts(run: Chronicle, name: str) -> Iterator[AttemptView]:
    settled, late = run.settled.get(name), run.late.get(name)
    shares = {one.attempt: one for fact in (settled, late) if fact is not None for one in accounts.shares(fact)}
    asked = {*(settled.asks if settled is not None else ()), *(late.asks if late is not None else ())}
    for one in sorted(run.attempts.get(name, []), key=lambda attempt: attempt.attempt):
        share, found = shares.get(one.attempt), run.reconciled.get(name, {}).get(one.attempt)
        cost_usd = share.cost_usd if share is not None else None
        open_still = share is not None and cost_usd is None and found is None
        yield AttemptView(
            attempt=one.attempt,
            role=one.role,
            model=one.model,
            started_at=one.started_at,
            outcome=_outcome(settled, one.attempt),
            cost_usd=found.cost_usd if found is not None else cost_usd,
            reserved_usd=one.reserved_usd if open_still else None,
            asked_after=open_still and one.attempt in asked,
            reconciled=None if found is None else "found" if found.found else "never_arrived",
        )


def _found_usd(run: Chronicle, name: str) -> float:
    """Return what reconciliation found that a call cost besides what its settlement says."""
    return sum(one.cost_usd for one in run.reconciled.get(name, {}).values())


def _outcome(settled: CallSettled | None, attempt: int) -> str:
    if settled is None:
        return "running"
    for failed in settled.failed:
        if failed.attempt == attempt:
            return failed.fault.code
    if attempt in {one.attempt for one in settled.unknown}:
        return "unknown"
    return "answered" if settled.outcome == "answered" else (settled.fault.code if settled.fault else "failed")


def ledger(run: Chronicle) -> Ledger:
    """Return what a run cost so far: every settled call, and what came after others had settled one."""
    calls, late = list(run.settled.values()), list(run.late.values())
    costs = [(one.cost_usd, not accounts.priceless(one), one.usage) for one in calls]
    costs += [(one.cost_usd, not accounts.priceless(one), one.usage) for one in late]
    costs += [(one.cost_usd, True, one.usage) for found in run.reconciled.values() for one in found.values()]
    facts: list[CallSettled | CallWrittenOff] = [*calls, *late]
    left_open = [
        share
        for fact in facts
        for share in accounts.open_shares(fact)
        if share.attempt not in run.reconciled.get(f"{fact.purpose}.{fact.call}", {})
    ]
    cost_usd, known = sum(cost for cost, _, _ in costs), not left_open and all(known for _, known, _ in costs)
    baseline = run.ended.baseline_usd if run.ended is not None else None
    return Ledger(
        calls=len(calls),
        cost_usd=cost_usd,
        cost_known=known,
        unknown_attempts=len(left_open),
        reserved_usd=sum(share.reserved_usd for share in left_open),
        baseline_usd=baseline,
        saving_usd=difference(baseline, cost_usd, known=known),
        tokens=sum(usage.total_tokens for _, _, usage in costs),
        reused=sum(1 for one in calls if one.reused_from is not None),
        saved_usd=sum(one.saved_usd for one in calls),
    )


def _error(fault: Fault | None) -> ErrorBody | None:
    return None if fault is None else ErrorBody(type=fault.type, code=fault.code, message=fault.message)


def timeline(run: Chronicle, now: datetime) -> TimelineView:
    """Return what took how long, in the order in which it began."""
    born = run.accepted.run.born_at
    end = run.ended.ended_at if run.ended is not None else now

    def since(at: datetime) -> float:
        return round(max(0.0, (at - born).total_seconds()), 6)

    spans = []
    for name, attempts in run.attempts.items():
        ordered = sorted(attempts, key=lambda one: one.attempt)
        settled = run.settled.get(name)
        for place, one in enumerate(ordered):
            over: float | None = None
            if place + 1 < len(ordered):
                over = since(ordered[place + 1].started_at)
            elif settled is not None:
                over = round(since(one.started_at) + settled.took_s, 6)
            outcome = _outcome(settled, one.attempt)
            label = f"{one.role} ({one.model})"
            spans.append(
                Span(what="attempt", name=name, label=label, from_s=since(one.started_at), to_s=over, outcome=outcome)
            )
    return TimelineView(
        run_id=run.accepted.run.run_id,
        total_s=since(end),
        spans=sorted(spans, key=lambda span: (span.from_s, span.name)),
    )
