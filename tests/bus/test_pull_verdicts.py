"""What becomes of a message: done, again, buried; and whatever a handler does wrong, it is neither lost nor looped."""

import asyncio
import logging
import time
from itertools import pairwise

import pytest

from shared.bus.delivery import Buried, Delivery, Done, Poison, Retry, Verdict
from shared.bus.settlement import (
    DELIVERIES_BEFORE_BURIAL,
    FAILURES_BEFORE_BURIAL,
    Settlement,
    backoff_s,
    nak,
)
from tests.bus.conftest import AT_ONCE_S, Arena, Seen
from tests.conftest import eventually


def a_delivery(delivered: int = 1, seq: int = 7) -> Delivery:
    return Delivery("s.high", b"x", None, "high", "S", seq, delivered, 0, 0)


async def test_done_removes_it_and_retry_brings_it_back_after_its_pause(arena: Arena) -> None:
    at: list[float] = []

    async def handle(delivery: Delivery) -> Verdict:
        at.append(time.monotonic())
        return Retry(0.4) if delivery.delivered < 3 else Done()

    seen = Seen()
    await arena.pool(handle, places=2, observer=seen)
    await arena.publish("high")
    await eventually(arena.empty, within_s=30)
    pauses = [later - earlier for earlier, later in pairwise(at)]
    assert len(pauses) == 2
    assert all(pause >= 0.35 for pause in pauses), pauses
    await eventually(lambda: len(seen.settled_ones) >= 3)  # told after the answer has left
    assert [verdict for _, verdict, _ in seen.settled_ones] == [Retry(0.4), Retry(0.4), Done()]
    assert [delivery.delivered for delivery in seen.redelivered_ones] == [2, 3]
    assert arena.buried == []


async def test_retry_at_once_goes_to_whoever_is_free(arena: Arena) -> None:
    async def handle(delivery: Delivery) -> Verdict:
        return Retry() if delivery.delivered < 20 else Done()

    await arena.pool(handle, places=2)
    await arena.publish("low")
    took_s = await eventually(arena.empty, within_s=30)
    assert took_s < AT_ONCE_S


@pytest.mark.parametrize("how", ["answered", "raised"])
async def test_a_dead_letter_is_stored_before_the_message_leaves_its_queue(arena: Arena, how: str) -> None:
    left_while_burying: list[int] = []

    async def bury(delivery: Delivery, reason: str) -> None:
        left_while_burying.append(await arena.left())
        arena.buried.append((delivery, reason))

    async def handle(_: Delivery) -> Verdict:
        if how == "raised":
            raise Poison("version 9 is not known")
        return Buried("version 9 is not known")

    await arena.pool(handle, places=2, bury=bury)
    await arena.publish("medium")
    await eventually(arena.empty, within_s=30)
    assert left_while_burying == [1]
    assert [(delivery.subject, reason) for delivery, reason in arena.buried] == [
        (f"{arena.stream}.medium", "version 9 is not known")
    ]


