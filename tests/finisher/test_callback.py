"""Callbacks as decisions: what is signed and how, when it is tried again, when it is over."""

import base64
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.finisher import callback
from services.finisher.callback import Policy, PutBack, Settle
from services.finisher.receivers import OPENS_AFTER, PER_ORIGIN, PER_TENANT, Receivers, origin_of
from shared.contracts.answer import answer_of, delivery_of, piece_of
from shared.contracts.callbacks import Callback, CallbackAttempt, DeliverCallback
from shared.contracts.commands import ChatRequest, Lineage, WorkflowRequest
from shared.contracts.events import RunAccepted, RunEnded
from shared.contracts.message import Run, ToolCall
from shared.contracts.workflow import Queue, Task, Workflow
from tests.receiver import OLDER, SECRET, verified

NOW = datetime.now(UTC)
RUN = Run(run_id="r1", tenant="acme", born_at=NOW, deadline_at=NOW + timedelta(minutes=5))
POLICY = Policy(attempts=4, first_retry_s=5, most_retry_s=60, give_up_s=3_600)
SECRETS = [base64.b64decode(SECRET), base64.b64decode(OLDER)]
ORIGIN = "https://a.example"


def command(**fields: Any) -> DeliverCallback:
    return DeliverCallback(**{"run": RUN, "callback": Callback(url="https://a.example/x"), "begun_at": NOW, **fields})


def tried(status: int | None = 500) -> CallbackAttempt:
    problem = None if status is not None and 200 <= status < 300 else f"it answered {status}"
    return CallbackAttempt(at=NOW, took_s=0.1, status=status, problem=problem)


def ended(**fields: Any) -> RunEnded:
    return RunEnded(**{"run": RUN, "outcome": "completed", "text": "Paris.", "ended_at": NOW, **fields})


def test_a_post_is_signed_with_every_current_secret() -> None:
    """Whoever knows one of them can verify it: secrets can be changed without a gap."""
    body = callback.body_of(command(), ended(), 10_000)
    headers = callback.headers_of(SECRETS, "r1", body, datetime.now(UTC))  # whoever verifies it looks at the time
    assert verified(headers, body, SECRET)
    assert verified(headers, body, OLDER)
    assert not verified(headers, body + b" ", SECRET)
    assert not verified({**headers, "webhook-id": "run_r2"}, body, SECRET)
    assert not verified(headers, body, base64.b64encode(b"x" * 32).decode())
    assert headers["webhook-id"] == "run_r1"


def test_the_body_is_what_the_caller_would_have_got_and_the_same_every_time() -> None:
    body = callback.body_of(command(), ended(result={"city": "Paris"}), 10_000)
    said = json.loads(body)
    assert (said["type"], said["data"]["run_id"], said["data"]["outcome"]) == ("run.ended", "r1", "completed")
    assert (said["data"]["response"], said["data"]["result"]) == ("Paris.", {"city": "Paris"})
    assert body == callback.body_of(command(), ended(result={"city": "Paris"}), 10_000)
    assert said["data"].keys().isdisjoint({"parent", "schedule", "tool_calls", "error"}), "what is not there"


@pytest.mark.parametrize("kind", ["chat", "workflow"])
def test_a_receiver_is_told_where_a_run_comes_from(kind: str) -> None:
    """The schedule that began it, the run that it does again; sent again or for the first time."""
    asked: ChatRequest | WorkflowRequest = ChatRequest(message="?")
    if kind == "workflow":
        queue = Queue(type="inline", tasks=(Task(model="fast_ai", prompt="?", output_variable="a"),))
        asked = WorkflowRequest(workflow=Workflow(workflow=(queue,)), schedule="mornings")
    hook, lineage = Callback(url="https://a.example/x"), Lineage(parent="r0", kind="retry")
    accepted = RunAccepted(run=RUN, request=asked, by="planner", lineage=lineage, callback=hook)
    found = delivery_of(accepted, NOW, 2)
    assert found is not None
    assert (found.run, found.callback, found.number, found.begun_at) == (RUN, hook, 2, NOW)
    said = json.loads(callback.body_of(found, ended(), 10_000))["data"]
    assert (said["parent"], said.get("schedule")) == ("r0", "mornings" if kind == "workflow" else None)
    assert delivery_of(accepted.model_copy(update={"callback": None}), NOW) is None


def test_a_body_with_its_longest_origin_keeps_within_its_bound() -> None:
    origin = command(parent="p" * 64, schedule="s" * 64)
    for chars in range(4_000, 9_000, 500):
        assert len(callback.body_of(origin, ended(text="x" * chars), 6_000)) <= 6_000


def test_functions_that_are_to_be_called_are_told_and_left_out_as_a_whole() -> None:
    """Half of a function's arguments is none of them."""
    calls = (ToolCall(id="1", name="weather", arguments='{"city": "Paris"}'),)
    said = json.loads(
        callback.body_of(command(), ended(text=None, tool_calls=calls, finish_reason="tool_calls"), 9_000)
    )
    assert said["data"]["tool_calls"] == [{"id": "1", "name": "weather", "arguments": '{"city": "Paris"}'}]
    assert said["data"]["finish_reason"] == "tool_calls"
    large = ended(text="y" * 5_000, tool_calls=(ToolCall(id="1", name="draw", arguments="x" * 20_000),))
    answer = answer_of(large, 10_000)
    assert (answer.tool_calls, answer.left_out) == (None, ("response", "tool_calls"))
    assert len(answer.model_dump_json()) <= 10_000
    assert "x" * 20_000 in (piece_of(large, "tool_calls") or "")


