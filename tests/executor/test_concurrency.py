"""Calls to one role at the same time, over all executors: exact, and what a dead one held comes back."""

import asyncio

from services.executor.concurrency import MOST_SHARED, Places
from shared.contracts.health import CallsAtOnce
from tests.conftest import eventually
from tests.executor.conftest import World


async def test_of_several_executors_never_more_than_the_limit_go_on(world: World) -> None:
    """Four executors with ten calls each, three places: three at once at the most, all of them in the end."""
    there = [Places(world.bus, "medium_ai", 3, f"executor{number}") for number in range(4)]
    going = most = done = 0
    full = asyncio.Event()

    async def one(places: Places) -> None:
        nonlocal going, most, done
        async with places.place():
            going += 1
            most = max(most, going)
            if going == 3:
                full.set()
            await full.wait()  # the first wait for each other, however slowly they come
            await asyncio.sleep(0.005)
            going -= 1
        done += 1

    await asyncio.wait_for(asyncio.gather(*(one(places) for places in there for _ in range(10))), 60)
    assert (most, done) == (3, 40)
    record, _ = await world.bus.limits.get(there[0].key, CallsAtOnce)
    assert record is not None
    assert record.held == {}, "nothing stays held"


async def test_what_a_dead_executor_held_comes_back_and_what_a_living_one_holds_stays(world: World) -> None:
    """Held for half a second unless it is renewed: who renews keeps it, who does not loses it."""
    dead = Places(world.bus, "medium_ai", 2, "dead", held_s=0.5, renewed_s=3_600)
    living = Places(world.bus, "medium_ai", 2, "living", held_s=0.5, renewed_s=0.05)
    third = Places(world.bus, "medium_ai", 2, "third", held_s=0.5, renewed_s=0.05)
    stop, got = asyncio.Event(), asyncio.Event()

    async def hold(places: Places, said: asyncio.Event | None = None) -> None:
        async with places.place():
            if said is not None:
                said.set()
            await stop.wait()

    tasks = [asyncio.create_task(hold(places)) for places in (dead, living)]

    async def both() -> bool:
        record, _ = await world.bus.limits.get(dead.key, CallsAtOnce)
        return record is not None and len(record.held) == 2

    await eventually(both)
    tasks.append(asyncio.create_task(hold(third, got)))
    await asyncio.wait_for(got.wait(), 30)

    async def the_living() -> bool:
        record, _ = await world.bus.limits.get(dead.key, CallsAtOnce)
        return record is not None and {name.partition(".")[0] for name in record.held} == {"living", "third"}

    await eventually(the_living)
    stop.set()
    await asyncio.gather(*tasks)


async def test_roles_have_places_of_their_own_and_a_high_limit_is_kept_by_each(world: World) -> None:
    """Whatever characters a role's name has."""
    one, other = Places(world.bus, "a role: ä", 1, "me"), Places(world.bus, "b", 1, "me")
    async with one.place(), other.place():
        pass
    async with Places(world.bus, "c", MOST_SHARED + 1, "me").place():
        assert await world.bus.limits.get(Places(world.bus, "c", 1, "me").key, CallsAtOnce) == (None, 0)