async def test_a_dead_letter_that_cannot_be_stored_stays_queued_until_it_can(
    arena: Arena, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[int] = []

    async def bury(delivery: Delivery, reason: str) -> None:
        tries.append(delivery.delivered)
        if len(tries) < 3:
            raise TimeoutError("the dead letter stream does not answer")
        arena.buried.append((delivery, reason))

    async def handle(_: Delivery) -> Verdict:
        raise Poison("no")

    await arena.pool(handle, places=2, bury=bury)
    await arena.publish("medium")
    await eventually(arena.empty, within_s=30)
    assert tries == [1, 2, 3]
    assert len(arena.buried) == 1
    assert "cannot store dead letter" in caplog.text


async def test_a_handler_that_raises_is_logged_once_each_time_and_comes_again_ever_later(
    arena: Arena, caplog: pytest.LogCaptureFixture
) -> None:
    at: list[float] = []

    async def handle(delivery: Delivery) -> Verdict:
        at.append(time.monotonic())
        if delivery.delivered < 5:
            raise KeyError("nowhere")
        return Done()

    await arena.pool(handle, places=4)
    await arena.publish("high")
    await eventually(arena.empty, within_s=30)
    pauses = [later - earlier for earlier, later in pairwise(at)]
    assert all(pause >= wanted for pause, wanted in zip(pauses, [0.1, 0.2, 0.4, 0.8], strict=True))
    failures = [record for record in caplog.records if record.name == "segue.bus" and record.levelno == logging.ERROR]
    assert len(failures) == 4
    assert all(record.exc_info for record in failures)
    assert arena.buried == []


async def test_a_handler_that_answers_nonsense_counts_as_failed(arena: Arena, caplog: pytest.LogCaptureFixture) -> None:
    async def handle(delivery: Delivery) -> Verdict:
        return Done() if delivery.delivered > 1 else None  # type: ignore[return-value]  # that is the point

    await arena.pool(handle, places=1)
    await arena.publish("high")
    await eventually(arena.empty, within_s=30)
    assert "answered None, not Done, Retry or Buried" in caplog.text


async def test_a_handler_that_cancels_itself_loses_nothing(arena: Arena) -> None:
    async def handle(delivery: Delivery) -> Verdict:
        if delivery.delivered == 1:
            raise asyncio.CancelledError
        return Done()

    pool = await arena.pool(handle, places=1)
    await arena.publish("high", 3)
    took_s = await eventually(arena.empty, within_s=30)
    assert took_s < AT_ONCE_S, "given back, not left to ack_wait"
    assert pool.running == 0


async def test_one_message_that_fails_does_not_hold_up_the_others(arena: Arena) -> None:
    handled: list[bytes] = []

    async def handle(delivery: Delivery) -> Verdict:
        if delivery.data == b"0":
            raise RuntimeError("always")
        handled.append(delivery.data)
        return Done()

    await arena.pool(handle, places=1)
    await arena.publish("high", 50)
    took_s = await eventually(lambda: len(handled) == 49)
    assert took_s < AT_ONCE_S


async def test_after_ten_failures_here_a_message_is_buried_with_the_errors_text() -> None:
    buried: list[str] = []

    async def bury(_: Delivery, reason: str) -> None:
        buried.append(reason)

    async def handle(_: Delivery) -> Verdict:
        raise ValueError("seven is not a colour")

    settlement = Settlement(handle, bury, "test")
    verdicts = [await settlement.verdict(a_delivery(i + 1), key=1) for i in range(FAILURES_BEFORE_BURIAL)]
    assert verdicts[:-1] == [Retry(backoff_s(i + 1)) for i in range(FAILURES_BEFORE_BURIAL - 1)]
    assert verdicts[-1] == Buried("handler failed 10 times, last with ValueError: seven is not a colour")
    assert buried == ["handler failed 10 times, last with ValueError: seven is not a colour"]


async def test_waiting_is_not_failing() -> None:
    """Many retries by decision, then one exception: that is the first failure, not the tenth."""

    async def handle(delivery: Delivery) -> Verdict:
        if delivery.delivered < 15:
            return Retry(1.0)
        raise RuntimeError("once")

    settlement = Settlement(handle, _never, "test")
    assert [await settlement.verdict(a_delivery(i), key=1) for i in range(1, 16)][-1] == Retry(backoff_s(15))


async def test_failures_in_many_processes_end_in_burial_too() -> None:
    """Each worker sees only its own failures; the count of deliveries is everybody's."""
    buried: list[str] = []

    async def bury(_: Delivery, reason: str) -> None:
        buried.append(reason)

    async def handle(_: Delivery) -> Verdict:
        raise RuntimeError("again")

    verdict = await Settlement(handle, bury, "test").verdict(a_delivery(DELIVERIES_BEFORE_BURIAL), key=1)
    assert isinstance(verdict, Buried)
    assert len(buried) == 1


async def test_success_forgets_the_failures_of_a_message() -> None:
    fail = True

    async def handle(_: Delivery) -> Verdict:
        if fail:
            raise RuntimeError("not now")
        return Done()

    settlement = Settlement(handle, _never, "test")
    for _ in range(FAILURES_BEFORE_BURIAL - 1):
        await settlement.verdict(a_delivery(), key=1)
    fail = False
    assert await settlement.verdict(a_delivery(), key=1) == Done()
    fail = True
    assert isinstance(await settlement.verdict(a_delivery(), key=1), Retry)


async def _never(_: Delivery, reason: str) -> None:
    pytest.fail(f"buried: {reason}")


@pytest.mark.parametrize(("delivered", "after_s"), [(1, 0.1), (2, 0.2), (5, 1.6), (9, 25.6), (10, 30.0), (1000, 30.0)])
def test_the_pause_after_a_failure_doubles_up_to_thirty_seconds(delivered: int, after_s: float) -> None:
    assert backoff_s(delivered) == pytest.approx(after_s)


@pytest.mark.parametrize(
    ("after_s", "answer"),
    [(0, b"-NAK"), (-1, b"-NAK"), (0.25, b'-NAK {"delay":250000000}'), (30, b'-NAK {"delay":30000000000}')],
)
def test_a_pause_is_told_in_nanoseconds(after_s: float, answer: bytes) -> None:
    assert nak(after_s) == answer
