"""The standing pull in quiet: once each, exact, kept alive while it is worked on, given back when a worker stops."""

import asyncio
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import nats
import pytest

from shared.bus import intake, pull
from shared.bus.delivery import ConsumerMissing, Delivery, Done, Verdict
from shared.bus.shares import STANDING_S
from tests.bus.conftest import AT_ONCE_S, Arena, Seen
from tests.conftest import eventually


def number(delivery: Delivery) -> int:
    return int(delivery.data)


async def test_each_message_is_delivered_once_to_one_of_the_workers(arena: Arena) -> None:
    handled: list[tuple[str, int]] = []

    async def handle(delivery: Delivery) -> Verdict:
        handled.append((delivery.source, number(delivery)))
        return Done()

    seen = Seen()
    for _ in range(2):
        await arena.pool(handle, places=8, observer=seen)
    for name in ("high", "medium", "low"):
        await arena.publish(name, 100)
    await eventually(arena.empty, within_s=30)
    assert sorted(handled) == sorted((name, i) for name in ("high", "medium", "low") for i in range(100))
    assert seen.redelivered_ones == []
    await eventually(lambda: len(seen.settled_ones) >= 300)  # told after the answer has left
    assert Counter(type(verdict) for _, verdict, _ in seen.settled_ones) == {Done: 300}


async def test_a_delivery_says_where_and_when_and_how_often(arena: Arena) -> None:
    got: list[Delivery] = []

    async def handle(delivery: Delivery) -> Verdict:
        got.append(delivery)
        return Done()

    ack = await arena.js.publish(f"{arena.stream}.medium", b"body", headers={"Segue-Test": "yes"})
    await arena.pool(handle, places=1)
    await eventually(lambda: len(got) == 1)
    (delivery,) = got
    assert delivery.subject == f"{arena.stream}.medium"
    assert (delivery.source, delivery.stream, delivery.stream_seq) == ("medium", arena.stream, ack.seq)
    assert (delivery.data, delivery.headers) == (b"body", {"Segue-Test": "yes"})
    assert (delivery.delivered, delivery.pending) == (1, 0)
    assert timedelta(seconds=-1) < datetime.now(UTC) - delivery.stored_at < timedelta(minutes=1)


@pytest.mark.slow
async def test_work_longer_than_ack_wait_is_not_handed_to_another(arena: Arena) -> None:
    """Eight seconds of work, ack_wait five: the heartbeat keeps it, while a second worker stands by."""
    await arena.hand_out_again_after(5.0)
    begun: list[int] = []

    async def handle(delivery: Delivery) -> Verdict:
        begun.append(delivery.delivered)
        await asyncio.sleep(8)
        return Done()

    await arena.pool(handle, places=3)
    await arena.pool(handle, places=3)
    await arena.publish("high")
    await eventually(arena.empty, within_s=40)
    assert begun == [1]


async def test_a_pool_holds_exactly_as_many_messages_as_it_has_places(arena: Arena) -> None:
    """Fifty messages, four places: the server counts four being worked on, for as long as they are."""
    release = asyncio.Event()

    async def handle(_: Delivery) -> Verdict:
        await release.wait()
        return Done()

    await arena.publish("low", 50)
    pool = await arena.pool(handle, places=4, names=["low"])
    await eventually(lambda: pool.running == 4)
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        assert await arena.ack_pending("low") == 4
        assert pool.asked == 0
    release.set()
    await eventually(arena.empty, within_s=30)


async def test_a_slow_worker_holds_only_what_it_works_on(arena: Arena) -> None:
    release = asyncio.Event()
    quick: list[int] = []

    async def slow(_: Delivery) -> Verdict:
        await release.wait()
        return Done()

    async def fast(delivery: Delivery) -> Verdict:
        quick.append(number(delivery))
        return Done()

    stuck = await arena.pool(slow, places=2, names=["high"])
    await arena.publish("high", 2)
    await eventually(lambda: stuck.running == 2)
    await arena.pool(fast, places=4, names=["high"])
    await arena.publish("high", 100, first=2)
    await eventually(lambda: len(quick) == 100)
    assert sorted(quick) == list(range(2, 102))

    async def only_two_are_held() -> bool:
        return await arena.ack_pending("high") == 2

    await eventually(only_two_are_held)  # the server takes in the acks of the others
    release.set()
    await eventually(arena.empty, within_s=30)


