"""A model that fails again and again is left alone by every executor, tried with a few calls, and asked again."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.executor import breaker, taxonomy
from services.executor.attempts import RULES, Policy
from services.executor.breaker import Go, Settings, Wait, after_answer, after_failure, gate
from services.executor.breakers import Breakers, key_of
from services.executor.taxonomy import TABLE
from shared.contracts.health import BreakerState
from tests.conftest import eventually
from tests.executor.conftest import Begin, World, call, route, run
from tests.executor.standin import answer, refuse

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
SETTINGS = Settings(threshold=3, open_s=10.0, probes=2)
DOWN = taxonomy.PROVIDER_ERROR


def fresh() -> BreakerState:
    return BreakerState(provider="p", model="m")


def failing(times: int, at: datetime = NOW) -> BreakerState:
    state = fresh()
    for _ in range(times):
        state = after_failure(state, DOWN, "down", probe=False, now=at, settings=SETTINGS)
    return state


def test_it_opens_after_so_many_failures_in_a_row_and_not_before() -> None:
    assert gate(None, NOW, SETTINGS) == gate(failing(2), NOW, SETTINGS) == Go()
    opened = failing(3)
    assert (opened.state, opened.failures, opened.opened) == ("open", 3, 1)
    assert gate(opened, NOW, SETTINGS) == Wait(10.0)
    assert gate(opened, NOW + timedelta(seconds=9), SETTINGS) == Wait(1.0)
    assert after_answer(failing(2), probe=False, settings=SETTINGS) is None, "an answer in between begins anew"


def test_half_open_lets_a_few_through_and_closes_when_all_have_answered() -> None:
    later = NOW + timedelta(seconds=10)
    first = gate(failing(3), later, SETTINGS)
    assert isinstance(first, Go)
    assert first.state is not None
    assert (first.probe, first.state.state, first.state.probes) == (True, "half_open", 1)
    second = gate(first.state, later, SETTINGS)
    assert isinstance(second, Go)
    assert second.state is not None
    assert gate(second.state, later, SETTINGS) == Wait(10.0), "no third one"
    once = after_answer(second.state, probe=True, settings=SETTINGS)
    assert once is not None
    assert after_answer(once, probe=True, settings=SETTINGS) is None


def test_a_call_that_tries_it_and_fails_opens_it_again() -> None:
    later = NOW + timedelta(seconds=10)
    tried = gate(failing(3), later, SETTINGS)
    assert isinstance(tried, Go)
    assert tried.state is not None
    again = after_failure(tried.state, DOWN, "still", probe=True, now=later, settings=SETTINGS)
    assert (again.state, again.opened, again.reason) == ("open", 2, "still")
    assert gate(again, later, SETTINGS) == Wait(10.0)


def test_what_was_asked_before_it_opened_changes_nothing() -> None:
    opened = failing(3)
    assert after_failure(opened, DOWN, "late", probe=False, now=NOW, settings=SETTINGS) == opened
    assert after_answer(opened, probe=False, settings=SETTINGS) == opened
    tried = gate(opened, NOW + timedelta(seconds=10), SETTINGS)
    assert isinstance(tried, Go)
    assert tried.state is not None
    assert after_failure(tried.state, DOWN, "late", probe=False, now=NOW, settings=SETTINGS) == tried.state
    assert after_answer(tried.state, probe=False, settings=SETTINGS) == tried.state


def test_calls_that_died_with_their_executors_block_it_for_its_time_only() -> None:
    later = NOW + timedelta(seconds=10)
    tried = gate(failing(3), later, Settings(3, 10.0, 1))
    assert isinstance(tried, Go)
    assert isinstance(gate(tried.state, later, SETTINGS), Wait)
    once_more = gate(tried.state, later + timedelta(seconds=10), SETTINGS)
    assert isinstance(once_more, Go)
    assert once_more.probe


def test_only_what_speaks_against_the_model_counts() -> None:
    """A limit, a wrong key, a refusal, a request's own fault: none says that the model is ill."""
    counted = {row.verdict.code for row in TABLE if breaker.counts(row.verdict)}
    assert {"provider_error", "provider_unavailable", "timeout", "stream_cut", "unreachable"} <= counted
    assert not counted & {
        "rate_limited", "authentication", "content_policy", "refusal", "invalid_request", "context_too_long",
        "cancelled", "run_ended", "deadline", "breaker_open", "empty_answer",
    }  # fmt: skip
    codes = {row.verdict.code for row in TABLE}
    assert codes >= breaker.COUNTED, "a code that nothing says would never count"
    fatal = after_failure(fresh(), taxonomy.EXECUTOR_DIED, "died", probe=False, now=NOW, settings=SETTINGS)
    assert fatal.state == "open", "fatal opens it at once"
    gone = next(row.verdict for row in TABLE if row.verdict.code == "model_not_found")
    assert after_failure(fresh(), gone, "404", probe=False, now=NOW, settings=SETTINGS).state == "open"


