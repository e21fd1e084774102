"""The standing pull when something dies: a worker, the server, a leader, the consumer, the connection."""

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from itertools import count, pairwise

import pytest
from nats.aio.msg import Msg

from shared.bus import intake
from shared.bus.delivery import Delivery, Done, Retry, Verdict
from shared.bus.intake import Intake
from shared.bus.pull import StandingPull
from shared.bus.server import NatsCluster, NatsServer
from tests.bus.conftest import AT_ONCE_S, SHARES, Arena, Seen, connect
from tests.conftest import eventually

SOON_S = 2.0
"""ack_wait of our own consumers, for tests in which messages are lost on the way."""


def number(delivery: Delivery) -> int:
    return int(delivery.data)


def report(what: str, seconds: float) -> None:
    """For the reader of the log: `pytest -rP` shows it."""
    sys.stdout.write(f"{what}: {seconds * 1000:.0f} ms\n")


async def test_the_work_of_a_killed_worker_is_anothers_when_ack_wait_is_over(arena: Arena) -> None:
    """SIGKILL in the middle of two messages, long after ack_wait: both are handed to a worker that stands by."""
    ack_wait_s = 5.0
    await arena.hand_out_again_after(ack_wait_s)
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bus.worker", arena.urls[0], arena.stream, "60", stdout=asyncio.subprocess.PIPE
    )
    assert worker.stdout is not None
    await arena.publish("high", 2)
    held = sorted([await worker.stdout.readline() for _ in range(2)])
    assert held == [b"0 1\n", b"1 1\n"]
    taken: list[tuple[int, int]] = []

    async def handle(delivery: Delivery) -> Verdict:
        taken.append((number(delivery), delivery.delivered))
        return Done()

    await arena.pool(handle, places=4, names=["high"])
    await asyncio.sleep(ack_wait_s + 1.5)  # for longer than ack_wait the worker's heartbeats keep them
    assert taken == []
    worker.kill()
    killed = time.monotonic()
    await worker.wait()
    await eventually(arena.empty, within_s=30)
    report("redelivered after", time.monotonic() - killed)
    assert time.monotonic() - killed <= ack_wait_s + AT_ONCE_S
    assert sorted(taken) == [(0, 2), (1, 2)]


async def test_a_server_killed_under_load_loses_nothing(own_arena: Arena, own_nats_server: NatsServer) -> None:
    """500 messages, the server killed twice in the middle: each is handled, and work goes on within 1 s."""
    handled: list[tuple[float, int]] = []

    async def handle(delivery: Delivery) -> Verdict:
        await asyncio.sleep(0.005)
        handled.append((time.monotonic(), number(delivery)))
        return Done()

    await own_arena.hand_out_again_after(SOON_S)
    recovered: list[float] = []
    for name, first in (("high", 0), ("medium", 200), ("low", 400)):
        await own_arena.publish(name, 100 if name == "low" else 200, first=first)
    for _ in range(2):
        await own_arena.pool(handle, places=2)
    for threshold in (100, 300):
        await eventually(lambda threshold=threshold: len(handled) > threshold)  # type: ignore[misc]
        own_nats_server.kill()
        await asyncio.sleep(0.2)
        await own_nats_server.start()
        back = time.monotonic()
        await eventually(lambda back=back: handled[-1][0] > back + 0.002)  # type: ignore[misc]
        recovered.append(next(at for at, _ in handled if at > back + 0.002) - back)
        report("first message handled after the server was back", recovered[-1])
    assert min(recovered) < 1.0  # the machine may have stood still the other time
    await eventually(own_arena.empty, within_s=40)
    counted = Counter(i for _, i in handled)
    assert set(counted) == set(range(500))
    report(f"{sum(counted.values()) - 500} of 500 handled again", 0)


async def test_a_long_outage_ends_with_the_work_done_once_here(own_arena: Arena, own_nats_server: NatsServer) -> None:
    """The server is away for longer than ack_wait while one message is worked on: whether it comes again or a heartbeat
    was first, the process that works on it does not begin it twice."""
    await own_arena.hand_out_again_after(SOON_S)
    begun: list[int] = []
    release = asyncio.Event()

    async def handle(delivery: Delivery) -> Verdict:
        begun.append(number(delivery))
        await release.wait()
        return Done()

    seen = Seen()
    pool = await own_arena.pool(handle, places=4, names=["high"], observer=seen)
    await own_arena.publish("high")
    await eventually(lambda: pool.running == 1)
    own_nats_server.kill()
    await eventually(lambda: not pool.healthy, within_s=30)
    await asyncio.sleep(2.5)
    await own_nats_server.start()
    await eventually(lambda: pool.healthy, within_s=30)

    async def settled_who_has_it() -> bool:
        """The server handed it out again, or has heard, for longer than its ack_wait, that it is still worked on."""
        info = await own_arena.info("high")
        return bool(info.num_redelivered) or (info.num_ack_pending == 1 and time.monotonic() - back > SOON_S + 0.5)

    back = time.monotonic()
    await eventually(settled_who_has_it, within_s=30)
    assert pool.running == 1
    release.set()
    await eventually(own_arena.empty)
    assert begun == [0]


