"""Requests a minute: never more than the limit in any minute, and never fewer than it allows."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.window import WINDOW_S, Entry, Fits, Full, Known, judge

VIEWS = (16, 1_000)


@dataclass(slots=True)
class Counter:
    """An account's count as the server keeps it, and which requests were let in when."""

    most: int
    entries: list[Entry] = field(default_factory=list)
    begun: list[float] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.entries[-1].total if self.entries else 0

    def count(self, at: float, takes_back: int | None = None) -> Entry:
        step = 1 if takes_back is None else -1
        self.entries.append(Entry(len(self.entries) + 1, self.total + step, at, takes_back))
        return self.entries[-1]

    def decide(self, own: Entry, known: Known, now: float) -> Fits | Full:
        """Do with a request that was counted what a gateway does."""
        if known.at_most(own.total, own.at) <= self.most:
            known.saw(own.total, own.at, now)
            self.begun.append(own.at)
            return Fits(0)
        seen = [one for one in self.entries if one.at >= own.at - WINDOW_S]
        found = (judge(own.seq, own.total, seen[:view], self.most) for view in VIEWS)
        verdict = next((one for one in found if one != Full(None)), Full(None))
        if isinstance(verdict, Fits):
            known.began(verdict.before, own.at - WINDOW_S)
            self.begun.append(own.at)
        else:
            self.count(now, own.seq)
        return verdict

    def within(self, at: float) -> int:
        """How many began in the minute up to a time."""
        return sum(1 for one in self.begun if at - WINDOW_S <= one <= at)


def entries(*steps: tuple[float, int | None]) -> list[Entry]:
    """Return what a counter of 100 stores: when, and what is taken back."""
    found, total = list[Entry](), 100
    for number, (at, takes_back) in enumerate(steps, start=1):
        total += 1 if takes_back is None else -1
        found.append(Entry(number, total, at, takes_back))
    return found


def test_what_lies_in_the_window_is_the_count_now_less_what_it_was_then() -> None:
    view = entries((1, None), (2, None), (3, None))
    own = view[-1]
    assert judge(own.seq, own.total, view, 3) == Fits(100)
    assert judge(own.seq, own.total, view, 2) == Full(1)


def test_what_was_taken_back_neither_counts_nor_leaves() -> None:
    """The second was refused: the limit of two lets the fourth in, and of the next the first one leaves first."""
    view = entries((1, None), (2, None), (2, 2), (3, None))
    assert judge(view[3].seq, view[3].total, view, 2) == Fits(100)
    assert judge(view[3].seq, view[3].total, view[1:], 0) == Full(None)


def test_what_is_taken_back_as_the_window_begins_does_not_count_as_there_before() -> None:
    """It was counted before the window began and taken back in it: before the window there were 100, not 101."""
    whole = entries((0, None), (1, 1), (2, None), (3, None))
    view = whole[1:]
    assert judge(whole[3].seq, whole[3].total, view, 2) == Fits(100)
    assert judge(whole[3].seq, whole[3].total, view, 1) == Full(2)


def test_whoever_was_refused_while_this_was_counted_is_left_out() -> None:
    """Two ask at once for one place; the earlier is another's, who is refused by a limit that was lower there."""
    view = entries((1, None), (1, None), (1, 1))
    assert judge(view[1].seq, view[1].total, view, 1) == Fits(100)


def test_a_replica_that_has_nothing_yet_lets_nobody_in() -> None:
    assert judge(1, 101, [], 100) == Full(None)


def test_most_requests_need_no_look_at_the_window() -> None:
    """One an hour, or one in ten seconds: what was counted a minute ago tells enough, however high the count is."""
    known = Known()
    known.began(1_000_000, 0.0)
    assert known.at_most(1_000_010, 0.0 + WINDOW_S) == 10
    looked = 0
    for number in range(1, 200):
        at = 100.0 + 10 * number
        if known.at_most(1_000_000 + number, at) > 13:
            looked += 1
            known.began(1_000_000 + number - 7, at - WINDOW_S)
        else:
            known.saw(1_000_000 + number, at, at)
    assert looked == 0


