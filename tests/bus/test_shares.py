"""Who may have the next place: exact, fair under load, generous when idle, and nothing starves."""

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.bus.shares import PATIENT_S, STANDING_S, TURN_S, WARM_S, Ask, Shares

RATIOS = (0.6, 0.3, 0.1)
HIGH, MEDIUM, LOW = range(3)


@dataclass
class Server:
    """Consumers as nats-server keeps them: queues, and requests that are answered from them at once or wait."""

    shares: Shares
    queued: list[int]
    now_s: float = 0.0
    running: list[int] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    waiting: dict[int, tuple[int, float]] = field(default_factory=dict)
    latency_s: float = 0.0
    """How long a request is on its way."""
    arrives: dict[int, float] = field(default_factory=dict)

    def turn(self) -> list[Ask]:
        """Let the pool ask, and answer what can be answered."""
        asks = self.shares.plan(self.now_s)
        for ask in asks:
            assert ask.source not in self.waiting, "one open request a source"
            self.arrives[ask.source] = self.now_s + self.latency_s
            self.waiting[ask.source] = (ask.batch, self.now_s + self.latency_s + ask.expires_s)
        self.deliver()
        return asks

    def deliver(self) -> None:
        for source, (batch, until_s) in list(self.waiting.items()):
            if self.arrives[source] > self.now_s:
                continue
            left = batch
            while left and self.queued[source]:
                self.queued[source] -= 1
                left -= 1
                self.shares.taken(source, self.queued[source])
                self.running.append(source)
                self.taken.append(source)
            if left and self.now_s >= until_s:
                self.shares.emptied(source)
                left = 0
            if left:
                self.waiting[source] = (left, until_s)
            else:
                del self.waiting[source]

    def finish(self, position: int = 0) -> int:
        source = self.running.pop(position)
        self.shares.done()
        return source

    def settle(self, turns: int = 20) -> None:
        """Until the pool has nothing more to ask at this instant."""
        for _ in range(turns):
            if not self.turn():
                return

    def pass_time(self, seconds: float, step_s: float = 0.005) -> None:
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s += step_s
            self.deliver()
            self.settle()


def server(places: int, queued: list[int], ratios: tuple[float, ...] = RATIOS) -> Server:
    return Server(Shares(places, ratios[: len(queued)]), queued)


@pytest.mark.parametrize(
    ("places", "asks"),
    [
        (12, [Ask(HIGH, 1, STANDING_S), Ask(MEDIUM, 1, STANDING_S), Ask(LOW, 1, STANDING_S)]),
        (8, [Ask(HIGH, 1, STANDING_S), Ask(MEDIUM, 1, STANDING_S), Ask(LOW, 1, STANDING_S)]),
        (4, [Ask(HIGH, 1, PATIENT_S), Ask(MEDIUM, 1, PATIENT_S), Ask(LOW, 1, PATIENT_S)]),
        (3, [Ask(HIGH, 1, PATIENT_S), Ask(MEDIUM, 1, PATIENT_S), Ask(LOW, 1, PATIENT_S)]),
        (2, [Ask(HIGH, 1, TURN_S), Ask(MEDIUM, 1, TURN_S)]),
        (1, [Ask(HIGH, 1, TURN_S)]),
    ],
)
def test_a_quiet_pool_probes_each_source_as_long_as_places_allow(places: int, asks: list[Ask]) -> None:
    assert server(places, [0, 0, 0]).turn() == asks


def test_one_source_alone_is_probed_with_one_place_and_gets_all_when_it_has_a_backlog() -> None:
    one = server(5, [0])
    assert one.turn() == [Ask(0, 1, STANDING_S)]
    one.queued[0] = 100
    one.deliver()
    assert one.turn() == [Ask(0, 4, 0.0)]
    assert one.shares.running == 5


@pytest.mark.parametrize("source", [HIGH, MEDIUM, LOW])
def test_a_burst_on_one_source_borrows_all_places_but_one_probe_for_each_other(source: int) -> None:
    pool = server(12, [0, 0, 0])
    pool.settle()
    pool.queued[source] = 50
    pool.deliver()
    pool.settle()
    assert Counter(pool.running) == {source: 10}
    assert [pool.shares.open(i) for i in range(3) if i != source] == [1, 1]


@pytest.mark.parametrize(("places", "borrowed"), [(1, 1), (2, 2), (3, 3), (4, 3), (7, 6), (8, 6)])
def test_with_few_places_probes_hold_up_no_more_than_one_in_four(places: int, borrowed: int) -> None:
    pool = server(places, [0, 0, 0])
    pool.settle()
    pool.queued[LOW] = 50
    pool.pass_time(PATIENT_S + 3 * TURN_S)
    assert len(pool.running) == borrowed


