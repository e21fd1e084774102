"""From facts to rows. Pure: the same stretch of the log comes to the same rows, however often it is read.

What a row says is never added up from facts but taken from one of them, so that a fact that is seen twice
changes nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from shared import accounts
from shared.contracts.commands import ChatRequest
from shared.contracts.events import (
    ApprovalAsked,
    ApprovalDecided,
    AttemptReconciled,
    CallSettled,
    CallWrittenOff,
    RunAccepted,
    RunCategorized,
    RunEnded,
    RunHeld,
    RunPlanned,
)
from shared.contracts.ids import Category
from shared.contracts.message import Message, Run, Unreadable, Usage
from shared.history.rows import Base, CallRow, QuestionRow, Rows, RunRow
from shared.moments import from_rfc3339, us_of

TITLE_CHARS = 200

UNKNOWN = "unknown"
RECONCILED = "reconciled"
OVER = frozenset({"completed", "failed", "denied", "cancelled"})


@dataclass(frozen=True, slots=True)
class Fact:
    """One stored fact."""

    tenant: str
    run_id: str
    name: str
    """Which it is: `accepted`, `call.answer.answer.settled`, …"""
    seq: int
    time: str
    """When it was stored, RFC 3339."""
    body: bytes
    """Its outline, or the whole."""


def wanted(name: str) -> type[Message] | None:
    """Return what a fact has to be read as; None: its subject says enough."""
    match name.split("."):
        case ["accepted"]:
            return RunAccepted
        case ["category"]:
            return RunCategorized
        case ["plan"]:
            return RunPlanned
        case ["ended"]:
            return RunEnded
        case ["hold", _]:
            return RunHeld
        case ["asked", _]:
            return ApprovalAsked
        case ["approval", _]:
            return ApprovalDecided
        case ["call", _, _, "settled"]:
            return CallSettled
        case ["call", _, _, "late"]:
            return CallWrittenOff
        case ["call", _, _, "attempt", _, "reconciled"]:
            return AttemptReconciled
    return None


def project(facts: Iterable[Fact]) -> Rows:
    """Return what facts come to, in the order in which they are on the log."""
    rows = Rows()
    for fact in facts:
        kind = wanted(fact.name)
        if kind is None:
            _begun(rows, fact)
            continue
        try:
            _take(rows, fact, kind.decode(fact.body))
        except Unreadable:
            rows.skipped += 1
    return rows


def _begun(rows: Rows, fact: Fact) -> None:
    if fact.name.startswith("call.task."):
        rows.started[fact.tenant, fact.run_id] = fact.seq


def _take(rows: Rows, fact: Fact, message: Message) -> None:
    match message:
        case RunAccepted():
            row = _run(rows, fact, message.run)
            request, lineage = message.request, message.lineage
            chat = isinstance(request, ChatRequest)
            row.kind = "chat" if chat else "workflow"
            _goes(row, "accepted" if chat else "planning")
            row.title = _title(request.message) if isinstance(request, ChatRequest) else request.template
            row.schedule = None if isinstance(request, ChatRequest) else request.schedule
            row.template = None if isinstance(request, ChatRequest) else request.template
            row.parent, row.lineage = (lineage.parent, lineage.kind) if lineage is not None else (None, None)
        case RunCategorized():
            row = _run(rows, fact, message.run)
            row.category = message.category
            _goes(row, "planning" if message.category is Category.H else "running")
        case RunPlanned():
            row = _run(rows, fact, message.run)
            row.source = message.source
            _goes(row, "running" if message.workflow is None else "waiting")
        case RunHeld():
            _goes(_run(rows, fact, message.run), "paused" if message.held else "running")
        case RunEnded():
            row = _run(rows, fact, message.run)
            row.state, row.ended_us = message.outcome, us_of(message.ended_at)
            row.category = message.category or row.category
            row.role, row.model = message.role, message.model
            row.baseline_usd = message.baseline_usd
            row.code = message.fault.code if message.fault is not None else None
        case ApprovalAsked():
            run = message.run
            _goes(_run(rows, fact, run), "running")
            rows.questions[run.tenant, run.run_id, message.task] = QuestionRow(
                run.tenant, run.run_id, message.task, message.output, message.message, us_of(message.until)
            )
        case ApprovalDecided():
            run = message.run
            _run(rows, fact, run)
            key = run.tenant, run.run_id, message.task
            question = rows.questions.setdefault(key, QuestionRow(*key))
            question.approved, question.by = message.approved, message.by
        case CallSettled():
            _settled(rows, fact, message)
        case CallWrittenOff():
            _run(rows, fact, message.run)
            late = _call(rows, fact, message, f"{message.purpose}.{message.call}.late")
            late.cost_known = not accounts.priceless(message)
            _left_open(rows, fact, message)
        case AttemptReconciled():
            _reconciled(rows, message)


def _settled(rows: Rows, fact: Fact, call: CallSettled) -> None:
    _run(rows, fact, call.run)
    if call.purpose == "task":
        rows.started[call.run.tenant, call.run.run_id] = fact.seq
    row = _call(rows, fact, call, f"{call.purpose}.{call.call}")
    row.provider, row.outcome, row.simulated = call.provider or "", call.outcome, call.simulated
    row.attempts, row.saved_usd, row.took_s = call.attempts, call.saved_usd, call.took_s
    row.variant = call.variant
    row.cost_known = not accounts.priceless(call)
    if not call.cost_known:
        _left_open(rows, fact, call)


def _left_open(rows: Rows, fact: Fact, call: CallSettled | CallWrittenOff) -> None:
    """Give each attempt of unknown cost a row of its own, unless what was found of it is there already."""
    for share in accounts.open_shares(call):
        name = f"{call.purpose}.{call.call}.attempt.{share.attempt}"
        there = rows.calls.get((call.run.tenant, call.run.run_id, name))
        if there is not None and there.outcome == RECONCILED:
            continue
        row = _row(call.run, name, call.purpose, *_when(fact.time))
        row.role, row.provider, row.model = share.role, share.provider, share.model
        row.outcome, row.cost_known, row.code = UNKNOWN, False, share.code[:64]
        row.reserved_usd, row.asked = share.reserved_usd, share.attempt in call.asks
        rows.calls[call.run.tenant, call.run.run_id, name] = row


def _reconciled(rows: Rows, found: AttemptReconciled) -> None:
    """Give an attempt the row of what was found of it. Of where its run is this says nothing."""
    name = f"{found.purpose}.{found.call}.attempt.{found.attempt}"
    settled_us = us_of(found.settled_at)
    row = _row(found.run, name, found.purpose, found.settled_at.astimezone(UTC).date().isoformat(), settled_us)
    row.role, row.provider, row.model = found.role, found.provider, found.model
    row.outcome, row.code = RECONCILED, "found" if found.found else "never_arrived"
    _uses(row, found.usage, found.cost_usd)
    rows.calls[found.run.tenant, found.run.run_id, name] = row


def _call(rows: Rows, fact: Fact, call: CallSettled | CallWrittenOff, name: str) -> CallRow:
    run = call.run
    row = _row(run, name, call.purpose, *_when(fact.time))
    row.role, row.model, row.cost_known = call.role, call.model or "", call.cost_known
    _uses(row, call.usage, call.cost_usd)
    rows.calls[run.tenant, run.run_id, name] = row
    return row


def _row(run: Run, name: str, purpose: str, day: str, at_us: int) -> CallRow:
    """Return a row that cost nothing yet."""
    return CallRow(
        tenant=run.tenant,
        run_id=run.run_id,
        call=name,
        purpose=purpose,
        day=day,
        at_us=at_us,
        role="",
        provider="",
        model="",
        outcome="late",
        simulated=False,
        attempts=0,
        prompt_tokens=0,
        completion_tokens=0,
        cached_tokens=0,
        reasoning_tokens=0,
        cost_usd=0.0,
        cost_known=True,
        saved_usd=0.0,
        took_s=0.0,
    )


def _uses(row: CallRow, usage: Usage, cost_usd: float) -> None:
    row.prompt_tokens, row.completion_tokens = usage.prompt_tokens, usage.completion_tokens
    row.cached_tokens, row.reasoning_tokens = usage.cached_tokens, usage.reasoning_tokens
    row.cost_usd = cost_usd


def _run(rows: Rows, fact: Fact, run: Run) -> RunRow:
    row = rows.runs.get((run.tenant, run.run_id))
    if row is None:
        row = RunRow(
            run.tenant, run.run_id, run.priority, run.session_id, us_of(run.born_at), us_of(run.deadline_at), fact.seq
        )
        rows.runs[run.tenant, run.run_id] = row
    row.seq = fact.seq
    return row


def _goes(row: RunRow, state: Base) -> None:
    """Note where a run is; one that has ended stays so, whatever is told of it later."""
    if row.state not in OVER:
        row.state = state


def shown(state: Base, *, asked: bool) -> str:
    """Return the state that people are shown: a run that goes on and asks a person waits for that person."""
    return "awaiting_approval" if asked and state in {"running", "waiting"} else state


def _title(text: str) -> str:
    return " ".join(text[: TITLE_CHARS * 2].split())[:TITLE_CHARS].replace("\x00", "")


def _when(time: str) -> tuple[str, int]:
    """Return the UTC day and the µs since 1970 of a time that the bus tells."""
    at = from_rfc3339(time) or datetime.fromtimestamp(0, UTC)
    return at.date().isoformat(), us_of(at)
