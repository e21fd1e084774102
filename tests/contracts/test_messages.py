"""What every message promises: it comes back as it was sent, and what cannot be read says why and nothing else."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it ships no types
from pydantic import ValidationError

from shared.contracts.commands import Spent, SubmitRequest, WorkflowRequest
from shared.contracts.events import CallSettled, Progress, RunAccepted, RunEnded
from shared.contracts.message import VERSION, Fault, Message, Run, Unreadable, Usage
from shared.contracts.workflow import Workflow
from tests.contracts.strategies import MESSAGES, SETTLED, SPENTS, USAGES
from tools.generate_schemas import TARGET, messages

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
RUN = Run(run_id="r1", tenant="acme", born_at=NOW, deadline_at=NOW)
KINDS = sorted(MESSAGES, key=lambda kind: kind.__name__)
calm = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
few = settings(calm, max_examples=12)


def test_no_message_is_left_out() -> None:
    assert set(MESSAGES) == set(messages().values())


@pytest.mark.parametrize("kind", KINDS)
@few
@given(data=st.data())
def test_a_message_comes_back_as_it_was_sent_and_follows_its_schema(kind: type[Message], data: st.DataObject) -> None:
    message = data.draw(MESSAGES[kind])
    body = message.encode()
    assert kind.decode(body) == message
    assert kind.decode(body).encode() == body
    Draft202012Validator(_schema(kind)).validate(json.loads(body))


@pytest.mark.parametrize("kind", KINDS)
@settings(calm, max_examples=4)
@given(data=st.data())
def test_fields_of_a_later_build_are_ignored_at_every_depth(kind: type[Message], data: st.DataObject) -> None:
    message = data.draw(MESSAGES[kind])
    document = json.loads(message.encode())
    document["since_next_year"] = {"a": [1, None]}
    for part in ("run", "spent", "fault", "request"):
        if isinstance(document.get(part), dict):
            document[part]["since_next_year"] = "x"
    assert kind.decode(json.dumps(document).encode()) == message


@pytest.mark.parametrize("kind", KINDS)
@settings(calm, max_examples=2)
@given(data=st.data())
def test_a_later_version_is_refused_by_its_number(kind: type[Message], data: st.DataObject) -> None:
    document = {**json.loads(data.draw(MESSAGES[kind]).encode()), "v": VERSION + 1}
    with pytest.raises(Unreadable) as refused:
        kind.decode(json.dumps(document).encode())
    assert str(refused.value) == f"not a readable {kind.__name__} (version 1): it says that it is of version 2"


@calm
@given(body=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@example(b"")
@example(b"\xff\xfe")
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b'{"v": 1e999}')
@example(b"-" * 5000)
@example(b"1" * 5000)
@example(b'{"v": "1"}')
@example(b'{"v": ' + b"2" * 5000 + b"}")
@example(b'"\\ud800"')
def test_noise_is_unreadable_and_nothing_worse(body: bytes) -> None:
    for kind in KINDS:
        with pytest.raises(Unreadable, match=f"not a readable {kind.__name__}"):
            kind.decode(body)


@settings(calm, max_examples=100)
@given(message=SETTLED, at=st.integers(0, 10_000), noise=st.binary(max_size=4), length=st.integers(0, 5))
def test_a_damaged_message_is_read_or_unreadable_and_nothing_worse(
    message: CallSettled, at: int, noise: bytes, length: int
) -> None:
    body = message.encode()
    at %= len(body)
    damaged = body[:at] + noise + body[at + length :]
    try:
        CallSettled.decode(damaged)
    except Unreadable as error:
        assert "not a readable CallSettled" in str(error)  # noqa: PT017 - both ways out are right ones


def test_unreadable_says_every_reason_by_its_place() -> None:
    body = b'{"run": {"run_id": "a.b", "tenant": "acme", "born_at": "2026-11-01T12:00:00"}, "outcome": "fine"}'
    with pytest.raises(Unreadable) as refused:
        RunEnded.decode(body)
    for place in ("run.run_id", "run.born_at", "run.deadline_at", "outcome", "ended_at"):
        assert f"{place}: " in str(refused.value)


def test_unreadable_does_not_repeat_the_content() -> None:
    """The reason is logged and kept with the dead letter: what a person wrote does not belong there."""
    with pytest.raises(Unreadable) as refused:
        SubmitRequest.decode(b'{"run": "my secret", "request": {"kind": "chat", "message": ["my secret"]}}')
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("name", ["a\n", "", "x" * 65, "a.b", "é", "*", ">", " ", "a b"])
def test_names_are_safe_as_subject_tokens(name: str) -> None:
    for field in ("run_id", "tenant", "session_id"):
        with pytest.raises(ValidationError):
            Run.model_validate({**RUN.model_dump(), field: name})


@pytest.mark.parametrize("amount", [float("inf"), float("nan"), -1.0])
def test_amounts_are_finite_and_not_negative(amount: float) -> None:
    """JSON has no infinity: one that was let in would come out as null, which nobody can read."""
    with pytest.raises(ValidationError):
        Spent(cost_usd=amount)


def test_messages_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RUN.run_id = "other"  # type: ignore[misc]  # what is tested


def test_null_in_a_result_stays_null() -> None:
    """Fields without a value are left out of the JSON; values that are null are not."""
    ended = RunEnded(run=RUN, outcome="completed", result={"a": None, "b": [None, {"c": None}]}, ended_at=NOW)
    assert RunEnded.decode(ended.encode()).result == {"a": None, "b": [None, {"c": None}]}
    assert b'"fault"' not in ended.encode()


def test_times_keep_their_instant_in_any_zone() -> None:
    body = RunEnded(run=RUN, outcome="failed", ended_at=NOW).encode().replace(b"12:00:00Z", b"14:00:00+02:00")
    assert RunEnded.decode(body).ended_at == NOW


@pytest.mark.parametrize("states", ["x", "w s", "W"])
def test_progress_knows_four_letters(states: str) -> None:
    with pytest.raises(ValidationError):
        Progress(states=states)


def test_a_request_is_told_apart_by_its_kind() -> None:
    workflow = Workflow.model_validate({"workflow": [{"type": "linear", "tasks": [{"model": "m", "prompt": "p"}]}]})
    accepted = RunAccepted(run=RUN, request=WorkflowRequest(workflow=workflow), by="planner")
    assert isinstance(RunAccepted.decode(accepted.encode()).request, WorkflowRequest)
    body = accepted.encode().replace(b'"kind":"workflow"', b'"kind":"poem"')
    with pytest.raises(Unreadable, match="request: Input tag 'poem'"):
        RunAccepted.decode(body)


@calm
@given(one=SPENTS, two=SPENTS, three=SPENTS)
def test_what_is_spent_adds_up_in_any_order(one: Spent, two: Spent, three: Spent) -> None:
    together = one.plus(two).plus(three)
    assert together.calls == one.calls + two.calls + three.calls
    assert together.cost_usd == pytest.approx(one.cost_usd + two.cost_usd + three.cost_usd)
    assert together.usage == three.plus(one).plus(two).usage
    assert together.simulated is (one.simulated or two.simulated or three.simulated)
    assert together.cost_known is (one.cost_known and two.cost_known and three.cost_known)
    assert Spent().plus(one) == one


@calm
@given(one=USAGES, two=USAGES)
def test_usage_adds_up(one: Usage, two: Usage) -> None:
    assert one.plus(two) == two.plus(one)
    assert one.plus(two).total_tokens == one.total_tokens + two.total_tokens


@calm
@given(settled=SETTLED)
def test_a_settled_call_knows_its_own_cost(settled: CallSettled) -> None:
    spent = settled.as_spent()
    assert (spent.calls, spent.cost_usd, spent.usage) == (1, settled.cost_usd, settled.usage)
    assert (spent.simulated, spent.cost_known) == (settled.simulated, settled.cost_known)


def test_the_committed_schemas_are_those_of_the_messages() -> None:
    check = [sys.executable, str(ROOT / "tools" / "generate_schemas.py"), "--check"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _schema(kind: type[Message]) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((TARGET / f"{kind.__name__}.json").read_text())
    return schema


def test_a_fault_names_one_of_five_types() -> None:
    with pytest.raises(ValidationError):
        Fault.model_validate({"type": "odd", "code": "x", "message": "y"})
