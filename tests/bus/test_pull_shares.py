"""Priorities on the real server: shares under load, borrowing when idle, nothing starves."""

import asyncio
import sys
import time
from collections import Counter

import pytest

from shared.bus.delivery import Delivery, Done, Verdict
from tests.bus.conftest import SHARES, Arena, Seen
from tests.conftest import eventually


def counted(seen: Seen, n: int, first: int = 0) -> Counter[str]:
    return Counter(delivery.source for delivery in seen.taken_ones[first : first + n])


def report(what: str, value: object) -> None:
    """For the reader of the log: `pytest -rP` shows it."""
    sys.stdout.write(f"{what}: {value}\n")


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("places", [2, 10])
async def test_with_a_backlog_everywhere_what_is_taken_follows_the_shares(
    arena: Arena, places: int, workers: int
) -> None:
    """600 messages of each priority, work of 1 to 4 ms: of 800 taken 60, 30 and 10 in a hundred, give or take three.

    A priority whose messages come late on a busy machine is idle for as long, and the others rightly borrow its places.
    """

    async def handle(delivery: Delivery) -> Verdict:
        await asyncio.sleep(0.001 + int(delivery.data) % 4 / 1000)
        return Done()

    for name in SHARES:
        await arena.publish(name, 600)
    await arena.led_by_one()
    seen = Seen()
    for _ in range(workers):
        await arena.pool(handle, places=places, observer=seen)
    await eventually(lambda: len(seen.taken_ones) >= 860, within_s=60)
    took = counted(seen, 800, first=places * workers)
    report(f"{workers} workers of {places} places", dict(took))
    for name, share in SHARES.items():
        assert took[name] / 800 == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("name", ["high", "medium", "low"])
async def test_a_burst_on_one_priority_borrows_the_idle_places(arena: Arena, name: str) -> None:
    """Twelve places: ten work on the burst, one probe stands for each of the others, at once.

    Three bursts: a machine that stands still in one of them says nothing about the others.
    """
    release = asyncio.Event()

    async def handle(_: Delivery) -> Verdict:
        await release.wait()
        return Done()

    pool = await arena.pool(handle, places=12)
    took_s = []
    for _ in range(3):
        await eventually(arena.empty, within_s=30)
        await eventually(lambda: (pool.running, pool.asked) == (0, 3))
        release.clear()
        await arena.publish(name, 40)
        took_s.append(await eventually(lambda: (pool.running, pool.asked) == (10, 2)))
        release.set()
    assert min(took_s) < 1.0, "and not when a probe's time is over"
    await eventually(arena.empty, within_s=30)
    await eventually(lambda: (pool.running, pool.asked) == (0, 3))
    release.clear()
    await arena.publish(name, 40)
    await eventually(lambda: (pool.running, pool.asked) == (10, 2))
    others = [other for other in SHARES if other != name]
    for other in others:  # and the probes are live: what comes now is begun at once
        await arena.publish(other)
    await eventually(lambda: pool.running == 12)
    assert await arena.ack_pending(name) == 10
    release.set()
    await eventually(arena.empty, within_s=30)


async def test_high_gets_its_share_from_the_moment_it_comes(arena: Arena) -> None:
    """Low has borrowed all there is; 150 of high come: of the next 100 taken most are high, and low goes on."""

    go = asyncio.Event()
    go.set()

    async def handle(_: Delivery) -> Verdict:
        await go.wait()
        await asyncio.sleep(0.003)
        return Done()

    seen = Seen()
    await arena.publish("low", 600)
    await arena.pool(handle, places=10, observer=seen)
    await eventually(lambda: len(seen.taken_ones) > 50)
    assert counted(seen, 50) == {"low": 50}
    go.clear()  # else a slow machine is through with low before high is there
    await arena.publish("high", 150)
    await eventually(lambda: any(delivery.source == "high" for delivery in seen.taken_ones))
    go.set()
    first = next(i for i, delivery in enumerate(seen.taken_ones) if delivery.source == "high")
    await eventually(lambda: len(seen.taken_ones) >= first + 105)
    took = counted(seen, 100, first=first + 5)
    assert took["high"] == pytest.approx(86, abs=8)
    assert took["low"] >= 6


async def test_nothing_starves_while_high_never_ends(arena: Arena) -> None:
    """High is topped up without end; each of ten messages of low is still begun, the last within seconds."""
    low_at: list[float] = []
    stop = asyncio.Event()

    async def handle(delivery: Delivery) -> Verdict:
        if delivery.source == "low":
            low_at.append(time.monotonic())
        await asyncio.sleep(0.005)
        return Done()

    async def top_up() -> None:
        while not stop.is_set():
            if ((await arena.info("high")).num_pending or 0) < 200:
                await arena.publish("high", 100)

    topping_up = asyncio.create_task(top_up())
    pool = await arena.pool(handle, places=4)
    await eventually(lambda: pool.running >= 3)
    began = time.monotonic()
    await arena.publish("low", 10)
    await eventually(lambda: len(low_at) == 10, within_s=30)
    report("ten of low beside an endless high", f"{low_at[-1] - began:.2f} s")
    stop.set()
    await topping_up
    await arena.js.purge_stream(arena.stream)


@pytest.mark.parametrize("places", [1, 2])
async def test_with_fewer_places_than_sources_all_are_served(arena: Arena, places: int) -> None:
    """Idle: single messages on any source are begun within a second. Busy: low is served too.

    Of ten on each source three in all may be late: the machine stood still.
    """
    begun: dict[str, float] = {}

    async def handle(delivery: Delivery) -> Verdict:
        begun[f"{delivery.source} {delivery.data.decode()}"] = time.monotonic()
        return Done()

    await arena.pool(handle, places=places)
    waited = []
    for i in range(10):
        for name in SHARES:
            sent = time.monotonic()
            await arena.publish(name, first=i)
            await eventually(lambda name=name, i=i: f"{name} {i}" in begun)  # type: ignore[misc]
            waited.append(begun[f"{name} {i}"] - sent)
    report(f"{places} places for three idle sources: longest wait", f"{max(waited) * 1000:.0f} ms")
    assert sorted(waited)[-4] < 1.0
    for name in SHARES:
        await arena.publish(name, 50, first=100)
    await eventually(arena.empty, within_s=30)
    assert len(begun) == 180