@given(
    text=st.text(max_size=9_000),
    values=st.dictionaries(st.text(max_size=5), st.text(max_size=9_000) | st.integers(), max_size=4),
)
def test_a_body_is_bounded_and_says_what_it_left_out(text: str, values: dict[str, Any]) -> None:
    """What is cut is named, begins as the whole does, and can be read whole."""
    end = ended(text=text, result=values)
    answer = answer_of(end, 40_000)
    assert len(answer.model_dump_json()) <= 40_000
    for name in answer.left_out:
        whole = piece_of(end, name)
        assert whole is not None
        short = answer.response if name == "response" else (answer.result or {})[name.removeprefix("result.")]
        assert whole.startswith(str(short))
    if not answer.left_out:
        assert (answer.response, answer.result) == (text, values)


def test_a_result_of_very_many_values_is_named_as_a_whole() -> None:
    answer = answer_of(ended(result={f"v{n}": "x" * 50 for n in range(5_000)}), 20_000)
    assert answer.result is None
    assert answer.left_out == ("result",)


def test_what_was_delivered_is_over_and_so_is_what_is_gone() -> None:
    assert callback.after(POLICY, command(), tried(204), None, NOW) == Settle(None)
    gone = callback.after(POLICY, command(), tried(410), None, NOW)
    assert isinstance(gone, Settle)
    assert "410 Gone" in (gone.reason or "")


@pytest.mark.parametrize(("before", "least_s"), [(0, 5), (1, 15), (2, 45)])
def test_it_waits_three_times_as_long_each_time(before: int, least_s: float) -> None:
    found = callback.after(POLICY, command(tried=(tried(),) * before), tried(), None, NOW)
    assert isinstance(found, PutBack)
    assert least_s <= (found.at - NOW).total_seconds() <= least_s * 1.2


def test_after_the_last_attempt_it_is_given_up_with_the_reason() -> None:
    found = callback.after(POLICY, command(tried=(tried(),) * 3), tried(503), None, NOW)
    assert found == Settle("4 attempts failed, the last one: it answered 503")


def test_a_receiver_that_says_when_is_left_alone_until_then_within_bounds() -> None:
    """Not shorter than we would wait, and no longer than the longest that we wait."""
    for said, least_s in ((2.0, 5), (30.0, 30), (1e9, 60)):
        found = callback.after(POLICY, command(), tried(503), said, NOW)
        assert isinstance(found, PutBack)
        assert least_s <= (found.at - NOW).total_seconds() <= least_s * 1.2


def test_retry_after_is_seconds_or_a_date() -> None:
    assert callback.retry_after_s({"retry-after": "120"}, NOW) == 120
    later = format_datetime(NOW + timedelta(seconds=90))
    found = callback.retry_after_s({"retry-after": later}, NOW)
    assert found == pytest.approx(90, abs=1.1)
    for odd in ({}, {"retry-after": "soon"}, {"retry-after": "-3"}, {"retry-after": "١٢"}):
        assert callback.retry_after_s(odd, NOW) is None


def test_what_waits_too_long_without_being_tried_is_given_up() -> None:
    """A receiver that is left alone for ever does not keep deliveries for ever."""
    found = callback.defer(POLICY, command(deferred=3), 0.0, "it is busy", NOW)
    assert isinstance(found, PutBack)
    assert 8 <= (found.at - NOW).total_seconds() <= 9.6
    late = callback.defer(POLICY, command(), 1.0, "it is busy", NOW + timedelta(seconds=3_600))
    assert late == Settle("not delivered within 3600 s, after 0 attempts: it is busy")


@given(st.integers(0, 60), st.integers(0, 3))
def test_it_ends_whatever_happens(deferred: int, before: int) -> None:
    """Every step comes later than the one before, and none after the time at which it is given up."""
    for found in (
        callback.defer(POLICY, command(deferred=deferred), 0.0, "busy", NOW),
        callback.after(POLICY, command(tried=(tried(),) * before), tried(), None, NOW),
    ):
        if isinstance(found, PutBack):
            assert NOW < found.at < NOW + timedelta(seconds=POLICY.give_up_s)


def test_a_receiver_gets_a_few_places_and_a_tenant_not_all() -> None:
    receivers = Receivers(lambda: 0.0)
    assert [receivers.enter("acme", ORIGIN) for _ in range(PER_ORIGIN)] == [None] * PER_ORIGIN
    assert receivers.enter("acme", ORIGIN) == 0.0
    others = [f"https://b{n}.example" for n in range(PER_TENANT - PER_ORIGIN)]
    assert all(receivers.enter("acme", one) is None for one in others)
    assert receivers.enter("acme", "https://c.example") == 0.0
    assert receivers.enter("other", "https://c.example") is None
    receivers.leave("acme", ORIGIN, well=True)
    assert receivers.enter("acme", ORIGIN) is None


def test_a_dead_receiver_is_left_alone_then_tried_with_one() -> None:
    now = 0.0
    receivers = Receivers(lambda: now)
    for _ in range(OPENS_AFTER):
        assert receivers.enter("acme", ORIGIN) is None
        receivers.leave("acme", ORIGIN, well=False)
    assert receivers.enter("acme", ORIGIN) == 30.0
    assert receivers.enter("acme", "https://b.example") is None
    now = 31.0
    assert receivers.enter("acme", ORIGIN) is None
    assert receivers.enter("acme", ORIGIN) == 0.0
    receivers.leave("acme", ORIGIN, well=False)
    assert receivers.enter("acme", ORIGIN) == 60.0
    now = 92.0
    assert receivers.enter("acme", ORIGIN) is None
    receivers.leave("acme", ORIGIN, well=True)
    assert [receivers.enter("acme", ORIGIN) for _ in range(2)] == [None, None]


def test_what_fails_together_has_one_origin() -> None:
    assert (
        origin_of("https://A.example:8443/x?y=1") == origin_of("https://a.example:8443/z") == "https://a.example:8443"
    )