@pytest.mark.parametrize("places", [1, 2, 3, 4, 5, 8, 10, 16, 64])
def test_under_load_what_is_taken_follows_the_shares(places: int) -> None:
    pool = server(places, [2000, 2000, 2000])
    while len(pool.taken) < 600 + places:
        pool.settle()
        pool.finish()
        pool.now_s += 0.001
    counted = Counter(pool.taken[places:])
    total = sum(counted.values())
    for source, ratio in enumerate(RATIOS):
        assert counted[source] / total == pytest.approx(ratio, abs=0.02)


@pytest.mark.parametrize("places", [2, 5, 10, 30])
def test_short_work_and_slow_requests_do_not_shift_the_shares(places: int) -> None:
    """A place frees up every 0.2 ms and a request takes 0.5 ms: high is often on its way when it is its turn."""
    pool = server(places, [4000, 4000, 4000])
    pool.latency_s = 0.0005
    while len(pool.taken) < 1000 + places:
        pool.deliver()
        pool.turn()
        if pool.running:
            pool.finish()
        pool.now_s += 0.0002
    counted = Counter(pool.taken[places:])
    for source, ratio in enumerate(RATIOS):
        assert counted[source] / sum(counted.values()) == pytest.approx(ratio, abs=0.02)


def test_a_burst_of_high_is_served_with_its_share_as_soon_as_places_free() -> None:
    """Low has borrowed everything; from the first place that frees up on, high gets six of seven."""
    pool = server(20, [0, 0, 500])
    pool.settle()
    assert Counter(pool.running)[LOW] == 18
    pool.queued[HIGH] = 500
    pool.deliver()
    first = len(pool.taken)
    for _ in range(70):
        pool.settle()
        pool.finish()
    counted = Counter(pool.taken[first:])
    assert counted[HIGH] / counted[LOW] == pytest.approx(6, rel=0.2)


def test_a_trickle_takes_no_more_than_its_share_from_a_backlog() -> None:
    """Low always has just one message: it never looks like a backlog, and still has to wait its turn."""
    pool = server(8, [2000, 0, 1])
    while len(pool.taken) < 500:
        pool.settle()
        pool.finish()
        pool.now_s += 0.001
        pool.queued[LOW] = 1
    assert Counter(pool.taken)[LOW] / len(pool.taken) < 0.1 / 0.7 + 0.03


def test_idle_time_is_not_saved_up() -> None:
    """High was quiet for long: when it comes back it gets its share from then on, not all places until it is even."""
    pool = server(10, [0, 0, 3000])
    for _ in range(1000):
        pool.settle()
        pool.finish()
    pool.queued[MEDIUM] = 1000
    pool.deliver()
    first = len(pool.taken)
    for _ in range(100):
        pool.settle()
        pool.finish()
    counted = Counter(pool.taken[first:])
    assert counted[LOW] / len(pool.taken[first:]) == pytest.approx(0.25, abs=0.05)


def test_a_probe_of_a_long_idle_source_does_not_turn_back_the_clock_for_another() -> None:
    pool = server(10, [0, 0, 3000])
    for _ in range(1000):
        pool.settle()
        pool.finish()
    pool.settle()
    pool.now_s += STANDING_S
    pool.deliver()  # the probes of high and medium end unanswered, and are made again
    assert {ask.source for ask in pool.turn()} >= {HIGH, MEDIUM}
    pool.queued[MEDIUM] = 1000
    pool.deliver()
    first = len(pool.taken)
    for _ in range(100):
        pool.settle()
        pool.finish()
    counted = Counter(pool.taken[first:])
    assert counted[LOW] / len(pool.taken[first:]) == pytest.approx(0.25, abs=0.05)


def test_a_source_whose_probes_are_used_up_quickly_is_asked_for_a_few_at_a_time() -> None:
    pool = server(64, [0, 0, 0])
    pool.settle()
    batches = []
    for _ in range(40):
        pool.now_s += 0.01
        pool.queued[HIGH] = 1
        pool.deliver()
        pool.finish()
        batches += [(ask.batch, ask.expires_s) for ask in pool.turn()]
    assert batches[:4] == [(2, WARM_S), (4, WARM_S), (8, WARM_S), (8, WARM_S)]
    pool.pass_time(2 * WARM_S)
    assert pool.shares.open(HIGH) == 1, "quiet again: one is enough"


def test_places_that_were_asked_for_in_vain_cost_nothing() -> None:
    """Low was asked for eleven messages and the request was lost: its next turn comes as if that had not been."""
    shares = Shares(12, RATIOS)
    for source in (HIGH, LOW):
        assert shares.uninvited(source, pending=500)
        shares.done()
    shares.bar(HIGH, 9.0)
    assert Ask(LOW, 11, 0.0) in shares.plan(0.0)
    shares.voided(LOW)
    assert shares.plan(10.0) == [Ask(HIGH, 10, 0.0), Ask(LOW, 1, 0.0)]


