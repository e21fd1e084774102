"""What follows from attempts that failed."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.executor import taxonomy
from services.executor.attempts import LEAST_ATTEMPT_S, RULES, Again, GiveUp, Next, Policy, Rule, decide, halvings
from services.executor.taxonomy import TABLE, Verdict
from shared.contracts.commands import FailedAttempt
from shared.contracts.message import Fault

STEADY = Policy(jitter=False)
BY_CODE = {row.verdict.code: row.verdict for row in TABLE}
RATE = BY_CODE["rate_limited"]
SERVER = BY_CODE["provider_error"]
KEY = BY_CODE["authentication"]
TIMEOUT = taxonomy.TIMEOUT
EMPTY = taxonomy.EMPTY
INVALID = BY_CODE["invalid_request"]
FATAL = Verdict("fatal", "broken")


def failures(*verdicts: Verdict | tuple[str, Verdict]) -> list[FailedAttempt]:
    """Return attempts 1, 2, … that failed so, of role `a` unless said otherwise."""
    listed = [one if isinstance(one, tuple) else ("a", one) for one in verdicts]
    return [
        FailedAttempt(
            attempt=number,
            role=role,
            fault=Fault(type=verdict.type, code=verdict.code, message=f"attempt {number}"),
            backpressure=verdict.backpressure,
        )
        for number, (role, verdict) in enumerate(listed, start=1)
    ]


def after(
    *verdicts: Verdict | tuple[str, Verdict],
    chain: Sequence[str] = ("a",),
    retry_after_s: float | None = None,
    left_s: float = 300.0,
    jitter: float = 0.0,
    policy: Policy = STEADY,
) -> Again | Next | GiveUp:
    last = verdicts[-1]
    return decide(
        failures(*verdicts),
        last[1] if isinstance(last, tuple) else last,
        retry_after_s=retry_after_s,
        chain=chain,
        policy=policy,
        left_s=left_s,
        jitter=jitter,
    )


@pytest.mark.parametrize(("times", "after_s"), [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 16.0)])
def test_transient_failures_back_off_exponentially_five_times(times: int, after_s: float) -> None:
    """1, 2, 4, 8, 16 seconds."""
    assert after(*[SERVER] * times) == Again("a", after_s)


def test_a_wait_is_never_longer_than_the_longest() -> None:
    """With more retries allowed, waits stop growing at 30 s."""
    many = Policy(rules={**RULES, "transient": Rule(99)}, jitter=False)
    assert after(*[SERVER] * 40, policy=many) == Again("a", 30.0)


@pytest.mark.parametrize(("verdict", "retries"), [(SERVER, 5), (KEY, 1), (TIMEOUT, 2), (EMPTY, 3), (FATAL, 0)])
def test_each_type_has_its_number_of_retries(verdict: Verdict, retries: int) -> None:
    """Transient 5, persistent 1, resource 2, logical 3, fatal 0; then the call is given up with the last fault."""
    for used in range(retries):
        assert isinstance(after(*[verdict] * (used + 1)), Again)
    end = after(*[verdict] * (retries + 1))
    assert isinstance(end, GiveUp)
    assert end.fault.message == f"attempt {retries + 1}"


@pytest.mark.parametrize(("verdict", "retries"), [(SERVER, 5), (KEY, 1), (TIMEOUT, 2), (EMPTY, 0), (FATAL, 0)])
def test_with_retries_used_up_the_next_role_is_asked(verdict: Verdict, retries: int) -> None:
    """At once; a logical failure asks the alternative first."""
    assert after(*[verdict] * (retries + 1), chain=("a", "b", "c")) == Next("b")


@pytest.mark.parametrize("code", ["invalid_request", "model_not_found", "quota_exhausted", "refusal"])
def test_what_cannot_go_otherwise_is_not_repeated(code: str) -> None:
    """The same request to the same model would fail in the same way: the next role, or the end."""
    assert after(BY_CODE[code], chain=("a", "b")) == Next("b")
    assert isinstance(after(BY_CODE[code]), GiveUp)


def test_each_role_has_retries_of_its_own() -> None:
    """What the first role used up is not counted against the second."""
    assert after(*[SERVER] * 6, ("b", SERVER), chain=("a", "b")) == Again("b", 1.0)
    assert isinstance(after(*[SERVER] * 6, *[("b", SERVER)] * 6, chain=("a", "b")), GiveUp)


def test_a_logical_failure_repeats_only_with_nobody_left() -> None:
    """The last of the chain is asked again."""
    assert after(EMPTY, ("b", EMPTY), chain=("a", "b")) == Again("b", 1.0)


def test_backpressure_waits_as_the_provider_says_and_uses_up_no_retry() -> None:
    """Twenty 429s later another failure is still the first; waits between 429s in a row grow to 30 s all the same."""
    assert after(RATE, retry_after_s=7.0) == Again("a", 7.0)
    assert after(*[RATE] * 20, SERVER) == Again("a", 1.0)
    assert after(*[RATE] * 20, retry_after_s=7.0, chain=("a", "b")) == Again("a", 30.0)


def test_a_provider_that_says_at_once_again_and_again_is_not_hammered() -> None:
    """Retry-After 0 waits 0.25 s, then twice as long each time."""
    waits = [after(*[RATE] * times, retry_after_s=0.0) for times in (1, 2, 3, 4)]
    assert waits == [Again("a", 0.25), Again("a", 0.5), Again("a", 1.0), Again("a", 2.0)]


def test_backpressure_without_a_time_backs_off() -> None:
    assert after(RATE, RATE, RATE) == Again("a", 4.0)


def test_retry_after_holds_for_other_failures_too() -> None:
    """A 503 with Retry-After: whichever is longer."""
    assert after(SERVER, retry_after_s=5.0) == Again("a", 5.0)
    assert after(SERVER, SERVER, SERVER, retry_after_s=1.0) == Again("a", 4.0)


def test_a_wait_beyond_the_deadline_is_not_waited() -> None:
    """The next role is asked at once, or the call is given up at once."""
    assert after(RATE, retry_after_s=60.0, left_s=59.0, chain=("a", "b")) == Next("b")
    assert isinstance(after(RATE, retry_after_s=60.0, left_s=59.0), GiveUp)
    assert isinstance(after(SERVER, left_s=0.01, chain=("a", "b")), GiveUp)


def test_jitter_takes_up_to_half_of_a_backoff_and_adds_to_a_retry_after() -> None:
    """Never earlier than the provider said."""
    scattered = Policy()
    assert after(SERVER, jitter=1.0, policy=scattered) == Again("a", 0.5)
    assert after(RATE, retry_after_s=8.0, jitter=1.0, policy=scattered) == Again("a", 8.8)
    assert after(RATE, retry_after_s=50.0, jitter=1.0, policy=scattered) == Again("a", 51.0)


def test_a_kept_connection_that_died_is_replaced_at_once() -> None:
    """Once; a server that goes on breaking connections is treated like any other that fails."""
    assert after(taxonomy.CONNECTION_LOST) == Again("a", 0.0)
    assert after(taxonomy.CONNECTION_LOST, taxonomy.CONNECTION_LOST) == Again("a", 2.0)
    assert after(SERVER, taxonomy.NOT_SENT) == Again("a", 2.0)


def test_a_role_that_left_the_chain_is_followed_by_the_chain() -> None:
    """The configuration changed while the call waited."""
    assert after(("old", INVALID), chain=("a", "b")) == Next("a")


def test_an_answer_that_is_too_long_is_asked_for_at_half_the_length_each_time() -> None:
    failed = failures(taxonomy.ANSWER_LENGTH, SERVER, taxonomy.ANSWER_LENGTH, ("b", taxonomy.ANSWER_LENGTH))
    assert halvings(failed, "a", "answer_length") == 2
    assert halvings(failed, "b", "answer_length") == 1
    assert isinstance(after(taxonomy.ANSWER_LENGTH), Again)


verdicts = st.sampled_from([row.verdict for row in TABLE])


@given(
    st.lists(st.tuples(verdicts, st.none() | st.floats(0, 90)), min_size=1, max_size=200),
    st.floats(0, 1),
    st.integers(1, 4),
    st.floats(0.1, 600),
)
def test_it_ends_never_waits_past_the_deadline_and_goes_only_forward(
    outcomes: list[tuple[Verdict, float | None]], jitter: float, roles: int, deadline_s: float
) -> None:
    """Whatever comes: every attempt starts before the deadline, roles are asked in order, and there is an end."""
    chain = tuple("abcd"[:roles])
    failed: list[FailedAttempt] = []
    role, clock_s, asked = chain[0], 0.0, [chain[0]]
    others = 0
    for step in range(5_000):
        verdict, retry_after_s = outcomes[step % len(outcomes)]
        others += not verdict.backpressure
        fault = Fault(type=verdict.type, code=verdict.code, message="m")
        failed.append(FailedAttempt(attempt=step + 1, role=role, fault=fault, backpressure=verdict.backpressure))
        decision = decide(
            failed,
            verdict,
            retry_after_s=retry_after_s,
            chain=chain,
            policy=Policy(),
            left_s=deadline_s - clock_s,
            jitter=jitter,
        )
        if isinstance(decision, GiveUp):
            assert decision.fault == fault
            break
        role = decision.role
        asked.append(role)
        if isinstance(decision, Again):
            assert decision.after_s > 0 or verdict.at_once
            assert clock_s + decision.after_s + LEAST_ATTEMPT_S <= deadline_s + 1e-9
            clock_s += decision.after_s
    else:
        pytest.fail("it did not end")
    assert [chain.index(one) for one in asked] == sorted(chain.index(one) for one in asked)
    assert others <= roles * (max(rule.retries for rule in RULES.values()) + 1)


@given(st.lists(st.sampled_from([RATE, SERVER, KEY, TIMEOUT]), min_size=1, max_size=30))
def test_backpressure_never_uses_up_a_retry(mixed: list[Verdict]) -> None:
    """With the 429s left out, the decision about the last other failure is the same."""
    mixed = [*mixed, SERVER]
    without = [one for one in mixed if not one.backpressure]
    one, other = after(*mixed, left_s=1e6), after(*without, left_s=1e6)
    assert type(one) is type(other)
    if isinstance(one, Again):
        assert one == other