@pytest.mark.parametrize("told", [True, False], ids=["told of the reconnect", "not told"])
async def test_after_a_reconnect_it_asks_again_and_for_no_more_than_before(
    arena: Arena, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old requests, which the server may still know, are never answered on top of the new ones."""
    monkeypatch.setattr(intake, "GRACE_S", 30.0)  # that a request is lost is known by the reconnect alone
    release = asyncio.Event()
    at_once = 0

    async def handle(_: Delivery) -> Verdict:
        nonlocal at_once
        at_once += 1
        await release.wait()
        return Done()

    pool = await arena.pool(handle, places=3, names=["low"], told=told)
    connection = arena.pools[0][1]
    await eventually(lambda: pool.asked == 1)
    for _ in range(3):
        reconnects = connection.stats["reconnects"]
        await connection.force_reconnect()
        await eventually(lambda reconnects=reconnects: connection.stats["reconnects"] > reconnects)  # type: ignore[misc]
    # What the server sends to a connection while that one closes is lost, until ack_wait: not what this is about.
    await eventually(lambda: connection.is_connected and pool.asked == 1)
    began = time.monotonic()
    await arena.publish("low", 20)
    await eventually(lambda: at_once == 3)
    report("all places filled after a reconnect", time.monotonic() - began)
    assert time.monotonic() - began < AT_ONCE_S

    async def handle_the_rest(_: Delivery) -> Verdict:
        return Done()

    async def three_are_left() -> bool:
        return await arena.left() == 3

    # What an old request brought on top went back at once, not after ack_wait: another worker gets all the rest.
    await arena.pool(handle_the_rest, places=3, names=["low"])
    await eventually(three_are_left, within_s=AT_ONCE_S)
    assert pool.running == at_once == 3
    assert pool.asked == 0
    release.set()
    await eventually(arena.empty, within_s=30)
    await eventually(lambda: pool.healthy)


async def test_a_deleted_consumer_is_declared_again(arena: Arena) -> None:
    """Idle and at work: the work queue keeps the messages, and the pool makes itself a new consumer."""
    handled: list[int] = []
    seen = Seen()

    async def handle(delivery: Delivery) -> Verdict:
        handled.append(number(delivery))
        await asyncio.sleep(0.002)
        return Done()

    pool = await arena.pool(handle, places=4, observer=seen)
    for round_, names in enumerate((["medium"], ["high", "medium", "low"])):
        for name in names:
            await arena.js.delete_consumer(arena.stream, f"c-{name}")
        began = time.monotonic()
        await arena.publish("medium", 20, first=20 * round_)
        await eventually(lambda round_=round_: len(set(handled)) == 20 * (round_ + 1))  # type: ignore[misc]
        report("taken again after the consumer was deleted", time.monotonic() - began)
    await eventually(arena.empty, within_s=30)
    assert Counter(seen.recreations)["medium"] == 2
    await eventually(lambda: pool.healthy)


async def test_a_consumer_deleted_in_the_middle_of_work_does_not_double_it(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs is handed out again by the new consumer, to this very pool: the copy is not begun, the answer counts
    for it."""
    begun: list[int] = []
    came: list[bytes] = []
    release = asyncio.Event()
    seen = Seen()
    take = StandingPull._delivered

    def delivered(pool: StandingPull, source: Intake, msg: Msg, current: bool) -> None:
        came.append(msg.data)
        take(pool, source, msg, current)

    monkeypatch.setattr(StandingPull, "_delivered", delivered)

    async def handle(delivery: Delivery) -> Verdict:
        begun.append(number(delivery))
        await release.wait()
        return Done()

    pool = await arena.pool(handle, places=4, names=["high"], observer=seen)
    await arena.publish("high", 2)
    await eventually(lambda: pool.running == 2)
    await arena.js.delete_consumer(arena.stream, "c-high")
    await eventually(lambda: seen.recreations == ["high"])

    async def handed_out_again() -> bool:
        """By the server, and taken in here."""
        return sorted(came) == [b"0", b"0", b"1", b"1"] and await arena.ack_pending("high") == 2

    await eventually(handed_out_again)
    release.set()
    await eventually(arena.empty, within_s=30)
    assert sorted(begun) == [0, 1]
    assert pool.running == 0


async def test_the_declaration_is_tried_until_it_succeeds(arena: Arena) -> None:
    tries: list[bool] = []

    async def recreate(source: object) -> None:
        tries.append(pool.healthy)
        if len(tries) < 3:
            raise ConnectionError("not yet")
        await arena.js.add_consumer(arena.stream, arena.source("low").consumer)

    async def handle(_: Delivery) -> Verdict:
        return Done()

    pool = await arena.pool(handle, places=2, names=["low"], recreate=recreate)
    await eventually(lambda: pool.asked == 1)
    await arena.js.delete_consumer(arena.stream, "c-low")
    await arena.publish("low", 3)
    await eventually(arena.empty, within_s=30)
    assert tries == [False, False, False], "and it is not healthy meanwhile"
    await eventually(lambda: pool.healthy)


async def test_a_server_that_stands_still_is_noticed_and_work_goes_on(
    own_arena: Arena, own_nats_server: NatsServer
) -> None:
    """SIGSTOP: connected, but silent. The pool says that it is not healthy, and asks again when the server is back."""
    await own_arena.hand_out_again_after(SOON_S)

    async def handle(_: Delivery) -> Verdict:
        return Done()

    seen = Seen()
    pool = await own_arena.pool(handle, places=4, observer=seen)
    await eventually(lambda: pool.asked == 3)
    pid = own_nats_server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        await eventually(lambda: not pool.healthy, within_s=20)
        await eventually(lambda: bool(seen.stalls))
    finally:
        os.kill(pid, signal.SIGCONT)
    began = time.monotonic()
    await own_arena.publish("medium", 10)
    await eventually(own_arena.empty)
    report("after a standstill", time.monotonic() - began)
    assert time.monotonic() - began < AT_ONCE_S
    await eventually(lambda: pool.healthy)


async def test_a_pool_that_starts_while_the_server_stands_still_waits_for_it(
    own_arena: Arena, own_nats_server: NatsServer
) -> None:
    """A service does not end because its server was busy for two seconds just then."""

    async def handle(_: Delivery) -> Verdict:
        return Done()

    connection, sources = await connect(own_arena.urls), [own_arena.source(name) for name in SHARES]
    pool = StandingPull(connection, sources, handle, places=4, name="early", bury=own_arena.bury)
    own_arena.pools.append((pool, connection))
    pid = own_nats_server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        starting = asyncio.create_task(pool.start())
        await asyncio.wait({starting}, timeout=2)
    finally:
        os.kill(pid, signal.SIGCONT)
    await starting
    await eventually(lambda: pool.asked == 3)


async def test_a_connection_that_went_deaf_is_replaced(own_arena: Arena) -> None:
    """nats-py stops reading when the answer to a ping comes after its `flush` timed out, and still says connected."""
    await own_arena.hand_out_again_after(SOON_S)

    async def handle(_: Delivery) -> Verdict:
        return Done()

    pool = await own_arena.pool(handle, places=4)
    connection = own_arena.pools[0][1]
    await eventually(lambda: pool.asked == 3)
    assert connection._reading_task is not None
    connection._reading_task.cancel()
    await eventually(lambda: connection._reading_task is not None and connection._reading_task.done())
    assert connection.is_connected
    assert connection.stats["reconnects"] == 0
    await own_arena.publish("high", 3)
    await eventually(own_arena.empty, within_s=40)
    assert connection.stats["reconnects"] == 1
    await eventually(lambda: pool.healthy)


async def test_delayed_messages_that_fill_max_ack_pending_do_not_wedge_the_pool(own_arena: Arena) -> None:
    """Two messages wait for their delay and use up `max_ack_pending`: the others come when those are dealt with."""
    await own_arena.js.delete_consumer(own_arena.stream, "c-low")
    await own_arena.js.add_consumer(own_arena.stream, own_arena.source("low", max_ack_pending=2).consumer)
    handled: list[int] = []

    async def handle(delivery: Delivery) -> Verdict:
        if delivery.delivered == 1 and number(delivery) < 2:
            return Retry(1.0)
        handled.append(number(delivery))
        return Done()

    pool = await own_arena.pool(handle, places=8)
    await own_arena.publish("low", 10)
    await own_arena.publish("high", 5, first=100)
    await eventually(own_arena.empty, within_s=30)
    assert sorted(handled) == [*range(10), *range(100, 105)]
    assert pool.running == 0


async def test_a_consumer_that_refuses_requests_is_logged_and_not_hammered(
    own_arena: Arena, caplog: pytest.LogCaptureFixture
) -> None:
    """`max_waiting` 1 and another pool's request already waiting: an error that names the consumer, then a pause."""
    await own_arena.js.delete_consumer(own_arena.stream, "c-low")
    await own_arena.js.add_consumer(own_arena.stream, own_arena.source("low", max_waiting=1).consumer)
    handled: list[int] = []

    async def handle(delivery: Delivery) -> Verdict:
        handled.append(number(delivery))
        return Done()

    first = await own_arena.pool(handle, places=1, names=["low"])
    await eventually(lambda: first.asked == 1)
    await own_arena.pool(handle, places=1, names=["low"])
    connection = own_arena.pools[1][1]
    await eventually(lambda: "Exceeded MaxWaiting" in caplog.text)
    sent, began = connection.stats["out_msgs"], time.monotonic()
    await asyncio.sleep(0.8)
    assert connection.stats["out_msgs"] - sent <= 1 + int(time.monotonic() - began)  # pauses of a second and more
    assert "consumer c-low" in caplog.text
    await own_arena.publish("low", 20)
    await eventually(own_arena.empty)
    assert sorted(handled) == list(range(20))


@pytest.mark.cluster
async def test_a_change_of_leader_interrupts_nothing(arena: Arena) -> None:
    """The consumer's leader steps down twice and the stream's once, under load: nothing lost, work goes on."""
    if arena.replicas == 1:
        pytest.skip("one server has no other leader")
    handled: list[int] = []

    async def handle(delivery: Delivery) -> Verdict:
        await asyncio.sleep(0.005)
        handled.append(number(delivery))
        return Done()

    await arena.hand_out_again_after(SOON_S)
    await arena.pool(handle, places=4)
    enough = asyncio.Event()
    publishing = asyncio.create_task(_publish_slowly(arena, until=enough))
    for api in ("CONSUMER.LEADER.STEPDOWN.{}.c-high", "STREAM.LEADER.STEPDOWN.{}", "CONSUMER.LEADER.STEPDOWN.{}.c-low"):
        await asyncio.sleep(0.3)
        done = len(handled)
        await arena.client.request(f"$JS.API.{api.format(arena.stream)}", b"", timeout=15)
        began = time.monotonic()
        await eventually(lambda done=done: len(handled) > done + 20, within_s=30)  # type: ignore[misc]
        report(f"20 more after {api}", time.monotonic() - began)
    enough.set()
    published = await publishing
    await eventually(arena.empty, within_s=30)
    assert set(handled) == set(range(published))


@pytest.mark.cluster
async def test_the_leaders_server_killed_under_load_loses_nothing(
    servers: object, arena: Arena, nats_cluster: NatsCluster
) -> None:
    """The server that leads the consumer is killed with SIGKILL, then started again: every message is handled."""
    if arena.replicas == 1:
        pytest.skip("a single server is killed in a test of its own")
    handled: list[tuple[float, int]] = []

    async def handle(delivery: Delivery) -> Verdict:
        await asyncio.sleep(0.005)
        handled.append((time.monotonic(), number(delivery)))
        return Done()

    await arena.hand_out_again_after(SOON_S)
    for _ in range(2):
        await arena.pool(handle, places=4)
    enough = asyncio.Event()
    publishing = asyncio.create_task(_publish_slowly(arena, until=enough))
    await eventually(lambda: len(handled) > 60)
    cluster = (await arena.info("high")).cluster
    assert cluster is not None
    assert cluster.leader is not None
    victim = nats_cluster.named(cluster.leader)
    victim.kill()
    killed = time.monotonic()
    try:
        # Of the consumer that lost its leader: the others' messages say nothing about it.
        await eventually(lambda: any(at > killed + 0.3 for at, i in handled[-60:] if i % 3 == 0), within_s=40)
        enough.set()
        published = await publishing
        await eventually(arena.empty, within_s=40)
        assert {i for _, i in handled} == set(range(published))
        orphaned = [at for at, i in handled if i % 3 == 0]
        pauses = [later - earlier for earlier, later in pairwise(orphaned) if later > killed]
        report("longest pause of the consumer that lost its leader", max(pauses))
    finally:
        await victim.start()
        await nats_cluster.settled()


async def _publish_slowly(arena: Arena, *, until: asyncio.Event) -> int:
    """Publish some hundred messages a second, each until it is stored; returns how many there were."""
    for i in count():
        if until.is_set():
            return i
        while True:
            try:
                await arena.js.publish(
                    f"{arena.stream}.{('high', 'medium', 'low')[i % 3]}",
                    str(i).encode(),
                    timeout=0.5,
                    headers={"Nats-Msg-Id": str(i)},
                )
                break
            except Exception:  # noqa: BLE001 - without a leader: the same message again
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.002)
    raise AssertionError("count() has no end")
