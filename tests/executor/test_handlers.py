"""Calls against a real server and a scripted provider: each is settled once, with what it cost."""

import asyncio
import json
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nats.aio.msg import Msg

from services.executor import claims, settlement, taxonomy
from services.executor.attempts import RULES, Policy, Rule
from services.executor.claims import STILL
from services.executor.concurrency import Places
from services.executor.providers import Answered
from services.executor.roster import Roster
from services.executor.settlement import Ledger
from shared import subjects
from shared.bus.delivery import Delivery, Done, Retry
from shared.bus.errors import Unavailable
from shared.bus.log import Log, Written
from shared.contracts.commands import ChatRequest, ExecuteCall
from shared.contracts.events import AttemptStarted, CallSettled, RunAccepted, RunEnded
from shared.contracts.ids import Lane, Purpose
from shared.contracts.message import ChatMessage
from tests.conftest import eventually
from tests.executor.conftest import TENANT, Begin, World, call, route, run
from tests.executor.standin import answer, delta, hang, hang_up, refuse, streamed, text_stream, when


async def lost(world: World, command: ExecuteCall, number: int, by: str = "dead.claim") -> AttemptStarted:
    """Write the claim of an executor that is not there."""
    started = AttemptStarted(
        run=command.run,
        call=command.call,
        attempt=number,
        role=command.role,
        provider="openrouter",
        model="vendor/medium_ai",
        reserved_usd=0.5,
        claimed_by=by,
        started_at=datetime.now(UTC),
    )
    await world.write(
        subjects.events(TENANT, command.run.run_id).attempt(command.purpose, command.call, number), started
    )
    return started


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


# Other hands


async def test_an_attempt_of_a_dead_executor_is_unknown(begin: Begin) -> None:
    """Its claim is on the log and nobody answers for it: the next attempt is made, the lost one is listed."""
    world = await begin()
    command = call()
    await lost(world, command, 1)
    settled = await world.do(command)
    assert (settled.outcome, settled.attempts, settled.cost_known) == ("answered", 2, False)
    assert [(one.attempt, one.reserved_usd) for one in settled.unknown] == [(1, 0.5)]


async def test_a_call_that_kills_executors_is_given_up(begin: Begin) -> None:
    """After four attempts whose outcome died, nobody tries it again."""
    world = await begin()
    command = call()
    for number in (1, 2, 3, 4):
        await lost(world, command, number)
    settled = await world.do(command)
    assert settled.fault is not None
    assert (settled.fault.type, settled.fault.code, settled.attempts) == ("fatal", "executor_died", 4)
    assert world.provider.seen == []


