"""What arrives together is taken in together: all of it, by somebody, whatever fails or is cancelled."""

import asyncio
import random
from collections.abc import Sequence

import pytest

from services.planner.arrivals import Arrivals


async def test_what_arrives_during_a_write_is_one_more_write() -> None:
    arrivals: Arrivals[int] = Arrivals()
    batches: list[list[int]] = []

    async def take(batch: Sequence[int]) -> None:
        batches.append(list(batch))
        await asyncio.sleep(0.01)

    await asyncio.gather(*(arrivals.taken("r", n, take) for n in range(50)))
    assert batches == [[0], list(range(1, 50))]
    await arrivals.taken("r", 50, take)
    assert batches[-1] == [50]
    assert not arrivals._waiting


async def test_runs_do_not_wait_for_each_other() -> None:
    arrivals: Arrivals[int] = Arrivals()
    stuck = asyncio.Event()

    async def wait(_: Sequence[int]) -> None:
        await stuck.wait()

    async def take(_: Sequence[int]) -> None:
        pass

    waiting = asyncio.create_task(arrivals.taken("a", 1, wait))
    await asyncio.sleep(0)
    await asyncio.wait_for(arrivals.taken("b", 2, take), 30)
    stuck.set()
    await waiting


async def test_one_that_cannot_be_taken_in_spoils_no_other() -> None:
    arrivals: Arrivals[int] = Arrivals()
    done: set[int] = set()

    async def take(batch: Sequence[int]) -> None:
        await asyncio.sleep(0.001)
        if 7 in batch:
            raise ValueError("seven")
        done.update(batch)

    ended = await asyncio.gather(*(arrivals.taken("r", n, take) for n in range(20)), return_exceptions=True)
    assert [place for place, one in enumerate(ended) if isinstance(one, ValueError)] == [7]
    assert done == set(range(20)) - {7}
    assert not arrivals._waiting


@pytest.mark.parametrize("seed", range(30))
async def test_nobody_is_forgotten_when_callers_are_cancelled_or_fail(seed: int) -> None:
    """At random: whoever is neither cancelled nor failing is taken in, and nobody waits for ever."""
    chance = random.Random(seed)
    arrivals: Arrivals[int] = Arrivals()
    done: set[int] = set()

    async def take(batch: Sequence[int]) -> None:
        await asyncio.sleep(chance.random() * 0.003)
        if any(n % 11 == 5 for n in batch):
            raise ValueError
        done.update(batch)

    async def arrive(number: int) -> None:
        await asyncio.sleep(chance.random() * 0.01)
        await arrivals.taken("r", number, take)

    tasks = [asyncio.create_task(arrive(n)) for n in range(60)]
    cancelled = set(chance.sample(range(60), 15))
    for number in cancelled:
        await asyncio.sleep(chance.random() * 0.001)
        tasks[number].cancel()
    await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)
    wanted = {n for n in range(60) if n % 11 != 5} - cancelled
    assert wanted <= done
    assert not arrivals._waiting