@given(st.lists(st.sampled_from(["fail", "answer", "late", "wait"]), max_size=60), st.integers(0, 2**32))
def test_it_never_lets_more_through_than_it_may_and_never_stays_shut(steps: list[str], seed: int) -> None:
    """Whatever happens: half-open at most so many calls are out, and after its time somebody may ask."""
    chance, state, now, out = random.Random(seed), None, NOW, 0
    for step in steps:
        if step == "wait":
            now += timedelta(seconds=chance.choice([1, 5, 10]))
        found = gate(state, now, SETTINGS)
        if isinstance(found, Wait):
            assert 0 < found.seconds <= SETTINGS.open_s
            later = gate(state, now + timedelta(seconds=found.seconds), SETTINGS)
            assert isinstance(later, Go)
            continue
        if found.state is not None:
            began = state is not None and (state.state == "open" or found.state.passed < state.passed)
            out = 1 if began or (state is not None and state.until is not None and state.until <= now) else out + 1
            state = found.state
            assert out <= SETTINGS.probes
        if step == "fail":
            state = after_failure(state or fresh(), DOWN, "x", probe=found.probe, now=now, settings=SETTINGS)
        elif step == "answer" and state is not None:
            state = after_answer(state, probe=found.probe, settings=SETTINGS)


FEW = Policy(rules={**RULES}, base_s=0.01, max_s=0.02)


@pytest.fixture
def heard_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes is heard live: nobody looks by himself meanwhile."""
    monkeypatch.setattr("services.executor.breakers.LOOK_S", 3_600.0)


async def test_the_next_role_is_asked_while_a_model_is_left_alone(begin: Begin) -> None:
    """After three failures nobody asks it: calls go to who stands in at once, and what happened is on their ledger."""
    world = await begin(fallbacks={"medium_ai": ["fast_ai"]}, policy=FEW, breaker=Settings(3, 60.0, 2))
    world.provider.then(*[refuse(500) for _ in range(3)])
    first = await world.do(call())
    assert (first.outcome, first.role, len(first.failed)) == ("answered", "fast_ai", 3)
    asked = len(world.provider.seen)
    second = await world.do(call())
    assert (second.outcome, second.role, second.failed) == ("answered", "fast_ai", ())
    assert [seen.body["model"] for seen in world.provider.seen[asked:]] == ["vendor/fast_ai"]


@pytest.mark.usefixtures("heard_only")
async def test_what_one_executor_learns_all_hear_at_once(begin: Begin) -> None:
    world = await begin(policy=FEW, breaker=Settings(3, 60.0, 2))
    other = Breakers(world.bus, Settings(3, 60.0, 2), lambda: datetime.now(UTC))
    await other.start()
    target = route("medium_ai", world.provider.url)
    for number in range(3):
        teller = world.executor.breakers if number % 2 else other
        await teller.failed(target, DOWN, f"down {number}", probe=False)
    await eventually(lambda: _both_wait(world.executor.breakers, other, target))
    await other.stop()


async def _both_wait(one: Breakers, other: Breakers, target: object) -> bool:
    return all([isinstance(await each.gate(target), Wait) for each in (one, other)])  # type: ignore[arg-type]


async def test_with_nobody_else_a_call_waits_without_a_place_until_it_is_tried(begin: Begin) -> None:
    world = await begin(policy=FEW, breaker=Settings(2, 1.0, 1))
    world.provider.then(refuse(500), refuse(500), answer("at last"))
    settled = await world.do(call())
    assert (settled.outcome, settled.text, len(settled.failed)) == ("answered", "at last", 2)
    assert len(world.provider.seen) == 3
    assert await world.bus.breakers.every("", BreakerState) == {}, "closed: nothing is kept"


async def test_it_says_so_when_the_deadline_comes_first(begin: Begin) -> None:
    world = await begin(policy=FEW, breaker=Settings(2, 600.0, 1))
    world.provider.then(refuse(500), refuse(500))
    settled = await world.do(call(run(lasts_s=60.0)))
    assert settled.fault is not None
    assert (settled.outcome, settled.fault.code) == ("failed", "breaker_open")
    assert "vendor/medium_ai" in settled.fault.message
    assert len(world.provider.seen) == 2


async def test_of_many_that_wait_only_a_few_try_it(world: World) -> None:
    """Half-open, over two executors' worth of breakers: at most as many as may are through at the same time."""
    target, now = route("medium_ai", world.provider.url), NOW
    both = [Breakers(world.bus, SETTINGS, lambda: now) for _ in range(2)]
    for each in both:
        await each.start()
    for _ in range(SETTINGS.threshold):
        await both[0].failed(target, DOWN, "down", probe=False)
    await eventually(lambda: _both_wait(both[0], both[1], target))
    now += timedelta(seconds=SETTINGS.open_s)
    found = await asyncio.gather(*(each.gate(target) for _ in range(10) for each in both))
    assert sum(isinstance(one, Go) for one in found) == SETTINGS.probes
    for each in both:
        await each.stop()


