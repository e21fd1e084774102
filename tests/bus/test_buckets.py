"""Keys change by compare-and-set: every change counts, and none is written over another."""

import asyncio
from collections.abc import Callable

import pytest

from shared.bus.buckets import TRIES, Bucket, Contended
from shared.contracts.events import Progress
from shared.contracts.message import Unreadable
from shared.topology import RUNS
from tests.bus.ground import Ground


def key(ground: Ground, name: str = "r") -> str:
    return f"{ground.tenant}.{name}"


def progress(states: str) -> Progress:
    return Progress(fans={"0-0": states})


def settle(place: int) -> Callable[[Progress | None], Progress | None]:
    """Return the change that marks one place as done: applied twice it changes nothing."""

    def change(there: Progress | None) -> Progress | None:
        states = there.fans["0-0"] if there is not None else "w" * 50
        return None if states[place] == "d" else progress(f"{states[:place]}d{states[place + 1 :]}")

    return change


async def test_a_key_has_a_value_and_a_revision(ground: Ground) -> None:
    runs = ground.buses[0].runs
    assert await runs.get(key(ground), Progress) == (None, 0)
    first = await runs.put(key(ground), progress("w"), 0)
    assert first is not None
    assert await runs.get(key(ground), Progress) == (progress("w"), first)
    second = await runs.put(key(ground), progress("s"), first)
    assert second is not None
    assert second > first
    assert await (await ground.bus()).runs.get(key(ground), Progress) == (progress("s"), second)


async def test_a_write_on_top_of_what_is_gone_is_refused(ground: Ground) -> None:
    runs = ground.buses[0].runs
    first = await runs.put(key(ground), progress("w"), 0)
    assert first is not None
    assert await runs.put(key(ground), progress("d"), 0) is None
    assert await runs.put(key(ground), progress("s"), first)
    assert await runs.put(key(ground), progress("d"), first) is None
    assert (await runs.get(key(ground), Progress))[0] == progress("s")


async def test_fifty_changes_at_once_are_all_applied(ground: Ground) -> None:
    """On one connection: they meet in this process."""
    bus = ground.buses[0]
    before = bus.jetstream.publishes
    await asyncio.gather(*(bus.runs.update(key(ground), Progress, settle(place)) for place in range(50)))
    assert (await bus.runs.get(key(ground), Progress))[0] == progress("d" * 50)
    assert bus.jetstream.publishes - before == 50  # whoever would only lose waits for its turn instead


async def test_fifty_changes_at_once_from_ten_processes_are_all_applied(ground: Ground) -> None:
    buses = [*ground.buses, *[await ground.bus() for _ in range(9)]]
    changes = (buses[place % 10].runs.update(key(ground), Progress, settle(place)) for place in range(50))
    results = await asyncio.gather(*changes)
    assert all(result is not None for result in results)
    assert (await buses[3].runs.get(key(ground), Progress))[0] == progress("d" * 50)
    tried = sum(bus.jetstream.publishes for bus in buses)
    print(f"50 changes from 10 connections took {tried} writes on {ground.replicas} server(s)")
    assert all(not bus.runs._turns for bus in buses)


async def test_a_change_of_nothing_leaves_the_key_alone(ground: Ground) -> None:
    bus = ground.buses[0]
    assert await bus.runs.update(key(ground), Progress, lambda _: None) is None
    await bus.runs.put(key(ground), progress("w"), 0)
    before = bus.jetstream.publishes
    assert await bus.runs.update(key(ground), Progress, lambda _: None) == progress("w")
    assert bus.jetstream.publishes == before


async def test_a_fresh_key_is_not_read_first_and_may_still_be_there(ground: Ground) -> None:
    bus = ground.buses[0]
    saw: list[Progress | None] = []

    def change(there: Progress | None) -> Progress | None:
        saw.append(there)
        return progress("s") if there is None else progress(f"{there.fans['0-0']}d")

    assert await bus.runs.update(key(ground), Progress, change, fresh=True) == progress("s")
    assert await bus.runs.update(key(ground), Progress, change, fresh=True) == progress("sd")
    assert saw == [None, None, progress("s")]


