"""Limits hold over all executors, in whatever window one looks through; waiting for them is no attempt."""

import asyncio
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.executor.backpressure import Backpressure
from services.executor.disposition import Disposition
from services.executor.limits import USE_WITHIN_S, Busy, Limit, Permit, Permits
from services.executor.pricing import MOST_RATIO, learned, tokens_taken
from services.executor.providers import Answered, Failed
from services.executor.settlement import Ledger
from services.executor.taxonomy import UNAVAILABLE
from services.executor.windows import Later, Reserved, held, reserve, settle
from shared.bus.grants import Full, Granted, Grants
from shared.bus.jetstream import JetStream
from shared.bus.provisioner import provision
from shared.config.providers import Route
from shared.contracts.commands import ExecuteCall
from shared.contracts.health import TokenWindow
from shared.contracts.message import ChatMessage, Usage
from shared.topology import MARGIN_S, Limits, Window
from tests.executor.conftest import Begin, World, call, route, run
from tests.executor.standin import answer

WINDOW = Window("minute", 2.0, 4)
LIMIT = Limit("tested", (WINDOW,))
LONG = Limit("tested", (Window("minute", 60.0, 4),))
"""None of its grants is over before a test is."""
OWNER = ("acme", "medium")

Span = tuple[float, float]
"""Before and after what happened somewhere in between: mostly a moment, unless the machine stands still."""


def most_in(spans: Sequence[Span], seconds: float) -> int:
    """Return the most that lie within so many seconds for certain, wherever those begin."""
    return max(sum(1 for one in spans if first <= one[0] and one[1] < first + seconds) for first, _ in spans)


async def provisioned(world: World, limit: Limit = LIMIT) -> None:
    await provision(world.bus.client, Limits(grants={limit.name: limit.windows}))


@given(
    st.lists(st.tuples(st.floats(0, 20), st.integers(1, 60), st.floats(0, 1.5), st.floats(0, 5)), max_size=60),
)
def test_tokens_never_exceed_their_window_whatever_is_asked_and_used(
    steps: list[tuple[float, int, float, float]],
) -> None:
    """By the moments in which they were sent, late as that may be, with what was really used, less than was held."""
    record: TokenWindow | None = None
    now_s, taken = 1_000.0, list[tuple[float, int]]()
    for pause_s, tokens, share, late_s in steps:
        now_s += pause_s
        found = reserve(record, now_s=now_s, tokens=tokens, most=100, window_s=10)
        if isinstance(found, Later):
            assert 0 < found.seconds <= 13
            continue
        now_s += late_s
        used = min(found.tokens, int(found.tokens * share))
        record = settle(found.record, found, used=used, now_s=now_s, window_s=10, sent_s=now_s)
        taken.append((now_s, used))
        assert sum(tokens for at, tokens in taken if at > now_s - 10) <= 100


def test_whose_the_tokens_are_comes_to_what_counts() -> None:
    """By slots that live longer than seconds, and still never more in all than the seconds say."""
    record: TokenWindow | None = None
    for second, owner in ((1_000, "a"), (1_001, "b"), (1_009, "a")):
        found = reserve(record, now_s=float(second), tokens=30, most=100, owner=owner)
        assert isinstance(found, Reserved)
        record = settle(found.record, found, used=20, now_s=float(second))
    assert held(record, now_s=1_010.0) == {"a": 40, "b": 20}
    assert held(record, now_s=1_063.5) == {"a": 13, "b": 6}, "of the three twenties one still counts"
    assert held(record, now_s=1_090.0) == {}


