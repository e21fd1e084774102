"""Calls against a real server and a scripted provider: each is settled once, with what it cost."""

import asyncio
import logging
import time
from datetime import UTC, datetime

import pytest

from services.executor.attempts import RULES, Policy, Rule
from services.executor.concurrency import Places
from shared import subjects
from shared.contracts.events import RunEnded
from shared.contracts.ids import Lane, Purpose
from shared.contracts.message import ChatMessage
from tests.conftest import eventually
from tests.executor.conftest import TENANT, Begin, World, call, route, run
from tests.executor.standin import answer, delta, hang, hang_up, refuse, streamed, text_stream, when


async def test_a_call_is_answered_settled_and_gone_from_its_queue(begin: Begin) -> None:
    """One attempt on the log, one request, one settlement with tokens, cost and what the command carried."""
    world = await begin()
    command = call(category="M", note="as asked")
    settled = await world.do(command)
    assert (settled.outcome, settled.text, settled.finish_reason) == ("answered", "hello", "stop")
    assert (settled.cost_usd, settled.cost_known, settled.usage.total_tokens) == (0.001, True, 15)
    assert (settled.role, settled.asked_role, settled.provider) == ("medium_ai", "medium_ai", "openrouter")
    assert (settled.model, settled.attempts, settled.simulated) == ("served/model", 1, True)
    assert (settled.category, settled.note, settled.purpose) == ("M", "as asked", Purpose.ANSWER)
    (attempt,) = await world.attempts(command)
    assert (attempt.attempt, attempt.model) == (1, "vendor/medium_ai")
    await world.emptied()
    (seen,) = world.provider.seen
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["authorization"] == "Bearer sk-secret-key"
    assert seen.headers["x-segue-run"] == command.run.run_id
    assert seen.headers["x-segue-call"] == "answer.answer"
    assert seen.headers["x-segue-attempt"] == "1"
    assert seen.body == {
        "model": "vendor/medium_ai",
        "messages": [{"role": "user", "content": "how are you?"}],
        "temperature": 0.5,
        "max_tokens": 100,
    }


async def test_the_call_overrides_the_role(begin: Begin) -> None:
    """Temperature, length and top_p of the command win over the role's."""
    world = await begin()
    await world.do(call(run(), temperature=0.0, max_tokens=7, top_p=0.25, lane=Lane.CONTROL))
    body = world.provider.seen[0].body
    assert (body["temperature"], body["max_tokens"], body["top_p"]) == (0.0, 7, 0.25)


# Again, and with whom


async def test_a_short_wait_is_waited_in_place(begin: Begin) -> None:
    """A 500, then the answer: two attempts on the log, the failure told, its cost counted."""
    world = await begin()
    world.provider.then(refuse(500, "oops", metadata={"error_type": "server"}))
    command = call()
    settled = await world.do(command)
    assert (settled.outcome, settled.attempts) == ("answered", 2)
    (failed,) = settled.failed
    assert (failed.attempt, failed.fault.code, failed.fault.status) == (1, "provider_error", 500)
    assert failed.fault.message == "openrouter (vendor/medium_ai) answered 500: oops"
    assert [one.attempt for one in await world.attempts(command)] == [1, 2]
    assert [seen.headers["x-segue-attempt"] for seen in world.provider.seen] == ["1", "2"]


async def test_a_server_that_closes_kept_connections_costs_no_time(begin: Begin) -> None:
    """It hangs up just as its connection is used again: another attempt on the log, without a wait."""
    world = await begin(policy=Policy(base_s=30.0, jitter=False))
    await world.do(call())
    world.provider.then(hang_up)
    settled = await world.do(call(), within_s=20)
    assert (settled.outcome, settled.attempts) == ("answered", 2)
    assert settled.failed[0].fault.code in {"connection_lost", "not_sent"}


