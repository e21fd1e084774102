"""The log keeps each fact once, whoever writes it and whatever is lost on the way; commands are queued once."""

import asyncio
import contextlib
import statistics
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import nats
import pytest
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg

from shared import subjects
from shared.bus.connection import Bus, open_bus
from shared.bus.errors import NotProvisioned, QueueFull, Unavailable
from shared.bus.jetstream import JetStream
from shared.bus.log import FactVanished
from shared.bus.provisioner import provision
from shared.bus.server import NatsServer
from shared.contracts.commands import DeadlinePassed, ExecuteCall, FinishRun, SubmitRequest
from shared.contracts.events import AttemptStarted, CallSettled, RunAccepted, RunCategorized
from shared.contracts.ids import Lane, Priority, Purpose
from shared.contracts.message import ChatMessage, Run, Unreadable
from shared.moments import rfc3339
from shared.topology import EVENTS, EXECUTOR, FINISHER, FINISHER_DEADLINES, FINISHES, REQUESTS, Feed, Limits
from tests.bus.ground import Ground, accepted, categorized, facts_of, fetched, request
from tests.conftest import eventually


class Loses:
    """Stands in for `JetStream.request` and loses the answers, or the questions, of its first calls."""

    def __init__(self, jetstream: JetStream, *, answers: int = 0, questions: int = 0) -> None:
        self._request = jetstream.request
        self.answers, self.questions = answers, questions

    async def __call__(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Msg:
        if self.questions:
            self.questions -= 1
            raise TimeoutError
        answer = await self._request(subject, data, headers=headers, timeout_s=timeout_s)
        if self.answers:
            self.answers -= 1
            raise TimeoutError
        return answer


def losing(monkeypatch: pytest.MonkeyPatch, bus: Bus, *, answers: int = 0, questions: int = 0) -> Loses:
    loses = Loses(bus.jetstream, answers=answers, questions=questions)
    monkeypatch.setattr(bus.jetstream, "request", loses)
    return loses


# Facts


async def test_of_twenty_writers_one_wins_and_all_go_on_with_its_fact(ground: Ground) -> None:
    run = ground.run()
    buses = [*ground.buses, *[await ground.bus() for _ in range(3)]]
    facts = [categorized(run, f"writer {n}") for n in range(20)]
    written = await asyncio.gather(
        *(buses[n % 4].log.write(facts_of(run).category, fact) for n, fact in enumerate(facts))
    )
    assert [one.mine for one in written].count(True) == 1
    winner = next(n for n, one in enumerate(written) if one.mine)
    assert all(one.fact == facts[winner] for one in written)
    assert await buses[3].log.read(facts_of(run).category, RunCategorized) == facts[winner]
    assert await ground.stored(EVENTS, facts_of(run).category) == 1


async def test_of_twenty_writers_of_the_very_same_fact_one_wins(ground: Ground) -> None:
    """A handler that runs again writes the same words: it must not take them for a first time."""
    run = ground.run()
    buses = [*ground.buses, await ground.bus()]
    fact = accepted(run)
    written = await asyncio.gather(*(buses[n % 2].log.write(facts_of(run).accepted, fact) for n in range(20)))
    assert [one.mine for one in written].count(True) == 1
    assert all(one.fact == fact for one in written)
    again = await buses[0].log.write(facts_of(run).accepted, fact)
    assert (again.mine, again.fact) == (False, fact)


@pytest.mark.parametrize("fact_is", ["small", "large"])
async def test_a_write_whose_answer_is_lost_is_still_mine(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, fact_is: str
) -> None:
    run, (bus,) = ground.run(), ground.buses
    fact = accepted(run, "x" * (10 if fact_is == "small" else 500_000))
    loses = losing(monkeypatch, bus, answers=3)
    written = await bus.log.write(facts_of(run).accepted, fact)
    assert loses.answers == 0
    assert (written.mine, written.fact) == (True, fact)
    assert await ground.stored(EVENTS, facts_of(run).accepted) == 1


async def test_a_write_whose_question_is_lost_is_tried_again(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    run, (bus,) = ground.run(), ground.buses
    losing(monkeypatch, bus, questions=2)
    assert (await bus.log.write(facts_of(run).accepted, accepted(run))).mine
    assert await ground.stored(EVENTS, facts_of(run).accepted) == 1


async def test_another_fact_is_there_although_my_answer_was_lost(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, bus = ground.run(), await ground.bus()
    await ground.buses[0].log.write(facts_of(run).category, categorized(run, "first"))
    losing(monkeypatch, bus, answers=2)
    written = await bus.log.write(facts_of(run).category, categorized(run, "second"))
    assert (written.mine, written.fact.reason) == (False, "first")


async def test_what_is_not_there_is_none(ground: Ground) -> None:
    run, (bus,) = ground.run(), ground.buses
    assert await bus.log.read(facts_of(run).ended, RunAccepted) is None
    assert not await bus.log.exists(facts_of(run).ended)
    await bus.log.write(facts_of(run).accepted, accepted(run))
    assert await bus.log.exists(facts_of(run).accepted)
    assert not await bus.log.exists(facts_of(run).category)


async def test_a_fact_of_a_later_version_is_unreadable_and_stays(ground: Ground) -> None:
    run, (bus,) = ground.run(), ground.buses
    body = accepted(run).encode().replace(b'"v":1', b'"v":2')
    await bus.jetstream.publish_once(facts_of(run).accepted, body)
    with pytest.raises(Unreadable, match="of version 2"):
        await bus.log.read(facts_of(run).accepted, RunAccepted)
    with pytest.raises(Unreadable, match="of version 2"):
        await bus.log.write(facts_of(run).accepted, accepted(run))


async def test_a_fact_that_is_refused_and_not_there_is_an_error(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only somebody who empties the log does that; going on with one's own fact would be guessing."""
    run, (bus,) = ground.run(), ground.buses

    async def purged(*_: object, **__: object) -> None:
        return None

    monkeypatch.setattr(bus.jetstream, "publish_once", purged)
    with pytest.raises(FactVanished, match="was the stream EVENTS purged"):
        await bus.log.write(facts_of(run).accepted, accepted(run))


def attempt(run: Run, call: str, number: int) -> AttemptStarted:
    return AttemptStarted(
        run=run, call=call, attempt=number, role="r", provider="p", model="m", claimed_by="x", started_at=run.born_at
    )


def settled(run: Run, call: str, purpose: Purpose = Purpose.TASK) -> CallSettled:
    return CallSettled(run=run, call=call, purpose=purpose, outcome="answered", text="t", role="r", asked_role="r")


async def test_a_runs_facts_come_in_order_and_without_anybody_elses(ground: Ground) -> None:
    run, other, (bus,) = ground.run(), ground.run(), ground.buses
    facts = facts_of(run)
    await bus.log.write(facts.accepted, accepted(run))
    await bus.log.write(facts_of(other).accepted, accepted(other))
    await bus.log.write(facts.attempt(Purpose.TASK, "0-0", 1), attempt(run, "0-0", 1))
    await bus.log.write(facts.settled(Purpose.TASK, "0-0"), settled(run, "0-0"))
    await bus.log.write(facts.settled(Purpose.DECISION, "plan-0"), settled(run, "plan-0", Purpose.DECISION))
    everything = ["accepted", "call.task.0-0.attempt.1", "call.task.0-0.settled", "call.decision.plan-0.settled"]

    async def all_there() -> bool:  # a replica may be a moment behind
        return [subjects.fact_of(one.subject) for one in await bus.log.facts(run.tenant, run.run_id)] == everything

    await eventually(all_there)

    async def told() -> bool:  # perhaps by another replica
        story = await bus.log.story(run.tenant, run.run_id)
        return [subjects.fact_of(one.subject) for one in story] == [everything[0], *everything[2:]]

    await eventually(told)
    story = await bus.log.story(run.tenant, run.run_id)
    assert await bus.log.decode(story[0], RunAccepted) == accepted(run)
    assert await bus.log.facts(run.tenant, "nobody") == []


async def test_facts_of_a_run_with_more_than_the_server_gives_at_once(ground: Ground) -> None:
    """Five hundred tasks, some tried again: the server refuses over 1024 subjects in one answer."""
    run, (bus,) = ground.run(), ground.buses
    facts = facts_of(run)
    wanted = [facts.accepted, facts.ended]
    for task in range(400):
        name = f"0-{task}"
        wanted += [facts.attempt(Purpose.TASK, name, n) for n in (1, 2)]
        wanted += [facts.settled(Purpose.TASK, name)]
    for n in range(0, len(wanted), 200):
        await asyncio.gather(*(bus.jetstream.publish_once(subject, b"{}") for subject in wanted[n : n + 200]))

    async def all_there() -> bool:
        found = await bus.log.facts(run.tenant, run.run_id)
        assert [one.seq for one in found] == sorted(one.seq for one in found)
        return sorted(one.subject for one in found) == sorted(wanted)

    await eventually(all_there, within_s=30)


# Outages


async def test_every_acknowledged_fact_survives_a_killed_server(mortal: Ground) -> None:
    """Writers go on while the server (of three: the log's leader) dies and comes back; nobody gets an error."""
    buses = [await mortal.bus() for _ in range(3)]
    runs = [mortal.run() for _ in range(150)]
    dying = await mortal.leader()
    done = 0

    async def write(n: int) -> None:
        nonlocal done
        for run in runs[n::10]:
            written = await buses[n % 3].log.write(facts_of(run).accepted, accepted(run, f"fact {run.run_id}"))
            assert written.mine
            done += 1

    writers = [asyncio.create_task(write(n)) for n in range(10)]
    await eventually(lambda: done >= 20)
    dying.kill()
    await dying.start()
    await asyncio.wait_for(asyncio.gather(*writers), 70)
    for run in runs:
        fact = await buses[0].log.read(facts_of(run).accepted, RunAccepted)
        assert fact == accepted(run, f"fact {run.run_id}")
        assert await mortal.stored(EVENTS, facts_of(run).accepted) == 1


async def test_an_outage_of_every_server_loses_nothing(mortal: Ground) -> None:
    """Writes wait for its end and are stored once; timers that were due meanwhile fire then, the others in time."""
    run, bus = mortal.run(), await mortal.bus()
    timed = [mortal.run(lasts_s=seconds) for seconds in (0.3, 1.5)]
    for one in timed:
        await bus.log.set_timer(one)
    for server in mortal.servers:
        server.kill()
    large, small = accepted(run, "x" * 600_000), categorized(run, "r")
    writes = (
        asyncio.create_task(bus.log.write(facts_of(run).accepted, large)),
        asyncio.create_task(bus.log.write(facts_of(run).category, small)),
    )
    await eventually(lambda: datetime.now(UTC) > timed[0].deadline_at)
    assert not any(write.done() for write in writes)
    await asyncio.gather(*(server.start() for server in mortal.servers))
    of_large, of_small = await asyncio.wait_for(asyncio.gather(*writes), 70)
    assert (of_large.mine, of_small.mine) == (True, True)
    assert (of_large.fact, of_small.fact) == (large, small)
    assert await bus.log.read(facts_of(run).accepted, RunAccepted) == large
    for subject in (facts_of(run).accepted, facts_of(run).category):
        assert await mortal.stored(EVENTS, subject) == 1
    for one in timed:

        async def fired(one: Run = one) -> bool:
            return await mortal.stored(FINISHES, subjects.deadline(one.run_id)) == 1

        await eventually(fired, within_s=40)
        late_s = (datetime.now(UTC) - one.deadline_at).total_seconds()
        print(f"timer seen {late_s:.2f} s after its time, on {mortal.replicas} server(s)")
        assert late_s > -0.01
        assert await mortal.stored(FINISHES, subjects.timer(one.run_id)) == 0
        await bus.jetstream.purge(FINISHES, subjects.deadline(one.run_id))


async def test_patience_ends_with_what_could_not_be_done(own_nats_server: NatsServer) -> None:
    client = await nats.connect(own_nats_server.url, max_reconnect_attempts=-1, error_cb=_ignored)
    await provision(client, Limits())
    jetstream = JetStream(client, timeout_s=0.05, patience_s=0.2)
    await jetstream.start()
    own_nats_server.kill()
    for asking in (
        jetstream.publish("segue.event.t.r.accepted", b"{}"),
        jetstream.last(EVENTS, "segue.event.t.r.accepted"),
        jetstream.direct_all(EVENTS, ["segue.event.t.r.>"]),
    ):
        began = time.monotonic()
        with pytest.raises(Unavailable, match=r"no answer from NATS within \d+\.\d s; is the server"):
            await asking
        assert time.monotonic() - began < 15
    # nats-py flushes to a server that is gone; asyncio of 3.13 says so with a TypeError
    with contextlib.suppress(ConnectionResetError, TypeError):
        await client.close()


async def test_a_question_that_broke_off_is_asked_again_on_reconnect(own_nats_server: NatsServer) -> None:
    """Not only when its time is up."""

    async def reconnected() -> None:
        jetstream.reconnected()

    client = await nats.connect(
        own_nats_server.url,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.02,
        error_cb=_ignored,
        reconnected_cb=reconnected,
    )
    await provision(client, Limits())
    jetstream = JetStream(client, timeout_s=60, patience_s=60)
    await jetstream.start()
    own_nats_server.kill()
    facts = [f"segue.event.t.r{n}.accepted" for n in range(20)]
    writes = [asyncio.create_task(jetstream.publish_once(fact, b"{}")) for fact in facts]
    await eventually(lambda: not client.is_connected)
    await own_nats_server.start()
    began = time.monotonic()
    await asyncio.wait_for(asyncio.gather(*writes), 40)
    print(f"written {time.monotonic() - began:.2f} s after the server was back")
    assert all([await jetstream.last(EVENTS, fact) for fact in facts])
    await client.close()


async def _ignored(_: Exception) -> None:
    """The server is dead on purpose."""


async def test_a_server_without_our_streams_says_how_to_get_them(own_nats_server: NatsServer) -> None:
    client = await nats.connect(own_nats_server.url)
    jetstream = JetStream(client, patience_s=0.5)
    await jetstream.start()
    with pytest.raises(NotProvisioned, match=r"python -m shared\.provision"):
        await jetstream.last(EVENTS, "segue.event.t.r.accepted")
    await client.close()


# Commands


def finish(run: Run) -> FinishRun:
    return FinishRun(run=run, outcome="workflow")


async def taken(ground: Ground, feed: Feed, within_s: float = 30) -> Msg:
    """Take the next message of a service's consumer, by hand, and leave it un-acked."""
    subscription = await ground.js().pull_subscribe_bind(feed.durable, stream=feed.stream)
    (msg,) = await fetched(subscription, within_s=within_s)
    await subscription.unsubscribe()
    return msg


async def done_with(ground: Ground, feed: Feed) -> None:
    await (await taken(ground, feed)).ack_sync(timeout=30)


async def test_a_copy_of_a_command_is_refused_until_the_first_is_dealt_with(ground: Ground) -> None:
    run, (bus,) = ground.run(), ground.buses
    subject = subjects.finish(run)
    assert await bus.log.send(subject, finish(run))
    assert not await bus.log.send(subject, finish(run))  # queued
    msg = await taken(ground, FINISHER[0])
    assert msg.data == finish(run).encode()
    assert not await bus.log.send(subject, finish(run))  # being worked on
    await msg.ack_sync(timeout=30)
    async with asyncio.timeout(30):  # a cluster answers the ack before it has removed the message
        while not await bus.log.send(subject, finish(run)):
            await asyncio.sleep(0.02)
    await done_with(ground, FINISHER[0])


async def test_twenty_senders_of_a_command_queue_it_once(ground: Ground) -> None:
    run, buses = ground.run(), [*ground.buses, await ground.bus()]
    taken = await asyncio.gather(*(buses[n % 2].log.send(subjects.finish(run), finish(run)) for n in range(20)))
    assert taken.count(True) == 1
    assert await ground.stored(FINISHES, subjects.finish(run)) == 1
    await done_with(ground, FINISHER[0])


async def test_a_command_whose_answer_is_lost_is_queued_once(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    run, (bus,) = ground.run(), ground.buses
    losing(monkeypatch, bus, answers=2)
    await bus.log.send(subjects.finish(run), finish(run))
    assert await ground.stored(FINISHES, subjects.finish(run)) == 1
    await done_with(ground, FINISHER[0])


# Timers


def due(in_s: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=in_s)


async def fired(ground: Ground) -> tuple[DeadlinePassed, float]:
    """Take the next deadline that fires, and return it with the time."""
    msg = await taken(ground, FINISHER_DEADLINES)
    at = time.time()
    await msg.ack_sync(timeout=30)
    return DeadlinePassed.decode(msg.data), at


async def test_a_timer_that_stands_is_not_set_again(ground: Ground) -> None:
    (bus,) = ground.buses
    run = ground.run()
    timer, deadline, command = subjects.timer(run.run_id), subjects.deadline(run.run_id), DeadlinePassed(run=run)
    assert await bus.log.send_at(timer, deadline, command, due(300))
    assert not await bus.log.send_at(timer, deadline, command, due(300))
    assert await ground.stored(FINISHES, timer) == 1
    await bus.log.take_timer_back(run.run_id)


async def test_a_timer_fires_once_and_in_time(ground: Ground) -> None:
    (bus,) = ground.buses
    late_ms = []
    for _ in range(5):
        run, at = ground.run(), due(0.2)
        timer, deadline, command = subjects.timer(run.run_id), subjects.deadline(run.run_id), DeadlinePassed(run=run)
        assert await bus.log.send_at(timer, deadline, command, at)
        passed, at_s = await fired(ground)
        late_ms.append((at_s - at.timestamp()) * 1000)
        assert passed == command
        assert await ground.stored(FINISHES, timer) == 0
    print(f"timers late by {', '.join(f'{late:.1f}' for late in late_ms)} ms on {ground.replicas} server(s)")
    assert min(late_ms) > -5  # server and test share a clock
    assert statistics.median(late_ms) < 2_000  # of some the machine may have stood still


async def test_a_timer_that_is_taken_back_does_not_fire(ground: Ground) -> None:
    (bus,) = ground.buses
    run, later = ground.run(lasts_s=4.0), ground.run(lasts_s=4.3)
    await bus.log.set_timer(run)
    await bus.log.set_timer(run)
    await bus.log.take_timer_back(run.run_id)
    await bus.log.take_timer_back(run.run_id)
    await bus.log.set_timer(later)
    passed, _ = await fired(ground)
    assert passed.run == later  # the first was due before
    assert await ground.stored(FINISHES, subjects.deadline(run.run_id)) == 0


async def test_a_renewed_timer_is_not_taken_back_by_who_set_the_one_before(ground: Ground) -> None:
    """It stands in the place of that one, fires once, at its own time, and says its own run."""
    (bus,) = ground.buses
    first, second = ground.run(lasts_s=4.0), ground.run(lasts_s=4.3)
    second = second.model_copy(update={"run_id": first.run_id})
    own = await bus.log.set_timer(first, "planner")
    assert own is not None
    assert await bus.log.set_timer(second) is None
    assert await bus.log.timer(first.run_id) == (DeadlinePassed(run=first, by="planner"), own)
    await bus.log.renew_timer(second, "planner")
    await bus.log.take_timer_back(first.run_id, own=own)
    there = await bus.log.timer(first.run_id)
    assert there is not None
    assert (there[0], there[1] > own) == (DeadlinePassed(run=second, by="planner"), True)
    passed, at_s = await fired(ground)
    assert passed.run == second
    assert at_s > second.deadline_at.timestamp() - 0.01
    assert await ground.stored(FINISHES, subjects.timer(first.run_id)) == 0
    assert await ground.stored(FINISHES, subjects.deadline(first.run_id)) == 0


async def test_own_timer_is_taken_back(ground: Ground) -> None:
    (bus,) = ground.buses
    run = ground.run()
    own = await bus.log.set_timer(run)
    assert own is not None
    await bus.log.take_timer_back(run.run_id, own=own)
    assert await bus.log.timer(run.run_id) is None
    await bus.log.renew_timer(run)  # as good as a new one where there is none
    assert await bus.log.timer(run.run_id) is not None
    await bus.log.take_timer_back(run.run_id)


async def test_an_accepted_run_keeps_its_own_time(ground: Ground) -> None:
    """Whatever others that bore the same run have set before."""
    (bus,) = ground.buses
    mine, other = ground.run(lasts_s=60), ground.run(lasts_s=90)
    other = other.model_copy(update={"run_id": mine.run_id})
    await bus.log.set_timer(other, "categorizer")
    await bus.log.keep_timer(mine)
    there = await bus.log.timer(mine.run_id)
    assert there is not None
    assert there[0].run == mine
    await bus.log.keep_timer(mine)
    assert await bus.log.timer(mine.run_id) == there, "what is right stays as it is"
    await bus.log.take_timer_back(mine.run_id)


async def test_a_timer_of_the_past_fires_at_once(ground: Ground) -> None:
    run = ground.run(lasts_s=-60)
    await ground.buses[0].log.set_timer(run)
    passed, _ = await fired(ground)
    assert passed.run == run


async def test_a_large_command_that_waits_arrives_whole(ground: Ground) -> None:
    """A call put back to wait carries its context by reference through the schedule."""
    run, bus = ground.run(), await ground.bus()
    command = ExecuteCall(
        run=run,
        call="answer",
        purpose=Purpose.ANSWER,
        lane=Lane.VIDEO,
        role="r",
        messages=(ChatMessage(role="user", content="x" * 3_600_000),),
    )
    target = subjects.call(run, Lane.VIDEO, Purpose.ANSWER, "answer")
    await ground.buses[0].log.send_at(subjects.wait(run, Purpose.ANSWER, "answer"), target, command, due(0.1))
    msg = await taken(ground, EXECUTOR[Lane.VIDEO][0])
    assert ExecuteCall.decode(await bus.payloads.unpack(msg.data, msg.headers)) == command
    assert not await bus.log.send(target, command)  # it is queued now
    await msg.ack_sync(timeout=30)


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (datetime(2026, 11, 1, 12, 0, 0, 5, tzinfo=UTC), "2026-11-01T12:00:00.000005Z"),
        (datetime.fromisoformat("2026-11-01T12:00:00+02:00"), "2026-11-01T10:00:00.000000Z"),
    ],
)
def test_times_are_said_in_utc(at: datetime, said: str) -> None:
    assert rfc3339(at) == said


# Requests


async def test_a_request_submitted_again_counts_once(ground: Ground) -> None:
    run, buses = ground.run(), [*ground.buses, await ground.bus()]
    subject = subjects.request(run.tenant, run.priority)
    await asyncio.gather(*(buses[n % 2].log.submit(request(run)) for n in range(20)))
    assert await ground.stored(REQUESTS, subject) == 1
    await buses[0].log.submit(request(ground.run()))
    assert await ground.stored(REQUESTS, subject) == 2
    await buses[0].jetstream.purge(REQUESTS, subject)


async def test_one_tenant_fills_its_share_and_another_gets_in(ground: Ground) -> None:
    await ground.provision(max_queue_depth=50, max_queue_depth_per_tenant=3)
    bus = ground.buses[0]
    full, free = f"{ground.tenant}-full", f"{ground.tenant}-free"
    kept = [ground.run(tenant=full) for _ in range(3)]
    for run in kept:
        await bus.log.submit(request(run))
    began = time.monotonic()
    with pytest.raises(QueueFull) as refused:
        await bus.log.submit(request(ground.run(tenant=full)))
    assert time.monotonic() - began < 10, "and not when patience is over"
    assert refused.value.of_subject
    assert refused.value.retry_after_s > 0
    await bus.log.submit(request(kept[0]))  # what was taken is not refused when it is said again
    await bus.log.submit(request(ground.run(tenant=free)))
    assert await ground.stored(REQUESTS, subjects.request(full, Priority.HIGH)) == 3
    for tenant in (full, free):
        await bus.jetstream.purge(REQUESTS, subjects.request(tenant, Priority.HIGH))


async def test_a_full_queue_says_so_at_once_and_keeps_what_it_has(ground: Ground) -> None:
    await ground.provision(max_queue_depth=4, max_queue_depth_per_tenant=4)
    bus = ground.buses[0]
    await bus.jetstream.purge(REQUESTS, "segue.request.>")  # what other tests may have left in the same stream
    runs = [ground.run(tenant=f"{ground.tenant}-{n}") for n in range(4)]
    await asyncio.gather(*(bus.log.submit(request(run)) for run in runs))
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(QueueFull) as refused:
            await bus.log.submit(request(ground.run(tenant=f"{ground.tenant}-late")))
        assert time.monotonic() - began < 10, "and not when patience is over"
        assert not refused.value.of_subject
    stored = await bus.jetstream.last(REQUESTS, subjects.request(runs[0].tenant, Priority.HIGH))
    assert stored is not None
    assert SubmitRequest.decode(stored.data) == request(runs[0])
    await bus.jetstream.purge(REQUESTS, subjects.request(runs[0].tenant, Priority.HIGH))
    await bus.log.submit(request(ground.run(tenant=runs[0].tenant)))  # there is room again
    for run in runs:
        await bus.jetstream.purge(REQUESTS, subjects.request(run.tenant, Priority.HIGH))


# What it costs


def test_what_a_write_and_a_read_cost(nats_server: NatsServer) -> None:
    """One at a time on uvloop, as the services run. Printed; only a tenfold slowdown fails."""

    async def measure() -> dict[str, float]:
        client: Client = await nats.connect(nats_server.url)
        await provision(client, Limits())
        bus = await open_bus(client)
        run = Run(run_id=f"cost{time.time_ns()}", tenant="cost", born_at=datetime.now(UTC), deadline_at=due_now)
        fact, n = settled(run, "0-0"), 400
        body = fact.encode()
        facts = facts_of(run)
        costs = {}
        for name, ask in (
            ("publish_once", lambda i: bus.jetstream.publish_once(facts.attempt(Purpose.TASK, "a", i), body)),
            ("refused publish_once", lambda i: bus.jetstream.publish_once(facts.attempt(Purpose.TASK, "a", i), body)),
            ("last", lambda i: bus.jetstream.last(EVENTS, facts.attempt(Purpose.TASK, "a", i))),
            ("log.write", lambda i: bus.log.write(facts.attempt(Purpose.TASK, "b", i), fact)),
            ("log.read", lambda i: bus.log.read(facts.attempt(Purpose.TASK, "b", i), CallSettled)),
        ):
            took, cpu = [], time.process_time()
            for i in range(n):
                began = time.perf_counter()
                await ask(i)
                took.append(time.perf_counter() - began)
            costs[name] = statistics.quantiles(took, n=4)[0] * 1e6  # the others say how busy the machine is
            costs[f"{name}, client CPU"] = (time.process_time() - cpu) / n * 1e6
        await client.close()
        return costs

    due_now = datetime.now(UTC)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        costs = runner.run(measure())
    print("; ".join(f"{name} {us:.0f} µs" for name, us in costs.items()))
    assert all(us < 5_000 for us in costs.values())
