"""Timers of the log: set once, taken back, renewed, fired in time."""

import statistics
import time
from datetime import UTC, datetime

import pytest

from shared import subjects
from shared.contracts.commands import DeadlinePassed
from shared.moments import rfc3339
from shared.topology import FINISHER_DEADLINES, FINISHES
from tests.bus.ground import Ground, due, taken


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


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (datetime(2026, 11, 1, 12, 0, 0, 5, tzinfo=UTC), "2026-11-01T12:00:00.000005Z"),
        (datetime.fromisoformat("2026-11-01T12:00:00+02:00"), "2026-11-01T10:00:00.000000Z"),
    ],
)
def test_times_are_said_in_utc(at: datetime, said: str) -> None:
    assert rfc3339(at) == said
