"""Shares of a limit are max-min fair, whatever is wanted; nothing that is free waits for nobody."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.executor.fairness import Claim, Owner, may_take, shares
from services.executor.waiting import LEAST, MOST, MOST_OF_ONE, Wait, Waiting

WEIGHTS = {"high": 0.6, "medium": 0.3, "low": 0.1}
MINUTE = frozenset({"minute"})


def claim(held: int, waiting: int, weight: float = 1) -> Claim:
    return Claim(held, waiting, min(1, waiting), weight)


CLAIMS = st.dictionaries(
    st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(sorted(WEIGHTS))),
    st.builds(claim, st.integers(0, 40), st.integers(0, 80)),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize(
    ("claims", "entitled"),
    [
        ({"a": claim(0, 500)}, {"a": 60}),
        ({"a": claim(60, 500), "b": claim(0, 3)}, {"a": 57, "b": 3}),
        ({"a": claim(60, 500), "b": claim(0, 40)}, {"a": 30, "b": 30}),
        ({"a": claim(10, 500), "b": claim(20, 500), "c": claim(4, 0)}, {"a": 28, "b": 28, "c": 4}),
        ({"a": claim(0, 500), "b": claim(0, 500, weight=2)}, {"a": 20, "b": 40}),
        ({"a": claim(5, 5), "b": claim(5, 5)}, {"a": 10, "b": 10}),
        ({"a": Claim(0, 600, 10), "b": Claim(0, 45, 45), "c": Claim(0, 600, 10)}, {"a": 7.5, "b": 45, "c": 7.5}),
    ],
    ids=["alone", "few", "two floods", "held counts as wanted", "weights", "enough for all", "one large call"],
)
def test_what_everybody_is_entitled_to(claims: dict[str, Claim], entitled: dict[str, float]) -> None:
    """Of 60; the last has calls that are larger than a share, which may be more than a share for once."""
    found = shares(60, claims)
    if sum(found.values()) > 60:
        assert found["b"] == 45
    else:
        assert found == pytest.approx(entitled)


@pytest.mark.parametrize(
    ("claims", "who", "may"),
    [
        ({("a", "low"): claim(59, 500)}, ("a", "low"), True),
        ({("a", "low"): claim(57, 500), ("b", "low"): claim(0, 3)}, ("a", "low"), False),
        ({("a", "high"): claim(57, 500), ("b", "low"): claim(0, 3)}, ("a", "high"), False),
        ({("a", "high"): claim(57, 500), ("b", "low"): claim(0, 3)}, ("b", "low"), True),
        ({("a", "high"): claim(52, 500), ("a", "low"): claim(5, 500)}, ("a", "high"), False),
        ({("a", "high"): claim(52, 500), ("a", "low"): claim(5, 500)}, ("a", "low"), True),
        ({("a", "high"): claim(20, 0), ("a", "low"): claim(39, 500)}, ("a", "low"), True),
    ],
    ids=[
        "alone it takes all",
        "what others want is kept for them",
        "priorities are of no use against other tenants",
        "whoever is below its share may",
        "within a tenant priorities have their weights",
        "and none starves",
        "what a priority does not want is another's",
    ],
)
def test_whose_turn_it_is(claims: dict[Owner, Claim], who: Owner, may: bool) -> None:
    assert may_take(60, claims, who, WEIGHTS) is may


@settings(deadline=None)
@given(CLAIMS, st.integers(1, 100))
def test_while_something_is_free_somebody_who_waits_may_take_it(claims: dict[Owner, Claim], free: int) -> None:
    """So nothing is wasted, and a tenant that is alone can use all of a limit."""
    most = int(sum(one.held for one in claims.values())) + free
    waiting = [owner for owner, one in claims.items() if one.waiting]
    assert not waiting or any(may_take(most, claims, owner, WEIGHTS) for owner in waiting)


@settings(deadline=None)
@given(CLAIMS, st.integers(1, 100))
def test_nobody_above_its_share_goes_before_one_who_is_below(claims: dict[Owner, Claim], most: int) -> None:
    """Across tenants: whoever may take holds no more than any tenant that waits and may not."""
    tenants: dict[str, tuple[float, float]] = {}
    for (tenant, _), one in claims.items():
        held, waiting = tenants.get(tenant, (0, 0))
        tenants[tenant] = (held + one.held, waiting + one.waiting)
    may = {
        tenant
        for tenant in tenants
        if any(
            may_take(most, claims, owner, WEIGHTS)
            for owner, one in claims.items()
            if owner[0] == tenant and one.waiting
        )
    }
    for tenant, (held, waiting) in tenants.items():
        if waiting and tenant not in may:
            assert all(tenants[other][0] <= held for other in may)


@settings(max_examples=50, deadline=None)
@given(CLAIMS, st.integers(1, 100), st.randoms(use_true_random=False))
def test_taking_turns_ends_at_the_shares_and_at_the_limit(
    claims: dict[Owner, Claim], most: int, chance: random.Random
) -> None:
    """From nothing held, in whatever order they ask: each tenant ends within one of its share, and nothing is left."""
    now = {owner: claim(0, int(one.waiting)) for owner, one in claims.items()}
    entitled = shares(most, _by_tenant(now))
    while sum(one.held for one in now.values()) < most:
        may = [owner for owner, one in now.items() if one.waiting and may_take(most, now, owner, WEIGHTS)]
        if not may:
            break
        owner = chance.choice(may)
        now[owner] = claim(int(now[owner].held) + 1, int(now[owner].waiting) - 1)
    tenants = _by_tenant(now)
    free = most - sum(one.held for one in tenants.values())
    assert free == 0 or not any(one.waiting for one in now.values())
    if sum(entitled.values()) <= most:
        assert all(abs(one.held - entitled[tenant]) <= 1 for tenant, one in tenants.items())


def _by_tenant(claims: dict[Owner, Claim]) -> dict[str, Claim]:
    found: dict[str, Claim] = {}
    for (tenant, _), one in claims.items():
        before = found.get(tenant, Claim())
        found[tenant] = claim(int(before.held + one.held), int(before.waiting + one.waiting))
    return found


A, B = ("a", "medium"), ("b", "medium")


def test_calls_wait_until_they_are_served_or_their_time_is_over() -> None:
    waiting = Waiting()
    waiting.note(A, "1", Wait("minute", 1, 10.0), now_s=0)
    waiting.note(A, "2", Wait("second", 1, 20.0), now_s=0)
    assert (waiting.others_s(A, now_s=5), waiting.others_s(B, now_s=5)) == (0, 15)
    assert waiting.forget(A, "2")
    assert not waiting.forget(A, "2")
    assert (waiting.of(A, now_s=5), waiting.of(A, now_s=10)) == (1, 0)
    waiting.note(B, "3", Wait("minute", 1, 99.0), now_s=50)
    assert list(waiting.calls) == [B], "what is over is let go"


def test_a_claim_is_what_is_held_and_what_was_refused_by_such_windows() -> None:
    """The call that is decided upon counts once, whether it was refused before or not."""
    waiting = Waiting()
    waiting.note(A, "1", Wait("minute", 1, 10.0), now_s=0)
    waiting.note(A, "2", Wait("tokens", 800, 10.0), now_s=0)
    waiting.note(B, "3", Wait("minute", 1, 10.0), now_s=0)
    for call in ("1", "new"):
        found = waiting.claims(MINUTE, {B: 4}, A, call, 1, now_s=1)
        assert found == {A: Claim(0, 1 if call == "1" else 2, 1), B: Claim(4, 1, 1)}
    tokens = waiting.claims(frozenset({"tokens"}), {}, B, "3", 50, now_s=1)
    assert tokens == {A: Claim(0, 800, 800), B: Claim(0, 50, 50)}


def test_a_flood_is_remembered_in_part_and_hides_nobody() -> None:
    waiting = Waiting()
    for number in range(10):
        for each in range(MOST_OF_ONE + 1):
            waiting.note((f"t{number}", "low"), str(each), Wait("minute", 1, 10.0), now_s=0)
    assert waiting.of(("t0", "low"), now_s=1) == MOST_OF_ONE
    assert sum(map(len, waiting.calls.values())) <= MOST + 10 * LEAST
    assert waiting.of(("t9", "low"), now_s=1) == LEAST
