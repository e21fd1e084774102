"""Changes of an account: written together, on top of what is there, each seen by whoever waits for it."""

import asyncio
from collections.abc import Callable

import pytest

from services.executor.booking import Booking
from shared.bus.buckets import Bucket
from shared.bus.errors import BusError, Unavailable
from shared.contracts.access import Account
from tests.executor.conftest import World

KEY = "tenant.acme"


def adding(amount: int) -> Callable[[Account | None], Account]:
    def change(at: Account | None) -> Account:
        there = at or Account()
        return there.model_copy(update={"day_nano_usd": there.day_nano_usd + amount})

    return change


async def stored(world: World) -> int:
    found, _ = await world.bus.budgets.get(f"money.{KEY}", Account)
    return found.day_nano_usd if found is not None else 0


async def test_changes_that_wait_together_are_few_writes(world: World) -> None:
    booking, before = Booking(world.bus.budgets), world.bus.jetstream.publishes
    await asyncio.gather(*(booking.change(KEY, adding(1)) for _ in range(200)))
    assert await stored(world) == 200
    assert world.bus.jetstream.publishes - before <= 4


async def test_two_processes_lose_nothing_to_each_other(world: World) -> None:
    one, other = Booking(world.bus.budgets), Booking(world.bus.budgets)

    async def often(booking: Booking) -> None:
        for _ in range(30):
            await asyncio.gather(booking.change(KEY, adding(1)), booking.change(KEY, adding(1)))

    await asyncio.gather(often(one), often(other))
    assert await stored(world) == 120


async def test_what_is_decided_without_a_write_is_decided_by_what_is_there_now(world: World) -> None:
    """This process knows an account from before; somebody else has changed it since."""
    booking, other = Booking(world.bus.budgets), Booking(world.bus.budgets)
    await booking.change(KEY, adding(1))
    await other.change(KEY, adding(10))
    seen: list[int] = []

    def looking(at: Account | None) -> None:
        seen.append(at.day_nano_usd if at is not None else 0)

    await booking.change(KEY, looking)
    assert seen[-1] == 11


async def test_a_bus_that_says_no_is_told_to_everybody_who_waits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next change begins afresh."""
    booking = Booking(world.bus.budgets)

    async def away(*_: object) -> int:
        raise Unavailable("a write", 0.0)

    with monkeypatch.context() as broken:
        broken.setattr(Bucket, "put", away)
        results = await asyncio.gather(*(booking.change(KEY, adding(1)) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(one, BusError) for one in results)
    await booking.change(KEY, adding(5))
    assert await stored(world) == 5
