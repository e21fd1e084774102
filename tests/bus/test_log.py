"""The log keeps each fact once, whoever writes it and whatever is lost on the way."""

import asyncio
import contextlib
import statistics
import time
from datetime import UTC, datetime

import nats
import pytest
import uvloop
from nats.aio.client import Client

from shared import subjects
from shared.bus.connection import open_bus
from shared.bus.errors import NotProvisioned, Unavailable
from shared.bus.jetstream import JetStream
from shared.bus.log import FactVanished
from shared.bus.provisioner import provision
from shared.bus.server import NatsServer
from shared.contracts.events import AttemptStarted, CallSettled, RunAccepted, RunCategorized
from shared.contracts.ids import Purpose
from shared.contracts.message import Run, Unreadable
from shared.topology import EVENTS, FINISHES, Limits
from tests.bus.ground import Ground, accepted, categorized, facts_of
from tests.bus.losing import losing
from tests.conftest import eventually

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
