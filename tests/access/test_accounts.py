"""Budgets: whatever is asked, held, settled, lost and repeated, and in whatever order, no limit is gone beyond."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.access.accounts import (
    MOST_GUESSED,
    MOST_HELD,
    Held,
    Later,
    Over,
    Wanted,
    hold,
    left,
    nano,
    over,
    release,
    settle,
    taken,
    today,
    usd,
)
from shared.contracts.access import Account, Allowance, Places

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=10)
DOLLAR = Allowance(usd_per_day=1.0)


def holding(
    account: Account | None, name: str, dollars: float, allowance: Allowance = DOLLAR, tokens: int = 0
) -> Account:
    found = hold(account, allowance, name, Wanted(nano(dollars), tokens), now=NOON, until=LATER)
    assert isinstance(found, Held), found
    return found.account


def test_what_is_held_is_replaced_by_what_it_cost() -> None:
    held = holding(None, "r.task.0-0.1.c", 0.6)
    assert (held.day_nano_usd, held.held["r.task.0-0.1.c"].nano_usd) == (0, nano(0.6))
    settled = settle(held, "r.task.0-0.1", NOON, nano_usd=nano(0.25), tokens=10)
    assert settled is not None
    assert (usd(settled.day_nano_usd), usd(settled.month_nano_usd), settled.day_tokens, settled.held) == (
        0.25, 0.25, 10, {},
    )  # fmt: skip
    assert settle(settled, "r.task.0-0.1", NOON, nano_usd=nano(0.25), tokens=10) is None, (
        "settled twice is counted once"
    )


def test_what_fits_only_without_the_others_waits_and_what_never_fits_is_over() -> None:
    """0.6 held of a dollar: 0.5 may fit once that is settled, 1.1 never will today."""
    held = holding(None, "a", 0.6)
    assert isinstance(hold(held, DOLLAR, "b", Wanted(nano(0.5), 0), now=NOON, until=LATER), Later)
    too_much = hold(held, DOLLAR, "c", Wanted(nano(1.1), 0), now=NOON, until=LATER)
    assert isinstance(too_much, Over)
    assert (too_much.what, too_much.money) == ("1 US dollars a day", True)
    assert too_much.turns_at == datetime(2026, 11, 30, tzinfo=UTC)


def test_holding_the_same_attempt_again_changes_nothing() -> None:
    held = holding(None, "a", 0.6)
    again = hold(held, DOLLAR, "a", Wanted(nano(0.9), 0), now=NOON, until=LATER)
    assert isinstance(again, Held)
    assert again.account == held


def test_an_attempt_is_not_another_whose_name_begins_like_it() -> None:
    """Attempt 1 is not attempt 10 or 11."""
    held = holding(holding(None, "r.task.0-0.1.c", 0.1), "r.task.0-0.10.c", 0.1)
    settled = settle(held, "r.task.0-0.1", NOON, nano_usd=None, tokens=None)
    assert settled is not None
    assert list(settled.held) == ["r.task.0-0.10.c"]


def test_a_claim_that_was_lost_lets_go_of_its_own_hold_only() -> None:
    held = holding(holding(None, "r.task.0-0.1.mine", 0.1), "r.task.0-0.1.other", 0.2)
    released = release(held, "r.task.0-0.1.mine")
    assert released is not None
    assert list(released.held) == ["r.task.0-0.1.other"]
    assert released.day_nano_usd == 0
    assert release(released, "r.task.0-0.1.mine") is None


def test_two_claims_of_one_attempt_are_counted_once() -> None:
    held = holding(holding(None, "r.task.0-0.1.mine", 0.1), "r.task.0-0.1.other", 0.2)
    lost = settle(held, "r.task.0-0.1", NOON, nano_usd=None, tokens=None)
    assert lost is not None
    assert (usd(lost.day_nano_usd), lost.held) == (0.2, {})


def test_what_nobody_settles_is_counted_whole_when_its_time_is_over() -> None:
    held = holding(None, "a", 0.6)
    after = today(held, LATER + timedelta(seconds=1))
    assert (usd(after.day_nano_usd), after.held) == (0.6, {})


def test_a_day_and_a_month_begin_with_nothing_and_what_is_held_stays() -> None:
    both = Allowance(usd_per_day=1.0, usd_per_month=1.5, tokens_per_day=100)
    spent = settle(holding(None, "a", 0.9, both, 90), "a", NOON, nano_usd=nano(0.9), tokens=90)
    assert spent is not None
    midnight = datetime(2026, 11, 30, tzinfo=UTC)
    tomorrow = today(spent, midnight)
    assert (tomorrow.day_nano_usd, tomorrow.day_tokens, usd(tomorrow.month_nano_usd)) == (0, 0, 0.9)
    found = hold(spent, both, "b", Wanted(nano(0.7), 1), now=midnight, until=LATER)
    assert isinstance(found, Over)
    assert (found.what, found.turns_at) == ("1.5 US dollars a month", datetime(2026, 12, 1, tzinfo=UTC))
    december = today(spent, datetime(2026, 12, 1, tzinfo=UTC))
    assert december.month_nano_usd == 0


def test_a_december_turns_into_a_january() -> None:
    monthly = Allowance(usd_per_month=0.0)
    found = over(None, monthly, datetime(2026, 12, 31, 23, tzinfo=UTC))
    assert found is not None
    assert found.turns_at == datetime(2027, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("allowance", "money"), [(Allowance(usd_per_day=0), True), (Allowance(tokens_per_day=0), False)]
)
def test_a_limit_of_nothing_lets_nothing_through(allowance: Allowance, money: bool) -> None:
    found = over(None, allowance, NOON)
    assert found is not None
    assert found.money is money
    assert over(None, Allowance(), NOON) is None


def test_so_many_attempts_hold_at_the_same_time_and_no_more() -> None:
    account: Account | None = None
    rich = Allowance(usd_per_day=1e6)
    for number in range(MOST_HELD):
        account = holding(account, f"a{number}", 0.01, rich)
    assert isinstance(hold(account, rich, "one more", Wanted(1, 0), now=NOON, until=LATER), Later)


@given(st.floats(0, 1e6))
def test_dollars_become_whole_nano_dollars_and_never_fewer(dollars: float) -> None:
    assert nano(dollars) >= dollars * 1e9 - max(1e-3, dollars * 1e-6)
    assert nano(dollars) <= dollars * 1e9 + 1.001 + dollars * 1e-6


@dataclass
class Purse:
    """What really was spent, kept apart from the account."""

    account: Account | None = None
    spent: int = 0
    open: dict[str, int] = field(default_factory=dict)
    guessed: dict[str, int] = field(default_factory=dict)
    """What attempts of unknown cost are counted at."""


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["hold", "settle", "lose", "again", "release"]),
        st.integers(0, 9),
        st.integers(1, 700_000_000),
        st.floats(0, 1),
    ),
    max_size=60,
)


@settings(max_examples=500)
@given(STEPS)
def test_no_order_of_things_spends_more_than_a_budget(steps: list[tuple[str, int, int, float]]) -> None:
    """As long as no attempt costs more than it holds: spent and held together never exceed the limit, and what the
    account says is what was spent, also where a guess is put right."""
    purse = Purse()
    for what, number, amount, share in steps:
        name = f"run.task.{number}.1"
        if what == "hold" and name not in purse.open and name not in purse.guessed:  # an attempt is made once
            found = hold(purse.account, DOLLAR, f"{name}.c", Wanted(amount, 0), now=NOON, until=LATER)
            if isinstance(found, Held):
                purse.account, purse.open[name] = found.account, amount
        elif what in ("settle", "lose") and name in purse.open:
            most = purse.open.pop(name)
            cost = int(most * share) if what == "settle" else most
            purse.account = settle(purse.account, name, NOON, nano_usd=cost if what == "settle" else None, tokens=0)
            purse.spent += cost
            if what == "lose":
                purse.guessed[name] = most
        elif what == "again" and name in purse.guessed:
            guess = purse.guessed.pop(name)
            cost = int(guess * share)
            purse.account = settle(purse.account, name, NOON, nano_usd=cost, tokens=0)
            purse.spent += cost - guess
        elif what == "again" and name not in purse.open:
            assert settle(purse.account, name, NOON, nano_usd=amount, tokens=0) is None
        elif what == "release" and name in purse.open:
            purse.account = release(purse.account, f"{name}.c")
            del purse.open[name]
        assert purse.spent + sum(purse.open.values()) <= nano(1.0)
        counted = purse.account or Account()
        assert counted.day_nano_usd == purse.spent
        assert sum(one.nano_usd for one in counted.held.values()) == sum(purse.open.values())


def test_a_run_has_one_place_and_gives_it_back_once() -> None:
    one = taken(None, "a", 1, now=NOON, until=LATER)
    assert one is not None
    assert taken(one, "a", 1, now=NOON, until=LATER) == one
    assert taken(one, "b", 1, now=NOON, until=LATER) is None
    assert taken(one, "b", 1, now=LATER, until=LATER) == Places(runs={"b": LATER}), "a run that is over has none"
    assert left(one, "a") == Places()
    assert left(Places(), "a") is None
    assert left(None, "a") is None


def test_what_was_counted_by_guess_is_put_right_once() -> None:
    """Lost with its executor it counts whole; found out, what it took; saying so again changes nothing."""
    lost = settle(holding(None, "r.task.0-0.1.e.c", 0.6, tokens=500), "r.task.0-0.1", NOON, nano_usd=None, tokens=None)
    assert lost is not None
    assert (usd(lost.day_nano_usd), lost.day_tokens) == (0.6, 500)
    right = settle(lost, "r.task.0-0.1", NOON, nano_usd=nano(0.1), tokens=70)
    assert right is not None
    assert (usd(right.day_nano_usd), usd(right.month_nano_usd), right.day_tokens) == (0.1, 0.1, 70)
    assert settle(right, "r.task.0-0.1", NOON, nano_usd=nano(0.1), tokens=70) is None


def test_what_nobody_came_back_for_is_put_right_too() -> None:
    """Counted whole after its time; while it is still held, what is found out settles it."""
    held = holding(None, "r.task.0-0.1.e.c", 0.6)
    after = today(held, LATER + timedelta(seconds=1))
    assert (usd(after.day_nano_usd), after.held) == (0.6, {})
    right = settle(after, "r.task.0-0.1", LATER, nano_usd=0, tokens=0)
    assert right is not None
    assert (right.day_nano_usd, right.month_nano_usd) == (0, 0)
    early = settle(held, "r.task.0-0.1", NOON, nano_usd=nano(0.2), tokens=0)
    assert early is not None
    assert (usd(early.day_nano_usd), early.held) == (0.2, {})


def test_a_day_that_is_over_stays_as_it_was_and_its_month_is_put_right() -> None:
    lost = settle(holding(None, "r.task.0-0.1.e.c", 0.6), "r.task.0-0.1", NOON, nano_usd=None, tokens=None)
    tomorrow = NOON + timedelta(days=1)
    spent = settle(holding(lost, "r.task.0-0.2.e.c", 0.3), "r.task.0-0.2", tomorrow, nano_usd=nano(0.3), tokens=0)
    right = settle(spent, "r.task.0-0.1", tomorrow, nano_usd=nano(0.1), tokens=0)
    assert right is not None
    assert (usd(right.day_nano_usd), round(usd(right.month_nano_usd), 9)) == (0.3, 0.4)
    next_month = NOON + timedelta(days=5)
    assert settle(today(lost, next_month), "r.task.0-0.1", next_month, nano_usd=0, tokens=0) is None


def test_only_so_many_guesses_are_remembered() -> None:
    account: Account | None = None
    for number in range(MOST_GUESSED + 5):
        name = f"r.task.{number}-0.1"
        account = settle(holding(account, f"{name}.e.c", 1e-6), name, NOON, nano_usd=None, tokens=None)
    assert account is not None
    assert len(account.guessed) == MOST_GUESSED
    assert "r.task.0-0.1" not in account.guessed