def test_a_lost_request_frees_its_places() -> None:
    pool = server(10, [0])
    pool.turn()
    pool.shares.voided(0)
    assert pool.shares.asked == 0
    assert pool.shares.plan(0.0) == [Ask(0, 1, STANDING_S)]


def test_a_barred_source_is_not_asked_and_does_not_hold_up_the_others() -> None:
    pool = server(8, [0, 0, 9])
    pool.shares.bar(HIGH, 5.0)
    pool.settle()
    assert pool.shares.open(HIGH) == 0
    assert Counter(pool.running) == {LOW: 7}
    pool.finish()
    pool.now_s = 5.0
    pool.settle()
    assert pool.shares.open(HIGH) == 1


def test_what_comes_uninvited_is_taken_only_when_there_is_a_place() -> None:
    shares = Shares(2, [1.0])
    assert shares.uninvited(0, 0)
    assert shares.uninvited(0, 0)
    assert not shares.uninvited(0, 0)
    assert shares.running == 2


@pytest.mark.parametrize(("places", "shares"), [(0, [1.0]), (1, []), (1, [1.0, 0.0])])
def test_nonsense_is_refused(places: int, shares: list[float]) -> None:
    with pytest.raises(ValueError, match="place"):
        Shares(places, shares)


@settings(max_examples=60, deadline=None)
@given(
    places=st.integers(1, 40),
    ratios=st.lists(st.floats(0.05, 1.0), min_size=2, max_size=4),
    randomly=st.randoms(use_true_random=False),
)
def test_for_any_places_and_shares_a_full_load_is_divided_by_the_shares(
    places: int, ratios: list[float], randomly: random.Random
) -> None:
    """Over 1000 messages, whatever the order in which the work ends, each source is within 3 points of its share."""
    pool = server(places, [4000] * len(ratios), tuple(ratios))
    while len(pool.taken) < 1000 + places:
        pool.settle()
        pool.finish(randomly.randrange(len(pool.running)))
        pool.now_s += 0.001
    counted = Counter(pool.taken[places:])
    for source, ratio in enumerate(ratios):
        assert counted[source] / sum(counted.values()) == pytest.approx(ratio / sum(ratios), abs=0.03)


class Pool(RuleBasedStateMachine):
    """Anything may happen in any order: the sum never exceeds the places, and what is queued is taken in the end."""

    @initialize(places=st.integers(1, 12), sources=st.integers(1, 4))
    def begin(self, places: int, sources: int) -> None:
        self.pool = server(places, [0] * sources, (0.6, 0.3, 0.1, 0.4))

    @rule(data=st.data(), n=st.integers(1, 30))
    def publish(self, data: st.DataObject, n: int) -> None:
        self.pool.queued[data.draw(st.integers(0, len(self.pool.queued) - 1))] += n
        self.pool.deliver()

    @rule()
    def ask(self) -> None:
        self.pool.turn()

    @precondition(lambda self: self.pool.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.pool.finish(data.draw(st.integers(0, len(self.pool.running) - 1)))

    @rule(seconds=st.sampled_from([0.001, TURN_S, PATIENT_S, STANDING_S]))
    def wait(self, seconds: float) -> None:
        self.pool.now_s += seconds
        self.pool.deliver()

    @precondition(lambda self: self.pool.waiting)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """A reconnect: the server forgot the request."""
        source = data.draw(st.sampled_from(sorted(self.pool.waiting)))
        del self.pool.waiting[source]
        self.pool.shares.voided(source)

    @rule(data=st.data(), pending=st.integers(0, 5))
    def come_uninvited(self, data: st.DataObject, pending: int) -> None:
        source = data.draw(st.integers(0, len(self.pool.queued) - 1))
        if not self.pool.shares.open(source) and self.pool.shares.uninvited(source, pending):
            self.pool.running.append(source)

    @invariant()
    def never_more_than_the_places(self) -> None:
        if hasattr(self, "pool"):
            shares = self.pool.shares
            assert 0 <= shares.running == len(self.pool.running)
            assert shares.asked == sum(left for left, _ in self.pool.waiting.values())
            assert shares.running + shares.asked <= shares.places

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        for _ in range(3000):
            if not any(self.pool.queued):
                break
            self.pool.settle()
            while self.pool.running:
                self.pool.finish()
            self.pool.now_s += 0.01
            self.pool.deliver()
        assert not any(self.pool.queued), "something starved"


Pool.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPool = Pool.TestCase