async def test_a_429_waits_on_the_bus_as_long_as_the_provider_says(
    begin: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    """Put back and acked; it comes back by itself and uses up no retry."""
    caplog.set_level(logging.INFO, "segue.executor")
    none_left = {**RULES, "transient": Rule(0)}
    world = await begin(policy=Policy(rules=none_left, jitter=False))
    world.provider.then(refuse(429, "slow down", {"retry-after": "1.5"}), refuse(429, "slow", {"retry-after": "1.1"}))
    command = call()
    began = time.monotonic()
    await world.send(command)
    settled = await world.settled(command)
    assert time.monotonic() - began >= 2.6
    waits = [record.__dict__["after_s"] for record in caplog.records if record.message == "attempt.waits"]
    assert waits == [1.5, 1.1]
    assert (settled.outcome, settled.attempts) == ("answered", 3)
    assert [(one.fault.code, one.backpressure) for one in settled.failed] == [("rate_limited", True)] * 2
    assert [one.attempt for one in await world.attempts(command)] == [1, 2, 3]


async def test_a_call_that_waits_holds_no_place(begin: Begin) -> None:
    """Long before its time is over its handler is through, and only the bus has it."""
    world = await begin()
    world.provider.then(refuse(429, "slow down", {"retry-after": "50"}))
    await world.send(call(run(lasts_s=600)))
    await eventually(lambda: len(world.provider.seen) == 1)
    await eventually(lambda: all(pull.running == 0 for pull in world.pulls))

    async def waits() -> bool:
        return await world.queued() == 1

    await eventually(waits)
    assert len(world.provider.seen) == 1


async def test_a_copy_of_a_waiting_call_changes_nothing(begin: Begin) -> None:
    """Whoever publishes it again meanwhile gets no second attempt for it, before or after the wait is over."""
    world = await begin()
    world.provider.then(refuse(429, "slow down", {"retry-after": "1.5"}))
    command = await world.send(call())

    async def put_back() -> bool:
        return (await world.bus.client.jetstream().stream_info("CALLS")).state.last_seq > 1

    async def dropped() -> bool:
        return await world.queued() <= 1  # its wait may be over by now

    await eventually(put_back)
    await eventually(dropped)
    await world.send(command)
    await eventually(dropped)
    settled = await world.settled(command)
    assert (settled.attempts, settled.unknown, len(settled.failed)) == (2, (), 1)
    await world.send(command)
    await world.emptied()
    assert len(world.provider.seen) == 2
    assert len(await world.attempts(command)) == 2


async def test_a_large_call_waits_by_reference(begin: Begin) -> None:
    """A 700 KB command is put back and comes back whole; a 600 KB answer is settled."""
    world = await begin()
    text, long = "x" * 700_000, "y" * 600_000
    world.provider.then(refuse(429, "slow down", {"retry-after": "1.1"}), answer(long))
    settled = await world.do(call(messages=(ChatMessage(role="user", content=text),)))
    assert settled.text == long
    assert list(world.provider.prompts()) == [text, text]


async def test_the_next_role_of_the_chain_answers(begin: Begin) -> None:
    """An invalid request goes to the fallback at once; one that has no provider is passed over."""
    gone = {"thinking_ai": route("thinking_ai", "", unavailable="no key")}
    world = await begin(routes=gone, fallbacks={"medium_ai": ["thinking_ai", "fast_ai"]})
    world.provider.then(refuse(404, "no such model"))
    settled = await world.do(call())
    assert (settled.outcome, settled.role, settled.asked_role) == ("answered", "fast_ai", "medium_ai")
    assert [(one.role, one.fault.code) for one in settled.failed] == [("medium_ai", "model_not_found")]
    assert [seen.body["model"] for seen in world.provider.seen] == ["vendor/medium_ai", "vendor/fast_ai"]


async def test_a_role_without_provider_is_answered_by_its_fallback(begin: Begin) -> None:
    gone = {"medium_ai": route("medium_ai", "", unavailable="no key")}
    world = await begin(routes=gone, fallbacks={"medium_ai": ["fast_ai"]})
    settled = await world.do(call())
    assert (settled.outcome, settled.role, settled.attempts) == ("answered", "fast_ai", 1)


async def test_nobody_can_be_asked(begin: Begin) -> None:
    """Settled at once, without an attempt, with what to set."""
    gone = {"veo_3_1": route("veo_3_1", "", unavailable="role 'veo_3_1' has no provider: set GOOGLE_AI_API_KEY")}
    world = await begin(routes=gone)
    command = call(role="veo_3_1")
    settled = await world.do(command)
    assert settled.fault is not None
    assert (settled.outcome, settled.fault.type, settled.fault.code) == ("failed", "persistent", "no_provider")
    assert "set GOOGLE_AI_API_KEY" in settled.fault.message
    assert (settled.attempts, settled.cost_known, await world.attempts(command)) == (0, True, [])


async def test_a_role_that_is_not_configured(begin: Begin) -> None:
    world = await begin()
    settled = await world.do(call(role="nobody_ai"))
    assert settled.fault is not None
    assert settled.fault.code == "unknown_role"
    assert "medium_ai" in settled.fault.message


async def test_giving_up_tells_the_last_fault_and_all_attempts(begin: Begin) -> None:
    """A key that is refused: once more for a glitch, then a person has to act."""
    world = await begin()
    world.provider.default = refuse(401, "bad key sk-secret-key")
    settled = await world.do(call())
    assert settled.fault is not None
    assert (settled.outcome, settled.fault.code, settled.attempts, settled.cost_usd) == (
        "failed",
        "authentication",
        2,
        0,
    )
    assert "***" in settled.fault.message
    assert "sk-secret" not in settled.model_dump_json()


async def test_costs_of_failed_attempts_are_counted(begin: Begin) -> None:
    """A filtered answer is paid for; the total is that of all attempts."""
    world = await begin(fallbacks={"medium_ai": ["fast_ai"]})
    world.provider.then(answer("x", cost=0.25, finish_reason="content_filter"))
    settled = await world.do(call())
    assert (settled.cost_usd, settled.cost_known, settled.usage.total_tokens) == (0.251, True, 30)


async def test_a_cost_that_nobody_says_is_flagged(begin: Begin) -> None:
    world = await begin()
    world.provider.then(answer(cost=None))
    settled = await world.do(call())
    assert (settled.outcome, settled.cost_usd, settled.cost_known) == ("answered", 0.0, False)


async def test_an_answer_too_long_is_asked_for_at_half_the_length(begin: Begin) -> None:
    world = await begin()
    world.provider.then(refuse(400, "too many", metadata={"error_type": "max_tokens_exceeded"}))
    assert (await world.do(call())).outcome == "answered"
    assert [seen.body["max_tokens"] for seen in world.provider.seen] == [100, 50]


async def test_a_limit_of_concurrency_holds(begin: Begin, world: World) -> None:
    """Two at a time, the third when one is done."""
    await begin(concurrency={"medium_ai": Places(world.bus, "medium_ai", 2, "me")})
    go = asyncio.Event()
    world.provider.then(*[when(go, answer()) for _ in range(5)])
    commands = [await world.send(call()) for _ in range(5)]
    await eventually(lambda: len(world.provider.seen) == 2)
    await eventually(lambda: sum(pull.running for pull in world.pulls) == 5)
    assert len(world.provider.seen) == 2
    go.set()
    assert {(await world.settled(command)).outcome for command in commands} == {"answered"}


# Time


async def test_a_call_that_comes_too_late_is_not_asked(begin: Begin) -> None:
    world = await begin()
    settled = await world.do(call(run(lasts_s=-1)))
    assert settled.fault is not None
    assert (settled.fault.type, settled.fault.code, settled.attempts) == ("resource", "deadline", 0)
    assert world.provider.seen == []


async def test_a_provider_that_hangs_ends_with_the_deadline(begin: Begin) -> None:
    """An honest failure in time; nothing is asked after it."""
    world = await begin(fallbacks={"medium_ai": ["fast_ai"]})
    world.provider.default = hang
    command = call(run(lasts_s=4.0))  # so long that its time is not over before it is asked
    settled = await world.do(command, within_s=30)
    assert settled.fault is not None
    assert (settled.fault.code, settled.attempts, settled.cost_known) == ("timeout", 1, False)


async def test_a_call_has_a_time_of_its_own(begin: Begin) -> None:
    """`timeout_s` bounds an attempt; the next one has it anew."""
    world = await begin(policy=Policy(rules={**RULES, "resource": Rule(20)}, base_s=0.05, max_s=0.1))
    world.provider.then(hang)
    settled = await world.do(call(timeout_s=0.2))
    assert (settled.outcome, settled.failed[0].fault.code) == ("answered", "timeout")


async def test_a_wait_beyond_the_deadline_is_not_waited(begin: Begin) -> None:
    """Given up at once, with what the provider said."""
    world = await begin()
    world.provider.then(refuse(429, "come back in a minute", {"retry-after": "60"}))
    command = call(run(lasts_s=50))
    settled = await world.do(command)
    assert settled.fault is not None
    assert settled.fault.code == "rate_limited"
    assert datetime.now(UTC) < command.run.deadline_at


async def test_nothing_is_bought_for_a_run_that_has_ended(begin: Begin) -> None:
    world = await begin()
    command = call()
    await world.write(
        subjects.events(TENANT, command.run.run_id).ended,
        RunEnded(run=command.run, outcome="cancelled", ended_at=datetime.now(UTC)),
    )
    settled = await world.do(command)
    assert settled.fault is not None
    assert (settled.fault.code, settled.cost_known, world.provider.seen) == ("run_ended", True, [])


async def test_cancelling_stops_what_is_asked(begin: Begin) -> None:
    """The request is aborted; what the provider may charge for it is unknown, and said so."""
    world = await begin()
    world.provider.then(streamed(delta("half"), then=hang))
    command = await world.send(call(stream=True))
    await eventually(lambda: len(world.provider.seen) == 1)
    assert world.executor.running.cancel(TENANT, command.run.run_id, "the user went away") == 1
    settled = await world.settled(command)
    assert settled.fault is not None
    assert (settled.fault.code, settled.cost_known, settled.attempts) == ("cancelled", False, 1)
    assert "the user went away" in settled.fault.message
    await eventually(lambda: world.provider.aborted == 1)
    await eventually(lambda: world.executor.running.cancel(TENANT, command.run.run_id, "again") == 0)


async def test_cancelling_ends_a_short_wait(
    begin: Begin, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is waited in place; here it is long, so that it is not over before it is cancelled."""
    monkeypatch.setattr("services.executor.handlers.IN_PLACE_S", 60.0)
    world = await begin(policy=Policy(base_s=30.0, jitter=False))
    world.provider.default = refuse(500)
    command = await world.send(call())
    await eventually(lambda: "attempt.failed" in caplog.messages)
    assert world.executor.running.cancel(TENANT, command.run.run_id, "stop") == 1
    settled = await world.settled(command)
    assert settled.fault is not None
    assert (settled.fault.code, settled.attempts) == ("cancelled", 1)
    assert len(world.provider.seen) == 1


# Text as it comes in


async def test_text_is_published_in_order_with_its_offsets(begin: Begin) -> None:
    world = await begin()
    world.provider.then(text_stream("grün ", "漢字 ", "🎈", "!"))
    command = call(stream=True)
    heard = await world.listen(command)
    settled = await world.do(command)
    whole = "grün 漢字 🎈!"
    assert settled.text == whole
    # What the provider sends together goes out together: the pieces may differ, the text and its offsets may not.
    await eventually(lambda: "".join(one["text"] for one in heard) == whole)
    assert all(whole[one["offset"] :].startswith(one["text"]) for one in heard)
    assert {(one["call"], one["attempt"]) for one in heard} == {("answer", 1)}
    assert settled.cost_usd == 0.002


async def test_after_text_has_gone_out_the_next_attempt_says_that_it_starts_again(begin: Begin) -> None:
    """A cut stream is a failed attempt; a listener is told before the text comes anew, and the answer is whole."""
    world = await begin()
    world.provider.then(streamed(delta("half an ans"), end=False), text_stream("all of it"))
    command = call(stream=True)
    heard = await world.listen(command)
    settled = await world.do(command)
    await eventually(lambda: len(heard) == 3)
    assert heard == [
        {"call": "answer", "attempt": 1, "offset": 0, "text": "half an ans"},
        {"call": "answer", "attempt": 2, "restart": True},
        {"call": "answer", "attempt": 2, "offset": 0, "text": "all of it"},
    ]
    assert (settled.text, settled.attempts, settled.cost_known) == ("all of it", 2, False)
    assert settled.failed[0].fault.code == "stream_cut"