def test_a_refusal_that_takes_a_while_lets_nobody_in_who_is_one_too_many() -> None:
    """Its gateway stands still between counting and taking back; what others count meanwhile is not taken for good."""
    counter, known, at = Counter(8), Known(), 1_000.0
    for number in range(8):
        assert isinstance(counter.decide(counter.count(at + number / 1e3), known, at + number / 1e3), Fits)
    refused = counter.count(at + 59.9)
    assert judge(refused.seq, refused.total, [one for one in counter.entries if one.at >= at - 0.1], 8) == Full(at)
    for asked_at in (at + 60.2, at + 60.3):
        assert isinstance(counter.decide(counter.count(asked_at), known, asked_at), Fits)
    counter.count(at + 62.9, refused.seq)
    for number in range(10):
        counter.decide(counter.count(at + 121 + number / 1e3), known, at + 121 + number / 1e3)
    assert counter.within(at + 122) == 8


def test_what_was_seen_long_ago_says_nothing() -> None:
    """The count may have begun anew since: then it is what it is, as it may be when it is lower than it was."""
    known = Known(lives_s=150)
    known.began(50, 0.0)
    assert known.at_most(60, 100) == 10
    assert known.at_most(60, 150) == 60
    assert known.at_most(60, 10) == 60, "what was counted since then may lie in the window"
    assert known.at_most(7, 100) == 7


def test_a_full_account_is_refused_without_asking_for_a_moment() -> None:
    """By the limit that it was full by: one that is higher now counts at once."""
    known = Known()
    known.close(5, until=10.0, opens_at=99.0)
    assert known.is_closed(5, 9.9)
    assert not known.is_closed(5, 10.0)
    assert not known.is_closed(6, 9.9)
    assert known.opens_at == 99.0


@given(
    most=st.integers(1, 12),
    pauses=st.lists(st.one_of(st.floats(0, 3), st.floats(0, 90)), min_size=1, max_size=80),
    gateways=st.lists(st.integers(0, 2), min_size=80, max_size=80),
)
def test_one_after_the_other_exactly_the_limit_begins_in_any_minute(
    most: int, pauses: list[float], gateways: list[int]
) -> None:
    """Over three gateways: who is refused was one too many, and comes in when the oldest has left, as was said."""
    counter, known, at = Counter(most), [Known() for _ in range(3)], 1_000.0
    for pause, gateway in zip(pauses, gateways, strict=False):
        at += pause + 0.001
        before = counter.within(at)
        verdict = counter.decide(counter.count(at), known[gateway], at)
        if isinstance(verdict, Fits):
            assert before < most
        else:
            assert before == most
            oldest = min(one for one in counter.begun if one >= at - WINDOW_S)
            assert verdict.oldest_at == oldest
        assert counter.within(at) <= most


@given(
    most=st.integers(1, 6),
    bursts=st.lists(st.tuples(st.integers(1, 70), st.integers(1, 14)), min_size=1, max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_of_those_who_ask_at_once_as_many_begin_as_there_are_places(
    most: int, bursts: list[tuple[int, int]], order: object
) -> None:
    """Whatever comes first of their answers, with three gateways and a view that may end before the request."""
    shuffle = order.shuffle  # type: ignore[attr-defined]  # hypothesis's
    counter, known, at = Counter(most), [Known() for _ in range(3)], 1_000.0
    for pause, asking in bursts:
        at += pause
        before = counter.within(at)
        counted = [counter.count(at + number / 1e6) for number in range(asking)]
        shuffle(counted)
        at += 0.001
        for own in counted:
            counter.decide(own, known[own.seq % 3], at)
        assert counter.within(at) == min(most, before + asking)
