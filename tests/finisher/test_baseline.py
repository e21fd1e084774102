"""What a run is compared with: its answer as one premium call, whichever way it came about."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.finisher.baseline import baseline_usd
from services.gateway.http.answers import saving_usd
from shared.contracts.commands import ChatRequest, Spent, WorkflowRequest
from shared.contracts.events import RunAccepted, RunEnded
from shared.contracts.message import Fault, Run
from shared.contracts.workflow import Workflow
from shared.prices import Price

NOW = datetime(2026, 11, 27, tzinfo=UTC)
RUN = Run(run_id="r1", tenant="acme", born_at=NOW, deadline_at=NOW + timedelta(minutes=5))
PRICE = Price(1e-6, 1e-5)


def ended(**fields: Any) -> RunEnded:
    return RunEnded(**{"run": RUN, "outcome": "completed", "ended_at": NOW, **fields})


def accepted(request: Any) -> RunAccepted:
    return RunAccepted(run=RUN, request=request, by="categorizer")


CHAT = accepted(ChatRequest(message="x" * 400, context_tokens=900))


def test_a_chat_is_one_call_that_reads_the_message_and_writes_the_answer() -> None:
    assert baseline_usd(ended(text="y" * 800), CHAT, PRICE) == pytest.approx(1_000 * 1e-6 + 200 * 1e-5)


def test_a_workflow_is_one_call_that_reads_its_prompts_and_writes_its_outputs() -> None:
    """Not what the caller gave, and a large value by its length."""
    flow = Workflow.model_validate(
        {
            "workflow": [{"type": "inline", "tasks": [{"model": "m", "prompt": "p" * 40, "output_variable": "out"}]}],
            "variables": {"topic": "t" * 80},
        }
    )
    large = {"href": "/runs/r1/outputs/big", "chars": 4_000, "preview": "z"}
    end = ended(result={"topic": "t" * 80, "out": "o" * 400, "big": large})
    expected = (10 + 20) * 1e-6 + (100 + 1_000) * 1e-5
    assert baseline_usd(end, accepted(WorkflowRequest(workflow=flow)), PRICE) == pytest.approx(expected)


def test_without_an_answer_or_a_price_there_is_none() -> None:
    failed = ended(outcome="failed", fault=Fault(type="fatal", code="x", message="x"))
    assert baseline_usd(failed, CHAT, PRICE) is None
    assert baseline_usd(ended(text="y"), None, PRICE) is None
    assert baseline_usd(ended(text="y"), CHAT, None) is None


def test_a_saving_has_its_sign_and_needs_to_know_the_cost() -> None:
    assert saving_usd(ended(baseline_usd=0.5, spent=Spent(cost_usd=0.2))) == pytest.approx(0.3)
    assert saving_usd(ended(baseline_usd=0.1, spent=Spent(cost_usd=0.25))) == pytest.approx(-0.15)
    assert saving_usd(ended(baseline_usd=0.1, spent=Spent(cost_known=False))) is None
    assert saving_usd(ended()) is None
