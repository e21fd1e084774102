"""Lives of runs as the log would have them, at random."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from shared import subjects
from shared.contracts.commands import ChatRequest, Lineage, UnknownAttempt, WorkflowRequest
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
from shared.contracts.ids import Category, Priority, Purpose
from shared.contracts.message import Fault, Message, Run, Usage
from shared.contracts.workflow import Queue, Task, Workflow
from shared.history.projection import Fact

BORN = datetime(2026, 11, 27, 8, tzinfo=UTC)
MODELS = ("maker/small", "maker/large")
TEMPLATES = (None, "report", "email_campaign")
STATES = {
    "accepted",
    "planning",
    "waiting",
    "running",
    "paused",
    "awaiting_approval",
    "completed",
    "failed",
    "denied",
    "cancelled",
}


@dataclass(frozen=True)
class Life:
    """One run, with what a list has to say of it by an independent account."""

    run: Run
    told: tuple[tuple[str, Message], ...]
    """Subjects and facts, in order."""
    state: str
    calls: int
    cost_usd: float
    tokens: int
    asked: int
    unknown: int
    """Attempts whose cost nobody knows."""


@st.composite
def lives(draw: st.DrawFn, number: int) -> Life:
    """A run that goes some way: what it comes to is written down beside the facts, not read from them."""
    tenant = draw(st.sampled_from(["default", "other"]))
    born = BORN + timedelta(seconds=draw(st.integers(0, 5)))
    run = Run(
        run_id=f"r{number}",
        tenant=tenant,
        priority=draw(st.sampled_from(Priority)),
        session_id=draw(st.sampled_from([None, "s1", "s2"])),
        born_at=born,
        deadline_at=born + timedelta(minutes=5),
    )
    names = subjects.events(tenant, run.run_id)
    template = draw(st.sampled_from(TEMPLATES))
    chat = template is None
    flow = Workflow(workflow=(Queue(type="linear", tasks=(Task(model="m", prompt="p", output_variable="o"),)),))
    request: Any = (
        ChatRequest(message=f"Question {number}") if chat else WorkflowRequest(workflow=flow, template=template)
    )
    lineage = Lineage(parent="r0", kind="retry") if number and draw(st.booleans()) else None
    told: list[tuple[str, Message]] = [
        (names.accepted, RunAccepted(run=run, request=request, by="planner", lineage=lineage))
    ]
    state, calls, cost, tokens, unknown = ("accepted" if chat else "planning"), 0, 0.0, 0, 0
    reconciled: list[tuple[str, Message]] = []

    def call(purpose: Purpose, name: str) -> None:
        nonlocal calls, cost, tokens, unknown
        amount, count = draw(st.integers(0, 8)) / 8, draw(st.integers(0, 9))
        lost = tuple(range(1, 1 + draw(st.integers(0, 2))))
        for one in lost:
            if draw(st.booleans()):
                found = AttemptReconciled(
                    run=run,
                    call=name,
                    purpose=purpose,
                    attempt=one,
                    model="maker/small",
                    found=True,
                    by="provider",
                    usage=Usage(prompt_tokens=3),
                    cost_usd=0.5,
                    settled_at=born,
                )
                reconciled.append((names.reconciled(purpose, name, one), found))
                cost, tokens = cost + 0.5, tokens + 3
            else:
                unknown += 1
        answered = draw(st.booleans())
        told.append(
            (
                names.settled(purpose, name),
                CallSettled(
                    run=run,
                    call=name,
                    purpose=purpose,
                    outcome="answered" if answered else "failed",
                    text="t",
                    fault=None if answered else Fault(type="transient", code="timeout", message="late"),
                    role="medium_ai",
                    asked_role="medium_ai",
                    provider="openrouter",
                    model=draw(st.sampled_from(MODELS)),
                    usage=Usage(prompt_tokens=count, completion_tokens=1),
                    cost_usd=amount,
                    cost_known=not lost,
                    priced_by="provider",
                    attempts=len(lost) + 1,
                    unknown=tuple(UnknownAttempt(attempt=one, reserved_usd=0.25, model="m") for one in lost),
                    asks=lost,
                ),
            )
        )
        calls, cost, tokens = calls + 1, cost + amount, tokens + count + 1

    way = draw(st.integers(0, 5))
    if chat and way >= 1:
        call(Purpose.DECISION, "categorize")
        category = draw(st.sampled_from([Category.L, Category.M, Category.H]))
        told.append((names.category, RunCategorized(run=run, category=category, reason="r", context_tokens=1)))
        state = "planning" if category is Category.H else "running"
    asked = 0
    if way >= 2 and state == "planning":
        told.append((names.plan, RunPlanned(run=run, workflow=flow, source="model" if chat else "template")))
        state = "waiting"
        if way >= 3:
            call(Purpose.TASK, "0-0")
            state = "running"
            if draw(st.booleans()):
                told.append(
                    (
                        names.asked("0-1"),
                        ApprovalAsked(
                            run=run,
                            task="0-1",
                            output="o",
                            message="may I?",
                            until=born + timedelta(minutes=1),
                            default="reject",
                        ),
                    )
                )
                asked = 1
                if draw(st.booleans()):
                    told.append((names.approval("0-1"), ApprovalDecided(run=run, task="0-1", approved=True, by="me")))
                    asked = 0
            if draw(st.booleans()):
                told.append((names.hold(1), RunHeld(run=run, number=1, held=True, by="me")))
                state = "paused"
    elif way >= 3 and state == "running":
        call(Purpose.ANSWER, "answer")
    if way >= 4:
        outcome = draw(st.sampled_from(["completed", "failed", "cancelled", "denied"]))
        fault = None if outcome == "completed" else Fault(type="fatal", code="broken", message="b")
        told.append(
            (names.ended, RunEnded(run=run, outcome=outcome, fault=fault, ended_at=born + timedelta(seconds=9)))
        )
        state, asked = outcome, 0
        if way == 5:
            late = CallWrittenOff(
                run=run, call="0-0", purpose=Purpose.TASK, role="medium_ai", model="maker/small", cost_usd=0.25
            )
            told.append((names.late(Purpose.TASK, "0-0"), late))
            cost += 0.25
    told += reconciled  # long after, as a rule: also after the run's end
    if asked and state == "running":
        state = "awaiting_approval"
    return Life(run, tuple(told), state, calls, cost, tokens, asked, unknown)


def told_by(number: int) -> list[tuple[str, Message]]:
    """A run that was answered by one call, and cost an eighth of a dollar."""
    run = Run(run_id=f"r{number}", tenant="default", born_at=BORN, deadline_at=BORN + timedelta(minutes=5))
    names = subjects.facts(run)
    settled = CallSettled(
        run=run,
        call="answer",
        purpose=Purpose.ANSWER,
        outcome="answered",
        text="t",
        role="medium_ai",
        asked_role="medium_ai",
        model=MODELS[0],
        cost_usd=0.125,
    )
    request = ChatRequest(message=f"Question {number}")
    return [
        (names.accepted, RunAccepted(run=run, request=request, by="categorizer")),
        (names.category, RunCategorized(run=run, category=Category.M, reason="r", context_tokens=1)),
        (names.settled(Purpose.ANSWER, "answer"), settled),
        (names.ended, RunEnded(run=run, outcome="completed", ended_at=BORN + timedelta(seconds=1))),
    ]


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Life], list[Fact]]:
    """Some runs, and their facts as they came to the log: each run's in order, the runs' among each other at random."""
    found = [draw(lives(number)) for number in range(draw(st.integers(1, 6)))]
    left = [list(life.told) for life in found]
    facts: list[Fact] = []
    while any(left):
        place = draw(st.sampled_from([i for i, told in enumerate(left) if told]))
        subject, message = left[place].pop(0)
        seq = len(facts) + 1
        stored = BORN + timedelta(seconds=seq)
        facts.append(
            Fact(*subjects.told_of(subject), seq, stored.strftime("%Y-%m-%dT%H:%M:%S.123456789Z"), message.encode())
        )
    return found, facts