async def test_a_settlement_whose_answer_was_lost_is_not_made_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name stands in the record: what others hold stays."""
    limit = Limit("tested", (), tokens_per_minute=1_000)
    permits, target = Permits(world.bus, {"tested": limit}), route("medium_ai", "x", limit="tested")
    one, other = [await permits.take(target, call(max_tokens=300)) for _ in range(2)]
    assert isinstance(one, Permit)
    assert isinstance(other, Permit)
    put = world.bus.limits.put
    lost = [True]

    async def loses_an_answer(*given: Any) -> int | None:
        stored = await put(*given)
        return None if lost and lost.pop() else stored

    monkeypatch.setattr(type(world.bus.limits), "put", lambda _, *given: loses_an_answer(*given))
    await permits.used(target, one, 10)
    record, _ = await world.bus.limits.get("tested", TokenWindow)
    assert record is not None
    assert other.reserved is not None
    assert sum(record.seconds.values()) == 10 + other.reserved.tokens


def test_what_does_not_fit_says_when_it_will() -> None:
    first = reserve(None, now_s=1_000.5, tokens=90, most=100)
    assert isinstance(first, Reserved)
    later = reserve(first.record, now_s=1_010.0, tokens=20, most=100)
    assert isinstance(later, Later)
    assert isinstance(reserve(first.record, now_s=1_010.0 + later.seconds, tokens=20, most=100), Reserved)
    assert isinstance(
        reserve(settle(first.record, first, used=10, now_s=1_010.0), now_s=1_010.0, tokens=90, most=100), Reserved
    )


def test_a_call_that_is_larger_than_the_limit_takes_all_of_it() -> None:
    found = reserve(None, now_s=1_000.0, tokens=1_000_000, most=100)
    assert isinstance(found, Reserved)
    assert found.tokens == 100


async def test_grants_of_many_takers_stay_within_their_window(world: World) -> None:
    """Eight at once, for six seconds or more: never more than four within two, and most of what is allowed is taken."""
    await provisioned(world)
    grants = [Grants(world.bus.jetstream, random.Random(number)) for number in range(8)]
    used: list[Span] = []
    until = time.monotonic() + 6.5

    async def taker(own: Grants) -> None:
        while time.monotonic() < until or len(used) < 8:
            found = await own.take("tested", [WINDOW], OWNER)
            if isinstance(found, Granted):
                used.append((found.at, time.monotonic()))
            else:
                await asyncio.sleep(min(found.seconds, 0.3))

    await asyncio.wait_for(asyncio.gather(*(taker(one) for one in grants)), 30)
    assert most_in(used, WINDOW.seconds) <= WINDOW.most
    assert len(used) >= 8, "a window of two seconds and its margin let four through every three"


async def test_a_grant_is_as_old_as_the_question_for_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its window began when it was stored; whoever stands still until the answer comes takes another one."""
    await provisioned(world)
    publish = JetStream.publish

    async def late(self: JetStream, *given: Any, **named: Any) -> int:
        stored = await publish(self, *given, **named)
        await asyncio.sleep(USE_WITHIN_S + 0.05)
        return stored

    monkeypatch.setattr(JetStream, "publish", late)
    found = await Permits(world.bus, {"tested": LIMIT}).take(route("medium_ai", "x", limit="tested"), call())
    assert isinstance(found, Permit)
    assert found.stale