@pytest.mark.parametrize("places", [1, 2, 5, 16])
async def test_running_and_asked_for_never_exceed_the_places(arena: Arena, places: int) -> None:
    """Watched whenever a message is taken, over bursts on all three sources and work of uneven length."""
    at_once = 0
    most = 0

    async def handle(delivery: Delivery) -> Verdict:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(number(delivery) % 4 / 1000)
        at_once -= 1
        return Done()

    sums: list[int] = []
    seen = Seen()
    pool = await arena.pool(handle, places=places, observer=seen)
    seen.on_taken = lambda: sums.append(pool.running + pool.asked)
    for burst in range(3):
        for name in ("low", "high", "medium"):
            await arena.publish(name, 40, first=burst)
    await eventually(arena.empty, within_s=30)
    assert most <= places
    assert max(sums) <= places
    assert len(seen.taken_ones) == 360


async def test_a_quiet_pool_stays_healthy_and_asks_rarely(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three standing requests, renewed when they expire, and not before: six publishes in more than two rounds."""
    monkeypatch.setattr(intake, "GRACE_S", 20.0)  # who stands still for a moment has lost nothing
    monkeypatch.setattr(pull, "SPOKEN_WITHIN_S", 20.0)

    async def handle(_: Delivery) -> Verdict:
        return Done()

    seen = Seen()
    began = time.monotonic()
    pool = await arena.pool(handle, places=16, observer=seen)
    await eventually(lambda: pool.asked == 3)
    connection = arena.pools[0][1]
    sent = connection.stats["out_msgs"]
    until = time.monotonic() + 2 * STANDING_S + 0.5
    while time.monotonic() < until:
        assert pool.healthy
        await asyncio.sleep(0.05)
    asked = connection.stats["out_msgs"] - sent
    assert asked <= 3 * int((time.monotonic() - began) / STANDING_S)
    assert seen.stalls == []


async def test_drain_leaves_new_work_to_others_at_once(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker stops in the middle of a stream of messages: they do not wait for ack_wait.

    On one server alone, which is left at once, one may: what it had begun to send as the inbox closed.
    """
    monkeypatch.setattr(intake, "GRACE_S", 20.0)  # a server that stands still for a moment is waited for
    waited: list[float] = []
    sent_at: dict[int, float] = {}

    async def handle(delivery: Delivery) -> Verdict:
        waited.append(time.monotonic() - sent_at[number(delivery)])
        await asyncio.sleep(0.002)
        return Done()

    leaving = [await arena.pool(handle, places=8) for _ in range(3)]
    await arena.pool(handle, places=8)

    async def publish() -> None:
        for i in range(400):
            sent_at[i] = time.monotonic()
            await arena.client.publish(f"{arena.stream}.{('high', 'medium', 'low')[i % 3]}", str(i).encode())
            await asyncio.sleep(0.001)

    publishing = asyncio.create_task(publish())
    for pool in leaving:
        await asyncio.sleep(0.1)
        await pool.drain(5)
        assert pool.running == 0
        assert not pool.healthy
    await publishing
    await eventually(arena.empty, within_s=30)
    assert len(waited) == 400, "each was handled, none twice"
    late = [one for one in waited if one >= AT_ONCE_S]
    assert len(late) <= (len(leaving) if arena.replicas == 1 else 0), late


async def test_drain_gives_back_what_has_not_begun(arena: Arena) -> None:
    """The first message stops the pool while nine more are on their way to it: another worker has those at once."""
    begun: list[int] = []
    draining: list[asyncio.Task[None]] = []

    async def stop(delivery: Delivery) -> Verdict:
        begun.append(number(delivery))
        while leaving.asked == 0:
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # the request is written
        draining.append(asyncio.create_task(leaving.drain(5)))
        asking = threading.Thread(target=lambda: asyncio.run(ten_are_out()))
        asking.start()
        asking.join()  # nothing else runs here while the nine arrive
        return Done()

    async def ten_are_out() -> None:
        """Wait, on a connection and a loop of its own, until the server has sent them."""
        client = await nats.connect(arena.urls)
        while (await client.jetstream().consumer_info(arena.stream, "c-high")).num_ack_pending != 10:
            await asyncio.sleep(0.01)
        await client.close()

    async def handle(_: Delivery) -> Verdict:
        return Done()

    await arena.publish("high", 30)
    leaving = await arena.pool(stop, places=10, names=["high"])
    await eventually(lambda: bool(draining) and draining[0].done())
    seen = Seen()
    began = time.monotonic()
    await arena.pool(handle, places=10, names=["high"], observer=seen)
    await eventually(arena.empty, within_s=30)
    assert time.monotonic() - began < AT_ONCE_S
    assert begun == [0]
    assert sorted(number(delivery) for delivery in seen.taken_ones) == list(range(1, 30))
    assert sorted(number(delivery) for delivery in seen.redelivered_ones) == list(range(1, 10))


async def test_drain_lets_work_finish_and_keeps_it_alive_meanwhile(arena: Arena) -> None:
    """Seven seconds more, past ack_wait: finished by the worker that stops, seen by no other."""
    await arena.hand_out_again_after(5.0)
    deliveries: list[int] = []

    async def handle(delivery: Delivery) -> Verdict:
        deliveries.append(delivery.delivered)
        await asyncio.sleep(7)
        return Done()

    leaving = await arena.pool(handle, places=4)
    await arena.publish("low")
    await eventually(lambda: leaving.running == 1)
    await arena.pool(handle, places=4)
    await leaving.drain(40)
    await eventually(arena.empty, within_s=30)
    assert deliveries == [1]


async def test_drain_cancels_what_takes_too_long_and_gives_it_back(arena: Arena) -> None:
    ended: list[str] = []

    async def endless(_: Delivery) -> Verdict:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return Done()

    async def handle(delivery: Delivery) -> Verdict:
        ended.append(f"delivery {delivery.delivered}")
        return Done()

    leaving = await arena.pool(endless, places=4)
    await arena.publish("medium")
    await eventually(lambda: leaving.running == 1)
    await arena.pool(handle, places=4)
    began = time.monotonic()
    await leaving.drain(0.2)
    await eventually(arena.empty, within_s=30)
    assert time.monotonic() - began < AT_ONCE_S
    assert ended[0] == "cancelled"
    # In a cluster the one that stops listens until its last request has ended: that may bring it back to it once.
    assert ended[1:] in (["delivery 2"], ["delivery 3"])
    assert leaving.running == 0


async def test_a_handler_that_ignores_cancellation_does_not_hold_up_the_end(arena: Arena) -> None:
    release = asyncio.Event()

    async def deaf(_: Delivery) -> Verdict:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return Done()

    pool = await arena.pool(deaf, places=1)
    await arena.publish("high")
    await eventually(lambda: pool.running == 1)
    began = time.monotonic()
    await pool.drain(0.1)
    assert time.monotonic() - began < 15
    release.set()
    await eventually(lambda: not pool._tasks)
    assert pool.running == 0


async def test_a_missing_consumer_is_named_with_what_to_run(arena: Arena) -> None:
    await arena.js.delete_consumer(arena.stream, "c-medium")

    async def handle(_: Delivery) -> Verdict:
        return Done()

    with pytest.raises(ConsumerMissing, match=f"consumer c-medium of stream {arena.stream} .*shared.provision"):
        await arena.pool(handle, places=4)
    arena.pools.clear()
