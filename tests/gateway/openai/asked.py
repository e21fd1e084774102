"""Runs as the translations meet them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from services.gateway.http.openai.outcome import Asked
from shared.contracts.commands import Spent
from shared.contracts.conversation import Conversation
from shared.contracts.events import CallSettled, RunCategorized, RunEnded
from shared.contracts.ids import Category, Purpose
from shared.contracts.message import Run, Usage

BORN = datetime(2026, 11, 29, 12, tzinfo=UTC)
RUN = Run(run_id="r1", tenant="default", born_at=BORN, deadline_at=BORN + timedelta(minutes=5))
SPENT = Spent(calls=1, cost_usd=0.5, usage=Usage(prompt_tokens=3, completion_tokens=4, reasoning_tokens=1))


def asked(role: str | None = None, **said: Any) -> Asked:
    """Return what was asked: by default of the whole system."""
    model = role or "segue-auto"
    return Asked(RUN, model, Conversation(model=model, role=role, **said), None, "1.2.3")


def ended(text: str | None = "Hello there", **fields: Any) -> RunEnded:
    """Return a run's end."""
    said = {"run": RUN, "outcome": "completed", "text": text, "spent": SPENT, "ended_at": BORN + timedelta(seconds=2)}
    return RunEnded.model_validate({**said, **fields})


def failed(code: str, type_: str = "transient", **fields: Any) -> RunEnded:
    """Return the end of a run that failed."""
    return ended(None, outcome="failed", fault={"type": type_, "code": code, "message": f"it {code}"}, **fields)


def categorized(letter: str = "M") -> RunCategorized:
    return RunCategorized(run=RUN, category=Category(letter), reason="letter", role="medium_ai", context_tokens=1)


def done(call: str, **fields: Any) -> CallSettled:
    """Return a task that was done."""
    said = {"run": RUN, "call": call, "purpose": Purpose.TASK, "outcome": "answered", "role": "fast_ai"}
    return CallSettled.model_validate({**said, "asked_role": "fast_ai", **fields})