@pytest.mark.usefixtures("heard_only")
async def test_one_that_is_taken_away_by_hand_is_asked_again_at_once(begin: Begin) -> None:
    world = await begin(policy=FEW, breaker=Settings(1, 600.0, 1))
    target = route("medium_ai", world.provider.url)
    await world.executor.breakers.failed(target, DOWN, "down", probe=False)
    assert isinstance(await world.executor.breakers.gate(target), Wait)
    await world.bus.breakers.delete(key_of(target.provider, target.model))

    async def asked() -> bool:
        return isinstance(await world.executor.breakers.gate(target), Go)

    await eventually(asked)


@pytest.mark.usefixtures("heard_only")
@pytest.mark.parametrize("before", [0, 1, 2])
async def test_an_older_read_undoes_nothing_that_was_learnt_meanwhile(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """A model opens, or is taken away, while the bucket is read: what was heard stands, newer than what was read."""
    world = await begin(policy=FEW, breaker=Settings(2, 600.0, 1))
    mine, target = world.executor.breakers, route("medium_ai", world.provider.url)
    other = Breakers(world.bus, Settings(2, 600.0, 1), lambda: datetime.now(UTC))
    for _ in range(before):
        await mine.failed(target, DOWN, "down", probe=False)
    await mine.reconnected()
    read = world.bus.breakers.entries
    wanted = Go if before == 2 else Wait

    async def as_wanted() -> bool:
        return isinstance(await mine.gate(target), wanted)

    async def behind(*args: Any, **kwargs: Any) -> dict[str, tuple[BreakerState, int]]:
        found = await read(*args, **kwargs)
        if before == 2:
            await world.bus.breakers.delete(key_of(target.provider, target.model))
        for _ in range(before, 2):
            await other.failed(target, DOWN, "down", probe=False)
        await eventually(as_wanted)
        return found

    monkeypatch.setattr(world.bus.breakers, "entries", behind)
    await mine.reconnected()
    assert await as_wanted()
    monkeypatch.setattr(world.bus.breakers, "entries", read)
    await mine.reconnected()
    assert await as_wanted()


@pytest.mark.parametrize("times", [1, 4])
async def test_an_answer_in_between_forgives(begin: Begin, times: int) -> None:
    world = await begin(policy=FEW, breaker=Settings(5, 60.0, 1))
    world.provider.then(*[refuse(500) for _ in range(times)])
    assert (await world.do(call())).outcome == "answered"
    assert await world.bus.breakers.every("", BreakerState) == {}