async def test_a_call_that_this_code_cannot_deal_with_fails_and_is_buried(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run is told after some deliveries, instead of waiting for its deadline."""
    world = await begin()

    async def bug(*_: object) -> None:
        raise IndexError("nobody thought of this")

    monkeypatch.setattr(Roster, "passing", bug)
    command = call(run(lasts_s=600))
    settled = await world.do(command)
    assert settled.fault is not None
    assert (settled.fault.type, settled.fault.code, settled.attempts) == ("fatal", "internal_error", 0)
    assert "IndexError" in settled.fault.message
    headers = (await buried(world)).headers or {}
    assert any("nobody thought of this" in value for value in headers.values())


async def test_an_attempt_that_somebody_still_works_on_is_left_to_him(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked, the other executor says so; when it has settled the call, there is nothing left to do."""
    monkeypatch.setattr(claims, "ANSWER_WITHIN_S", 10.0)
    world = await begin()
    command = call()
    asked: list[str] = []

    async def other(msg: Msg) -> None:
        asked.append(msg.subject)
        await msg.respond(STILL)

    working = await world.bus.client.subscribe(subjects.working("other.*"), cb=other)
    started = await lost(world, command, 1, by="other.claim")
    await world.send(command)
    await eventually(lambda: len(asked) >= 2)
    assert (world.provider.seen, await world.queued()) == ([], 1)
    fact = settlement.answered(Ledger.of(command), started, Answered("his"), took_s=0, simulated=False)
    await world.write(subjects.events(TENANT, command.run.run_id).settled(command.purpose, command.call), fact)
    await working.unsubscribe()
    await world.emptied()
    assert (await world.settled(command)).text == "his"
    assert world.provider.seen == []


def delivery(world: World, command: ExecuteCall, seq: int, *, times: int = 1) -> Delivery:
    """Return the message of a call as a consumer would hand it out."""
    return Delivery(world.subject(command), command.encode(), None, "medium", "CALLS", seq, times, 0, 0)


async def test_a_message_whose_call_waits_is_dropped(begin: Begin) -> None:
    """Its executor put the call back and died before its ack: what waits knows of the attempt that failed."""
    world = await begin(takes=False)
    command = call()
    await lost(world, command, 1)
    later = datetime.now(UTC) + timedelta(minutes=5)
    waiting = subjects.wait(command.run, command.purpose, command.call)
    await world.bus.log.send_at(waiting, world.subject(command), command, later)
    assert await world.executor.execute(delivery(world, command, 1)) == Done()
    assert await world.executor.execute(delivery(world, command, 1, times=2)) == Done()
    assert world.provider.seen == []


async def test_the_latest_message_of_a_call_goes_on(begin: Begin) -> None:
    """Its wait is over: of two messages on the subject the later one knows more."""
    world = await begin(takes=False)
    command = call()
    await lost(world, command, 1)
    first = await world.bus.jetstream.publish(world.subject(command), command.encode())
    second = await world.bus.jetstream.publish(world.subject(command), command.encode())
    assert await world.executor.execute(delivery(world, command, first, times=2)) == Done()
    assert world.provider.seen == []
    assert await world.executor.execute(delivery(world, command, second)) == Done()
    assert len(world.provider.seen) == 1


async def test_a_call_that_was_settled_without_an_attempt_is_not_bought(begin: Begin) -> None:
    """Its executor died between settling and its ack, and what it could not do then can be done now."""
    world = await begin(takes=False)
    command = call()
    why = settlement.fault(taxonomy.NO_PROVIDER, "no key")
    fact = settlement.failed(Ledger.of(command), why, started=None, simulated=False)
    await world.write(subjects.events(TENANT, command.run.run_id).settled(command.purpose, command.call), fact)
    assert await world.executor.execute(delivery(world, command, 1, times=2)) == Done()
    assert world.provider.seen == []


async def test_after_a_reconnect_nobody_is_taken_for_dead_at_once(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who does not answer may only not be connected again yet; after a moment he is dead."""
    world = await begin(takes=False)
    command = call()
    await lost(world, command, 1)
    monkeypatch.setattr(claims, "BACK_WITHIN_S", 600.0)
    await world.executor.claims.reconnected()
    assert await world.executor.execute(delivery(world, command, 1, times=2)) == Retry(1.0)
    monkeypatch.setattr(claims, "BACK_WITHIN_S", 0.0)
    assert await world.executor.execute(delivery(world, command, 1, times=2)) == Done()
    assert len(world.provider.seen) == 1


async def test_the_answer_survives_a_server_that_dies_meanwhile(begin: Begin) -> None:
    """The bus is gone for longer than a message waits for its ack: one request, one settlement."""
    world = await begin()
    go = asyncio.Event()
    world.provider.then(when(go, answer("kept")))
    command = await world.send(call())
    await eventually(lambda: len(world.provider.seen) == 1)
    world.server.kill()
    await eventually(lambda: not world.bus.client.is_connected)
    go.set()
    await asyncio.sleep(3.0)  # how long it is away
    await world.server.start()
    settled = await world.settled(command)
    assert (settled.text, settled.attempts, settled.unknown) == ("kept", 1, ())
    assert len(world.provider.seen) == 1


async def test_an_answer_that_was_paid_for_is_kept_until_the_log_takes_it(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log does not answer, again and again: nothing is asked anew, the answer is written when it does."""
    world = await begin(takes=False)
    write, refusals = Log.write, 3

    async def unavailable_at_first(self: Log, subject: str, fact: Any) -> Written[Any]:
        nonlocal refusals
        if isinstance(fact, CallSettled) and refusals:
            refusals -= 1
            raise Unavailable("write", 20.0)
        return await write(self, subject, fact)

    monkeypatch.setattr(Log, "write", unavailable_at_first)
    command = call()
    assert await world.executor.execute(delivery(world, command, 1)) == Done()
    assert (await world.settled(command)).text == "hello"
    assert (refusals, len(world.provider.seen)) == (0, 1)


# Bad input


async def buried(world: World) -> Msg:
    """Wait for the dead letter and return it."""
    jetstream = world.bus.client.jetstream()

    async def there() -> bool:
        return (await jetstream.stream_info("DEAD")).state.messages >= 1

    await eventually(there)
    subscription = await jetstream.subscribe(subjects.dead("executor"), ordered_consumer=True)
    return await subscription.next_msg(timeout=15)


@pytest.mark.parametrize(
    ("wrong", "said"), [({"v": 99}, "version 99"), ({"messages": "none"}, "messages"), ({"role": None}, "role")]
)
async def test_a_command_that_cannot_be_read_is_settled_and_buried(
    begin: Begin, wrong: dict[str, object], said: str
) -> None:
    """The run's call ends as failed, with the reason, so that whoever waits for it goes on."""
    world = await begin()
    command = call()
    body = command.model_dump(mode="json") | wrong
    await world.bus.jetstream.publish(world.subject(command), json.dumps(body).encode())
    settled = await world.settled(command)
    assert settled.fault is not None
    assert (settled.outcome, settled.fault.code) == ("failed", "unreadable_command")
    assert said in settled.fault.message
    letter = await buried(world)
    assert letter.headers is not None
    assert letter.headers["Segue-Subject"] == world.subject(command)
    assert said in letter.headers["Segue-Reason"]
    await world.emptied()


async def test_garbage_about_a_known_run_ends_its_call(begin: Begin) -> None:
    """Nothing in the body can be read; the subject and the log say whose it is."""
    world = await begin()
    command = call()
    accepted = RunAccepted(run=command.run, request=ChatRequest(message="hi"), by="categorizer")
    await world.write(subjects.events(TENANT, command.run.run_id).accepted, accepted)
    await world.bus.jetstream.publish(world.subject(command), b"\x00 not json")
    settled = await world.settled(command)
    assert settled.run == command.run
    assert settled.fault is not None
    assert settled.fault.code == "unreadable_command"
    await buried(world)


async def test_garbage_about_nobody_is_only_buried(begin: Begin) -> None:
    world = await begin()
    await world.bus.jetstream.publish(world.subject(call()), b"[1, 2")
    assert (await buried(world)).data == b"[1, 2"
    assert world.provider.seen == []


async def test_a_command_for_another_call_than_its_subject_says_is_refused(begin: Begin) -> None:
    """Else one run's command could buy for another."""
    world = await begin()
    command, other = call(), call()
    await world.bus.jetstream.publish(world.subject(other), command.encode())
    letter = await buried(world)
    assert letter.headers is not None
    assert "another call than its subject" in letter.headers["Segue-Reason"]
    assert world.provider.seen == []