async def test_a_change_whose_answer_is_lost_is_applied_once(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    bus = await ground.bus()
    ask = bus.jetstream.request
    lost = 0

    async def forgetful(subject: str, *args: object, **more: object) -> object:
        nonlocal lost
        answer = await ask(subject, *args, **more)  # type: ignore[arg-type]  # handed on as it came
        if subject.startswith("$KV.") and lost < 2:
            lost += 1
            raise TimeoutError
        return answer

    monkeypatch.setattr(bus.jetstream, "request", forgetful)
    assert await bus.runs.update(key(ground), Progress, settle(7)) == settle(7)(None)
    assert lost == 2
    assert await ground.stored(f"KV_{RUNS}", f"$KV.{RUNS}.{key(ground)}") == 1
    assert (await bus.runs.get(key(ground), Progress))[0] == settle(7)(None)


async def test_a_change_that_always_loses_says_so(ground: Ground) -> None:
    """Somebody writes between every reading and writing."""
    bus, rival = ground.buses[0], await ground.bus()

    class Disturbed(Bucket):
        async def put(self, key: str, value: Progress, revision: int) -> int | None:  # type: ignore[override]  # one kind
            _, now = await rival.runs.get(key, Progress)
            await rival.runs.put(key, progress("w" * 50), now)
            return await super().put(key, value, revision)

    disturbed = Disturbed(RUNS, bus.jetstream, bus.payloads)
    with pytest.raises(Contended, match=f"was changed by others {TRIES} times"):
        await disturbed.update(key(ground), Progress, settle(1))
    assert (await bus.runs.get(key(ground), Progress))[0] == progress("w" * 50)


async def test_an_error_in_a_change_lets_the_next_one_in(ground: Ground) -> None:
    runs = ground.buses[0].runs

    def broken(_: Progress | None) -> Progress | None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await runs.update(key(ground), Progress, broken)
    assert await asyncio.wait_for(runs.update(key(ground), Progress, settle(0)), 30)


async def test_a_deleted_key_is_gone_without_a_trace(ground: Ground) -> None:
    runs, subject = ground.buses[0].runs, f"$KV.{RUNS}.{key(ground)}"
    assert not await runs.delete(key(ground))
    await runs.put(key(ground), progress("w"), 0)
    assert await runs.delete(key(ground))
    assert await ground.stored(f"KV_{RUNS}", subject) == 0
    assert (await runs.get(key(ground), Progress))[0] is None
    assert not await runs.delete(key(ground))
    assert await runs.update(key(ground), Progress, settle(3)) == settle(3)(None)


async def test_a_write_whose_answer_is_lost_is_ones_own(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who puts on top of a revision, or deletes, is not told that another was first; who was late still is."""
    bus = await ground.bus()
    ask = bus.jetstream.request
    lost: list[str] = []

    async def forgetful(subject: str, *args: object, **more: object) -> object:
        answer = await ask(subject, *args, **more)  # type: ignore[arg-type]  # handed on as it came
        if subject.startswith("$KV.") and not lost:
            lost.append(subject)
            raise TimeoutError
        return answer

    monkeypatch.setattr(bus.jetstream, "request", forgetful)
    first = await bus.runs.put(key(ground), progress("w"), 0)
    assert (lost, await bus.runs.get(key(ground), Progress)) == ([f"$KV.{RUNS}.{key(ground)}"], (progress("w"), first))
    lost.clear()
    assert await bus.runs.put(key(ground), progress("d"), 0) is None
    assert lost
    lost.clear()
    assert await bus.runs.delete(key(ground))
    assert lost
    assert await ground.stored(f"KV_{RUNS}", f"$KV.{RUNS}.{key(ground)}") == 0


async def test_a_write_on_top_of_a_deleted_value_is_refused(ground: Ground) -> None:
    """Who read before the deletion must not bring the old value back."""
    runs = ground.buses[0].runs
    revision = await runs.put(key(ground), progress("w"), 0)
    assert revision is not None
    await runs.delete(key(ground))
    assert await runs.put(key(ground), progress("s"), revision) is None
    assert (await runs.get(key(ground), Progress))[0] is None


async def test_a_key_deleted_by_another_client_is_gone_too(ground: Ground) -> None:
    runs = ground.buses[0].runs
    await runs.put(key(ground), progress("w"), 0)
    await (await ground.js().key_value(RUNS)).delete(key(ground))
    value, revision = await runs.get(key(ground), Progress)
    assert (value, revision > 0) == (None, True)
    assert not await runs.delete(key(ground))
    assert await runs.put(key(ground), progress("s"), revision)


async def test_deleting_and_changing_at_once_ends_in_one_or_the_other(ground: Ground) -> None:
    buses = [*ground.buses, await ground.bus()]
    for round_ in range(10):
        name = key(ground, str(round_))
        await buses[0].runs.put(name, progress("w" * 50), 0)
        deleted, changed = await asyncio.gather(
            buses[0].runs.delete(name), buses[1].runs.update(name, Progress, settle(round_))
        )
        assert deleted
        assert changed is not None
        value, _ = await buses[0].runs.get(name, Progress)
        assert value in (None, changed)


async def test_a_value_of_a_later_version_is_unreadable_and_stays(ground: Ground) -> None:
    bus = ground.buses[0]
    await bus.jetstream.publish(f"$KV.{RUNS}.{key(ground)}", b'{"v":2,"states":"?"}')
    with pytest.raises(Unreadable, match="of version 2"):
        await bus.runs.update(key(ground), Progress, settle(0))
    assert await ground.stored(f"KV_{RUNS}", f"$KV.{RUNS}.{key(ground)}") == 1