async def test_a_claimed_attempt_does_not_go_out_with_a_grant_that_came_late_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one's window is no less begun than the first one's."""
    await provisioned(world)
    publish, asked = JetStream.publish, list[str]()

    async def late_at_first(self: JetStream, subject: str, *given: Any, **named: Any) -> int:
        stored = await publish(self, subject, *given, **named)
        asked.append(subject)
        if len(asked) == 1:
            await asyncio.sleep(USE_WITHIN_S + 0.05)
        return stored

    monkeypatch.setattr(JetStream, "publish", late_at_first)
    permits = Permits(world.bus, {"tested": LIMIT})
    backpressure = Backpressure(permits, cast(Disposition, None), lambda: datetime.now(UTC))
    await backpressure.insist(route("medium_ai", "x", limit="tested"), Ledger.of(call()))
    assert len(asked) > 1


async def test_of_several_windows_all_grant_or_none(world: World) -> None:
    """What the longer window gave is given back when the shorter one refuses."""
    windows = (Window("minute", 90.0, 10), Window("second", 60.0, 2))
    await provisioned(world, Limit("both", windows))
    grants = Grants(world.bus.jetstream)
    found = [await grants.take("both", windows, OWNER) for _ in range(5)]
    assert [type(one) for one in found] == [Granted, Granted, Full, Full, Full]
    full = found[-1]
    assert isinstance(full, Full)
    assert (full.window, 0 < full.seconds < windows[1].lives_s + 1) == ("second", True)
    state = await world.bus.client.jetstream().stream_info("LIMITS_both_minute")
    assert state.state.messages == 2
    granted = found[0]
    assert isinstance(granted, Granted)
    await grants.give_back(granted.taken)
    assert isinstance(await grants.take("both", windows, OWNER), Granted), "what is given back is another's at once"


async def test_calls_wait_for_their_places_and_waiting_is_no_attempt(
    begin: Begin, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await provisioned(world)
    await begin(limits={"tested": LIMIT}, routes={"medium_ai": route("medium_ai", world.provider.url, limit="tested")})
    granted: dict[str, float] = {}
    times: list[Span] = []
    inner, take = world.provider.default, Permits.take

    async def taking(self: Permits, to: Route, command: ExecuteCall) -> Permit | Busy:
        found = await take(self, to, command)
        if isinstance(found, Permit):
            granted[command.run.run_id] = found.granted.at
        return found

    async def noted(writer: asyncio.StreamWriter) -> None:
        times.append((granted[world.provider.seen[-1].headers["x-segue-run"]], time.monotonic()))
        await inner(writer)

    monkeypatch.setattr(Permits, "take", taking)

    world.provider.default = noted
    settled = await asyncio.gather(*(world.do(call(), within_s=30) for _ in range(9)))
    assert {(one.outcome, one.attempts, one.failed) for one in settled} == {("answered", 1, ())}
    assert len(times) == 9
    assert most_in(times, WINDOW.seconds) <= WINDOW.most
    lasted_s = max(end for _, end in times) - min(began for began, _ in times)
    assert lasted_s < 8 * (WINDOW.seconds + MARGIN_S), "nobody waits longer than there is reason to"


async def test_one_who_stands_in_is_asked_when_the_deadline_comes_first(begin: Begin, world: World) -> None:
    """Else it fails, and says which limit held it back."""
    slow = Limit("tested", (Window("minute", 60.0, 1),))
    await provisioned(world, slow)
    limited = {"medium_ai": route("medium_ai", world.provider.url, limit="tested")}
    await begin(limits={"tested": slow}, routes=limited, fallbacks={"medium_ai": ["fast_ai"]})
    assert (await world.do(call())).role == "medium_ai"
    stood_in = await world.do(call(run(lasts_s=30)))
    assert (stood_in.outcome, stood_in.role, stood_in.failed) == ("answered", "fast_ai", ())
    world.executor.roster.fallbacks = {}
    alone = await world.do(call(run(lasts_s=30)))
    assert alone.fault is not None
    assert (alone.outcome, alone.fault.code, alone.attempts) == ("failed", "limit_reached", 0)
    assert "1 requests a minute" in alone.fault.message


async def test_tokens_are_held_before_and_settled_after(begin: Begin, world: World) -> None:
    tokens = Limit("tested", (), tokens_per_minute=1_000)
    await begin(limits={"tested": tokens}, routes={"medium_ai": route("medium_ai", world.provider.url, limit="tested")})
    target, command = route("medium_ai", "x", limit="tested"), call(max_tokens=600)
    permits = Permits(world.bus, {"tested": tokens})
    first = await permits.take(target, command)
    assert isinstance(first, Permit)
    second = await permits.take(target, command)
    assert isinstance(second, Busy)
    assert "1,000 tokens a minute" in second.what
    await permits.used(target, first, 15)
    assert isinstance(await permits.take(target, command), Permit)
    record, _ = await world.bus.limits.get("tested", TokenWindow)
    assert record is not None
    assert sum(record.seconds.values()) < 15 + 700
    answered = await world.do(call(max_tokens=200))
    assert answered.outcome == "answered"
    record, _ = await world.bus.limits.get("tested", TokenWindow)
    assert record is not None
    assert sum(record.seconds.values()) < 15 + 700 + 20, "what was held for it is settled with the 15 that it took"


async def test_prompts_are_held_by_what_the_model_counts(world: World) -> None:
    """Of a text that has three times as many tokens as we estimate, the next ones are held with that."""
    limit = Limit("tested", (), tokens_per_minute=10_000)
    permits, target = Permits(world.bus, {"tested": limit}), route("medium_ai", "x", limit="tested")
    command = call(messages=(ChatMessage(role="user", content="字" * 396),), max_tokens=10)
    first = await permits.take(target, command)
    assert isinstance(first, Permit)
    assert first.reserved is not None
    assert (first.estimated, first.reserved.tokens) == (103, 113)
    await permits.used(target, first, 330, 0.1, prompt_tokens=309)
    second = await permits.take(target, command)
    assert isinstance(second, Permit)
    assert second.reserved is not None
    assert second.reserved.tokens == 319


def test_what_a_model_counts_is_learned_up_at_once_and_down_slowly() -> None:
    assert learned(1.0, 100, 250) == 2.5
    assert 2.4 < learned(2.5, 100, 100) < 2.5
    assert learned(1.0, 100, 50) == 1.0
    assert learned(1.0, 1, 1_000) == MOST_RATIO
    assert learned(2.0, 100, 0) == 2.0


@pytest.mark.parametrize(
    ("outcome", "tokens"),
    [
        (Answered("x", usage=Usage(prompt_tokens=10, completion_tokens=5)), 15),
        (Answered("x"), None),
        (Failed(UNAVAILABLE, "later", 429), 0),
        (Failed(UNAVAILABLE, "nobody there"), 0),
        (Failed(UNAVAILABLE, "cut", cost_usd=None), None),
        (Failed(UNAVAILABLE, "broken", 503), None),
        (Failed(UNAVAILABLE, "cut", 200, usage=Usage(prompt_tokens=10)), 10),
    ],
)
def test_what_an_attempt_takes_of_the_tokens(outcome: Answered | Failed, tokens: int | None) -> None:
    """Refused or never there: nothing. Where nobody says, what was held stays held."""
    assert tokens_taken(outcome) == tokens


async def test_without_a_limit_nothing_is_written(begin: Begin) -> None:
    world = await begin()
    world.provider.then(answer("x"))
    before = world.bus.jetstream.publishes
    await world.do(call())
    assert world.bus.jetstream.publishes - before == 3, "the call, its attempt, its settlement"


@pytest.mark.parametrize("most", [1, 3])
async def test_a_limit_that_was_changed_counts_after_the_next_provisioning(world: World, most: int) -> None:
    await provisioned(world, LONG)
    changed = Limit("tested", (Window("minute", 60.0, most),))
    await provisioned(world, changed)
    found = [await Grants(world.bus.jetstream).take("tested", changed.windows, OWNER) for _ in range(most + 2)]
    assert sum(isinstance(one, Granted) for one in found) == most
