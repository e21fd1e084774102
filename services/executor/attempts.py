"""After an attempt that failed: again, with the next model, or give up. Pure."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.executor.taxonomy import Verdict
from shared.contracts.commands import FailedAttempt
from shared.contracts.message import ErrorType, Fault

LEAST_ATTEMPT_S = 0.05
"""With less than this left of the deadline nothing is asked any more."""
LEAST_PAUSE_S = 0.25
"""The first wait after a 429 whose Retry-After says less; doubled each time, so that nobody is hammered."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is done about one type of failure."""

    retries: int
    """On one role, after its first attempt."""
    alternative_first: bool = False
    """The next role is asked before the same is asked again."""
    alert: bool = False
    """A person must act: it is logged as an error."""


RULES: Mapping[ErrorType, Rule] = {
    "transient": Rule(5),
    "persistent": Rule(1, alert=True),
    "resource": Rule(2),
    "logical": Rule(3, alternative_first=True),
    "fatal": Rule(0, alert=True),
}


@dataclass(frozen=True, slots=True)
class Policy:
    """`error_handling` of the configuration, as far as attempts go."""

    rules: Mapping[ErrorType, Rule] = field(default_factory=lambda: RULES)
    base_s: float = 1.0
    factor: float = 2.0
    max_s: float = 30.0
    jitter: bool = True
    retryable: frozenset[int] = frozenset()
    """HTTP statuses that are worth another attempt although the table calls them an invalid request."""


@dataclass(frozen=True, slots=True)
class Again:
    """Ask the same role again after so many seconds."""

    role: str
    after_s: float


@dataclass(frozen=True, slots=True)
class Next:
    """Ask the next role of the chain now."""

    role: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nobody is left who could be asked in time."""

    fault: Fault


Decision = Again | Next | GiveUp


def decide(
    failed: Sequence[FailedAttempt],
    verdict: Verdict,
    *,
    retry_after_s: float | None,
    chain: Sequence[str],
    policy: Policy,
    left_s: float,
    jitter: float,
) -> Decision:
    """Return what follows from the attempts so far, the last of which failed with `verdict`.

    `left_s` is the time to the deadline, `jitter` a random number in 0..1. Never waits past the deadline. As shipped:
    transient waits and repeats; persistent repeats once, for a glitch; resource repeats, smaller where that helps;
    logical asks an alternative first and repeats only with nobody left; fatal never repeats. Then the next role.
    A 429 waits as long as there is time, and uses up no retry.
    """
    last = failed[-1]
    if left_s < LEAST_ATTEMPT_S:
        return GiveUp(last.fault)
    following = chain[chain.index(last.role) + 1 :] if last.role in chain else chain
    wait_s = None
    if last.role not in chain:
        pass  # it was taken out, or disabled, while its attempt went on
    elif verdict.backpressure:
        wait_s = _pause_s(_refused_in_a_row(failed), retry_after_s, policy, jitter)
    elif verdict.repeat and not (following and policy.rules[verdict.type].alternative_first):
        used = sum(1 for one in failed if one.role == last.role and not one.backpressure)
        if used <= policy.rules[verdict.type].retries:
            backoff_s = 0.0 if verdict.at_once and used == 1 else _backoff_s(used, policy, jitter)
            wait_s = max(backoff_s, retry_after_s or 0.0)
    if wait_s is not None and wait_s + LEAST_ATTEMPT_S <= left_s:
        return Again(last.role, wait_s)
    return Next(following[0]) if following else GiveUp(last.fault)


def turn(run_id: str, call: str, attempt: int) -> int:
    """Return which of a provider's servers and keys an attempt takes: another than the one before, and known again."""
    return zlib.crc32(f"{run_id}.{call}".encode()) + attempt


def halvings(failed: Sequence[FailedAttempt], role: str, code: str) -> int:
    """Return how often the answer's length is to be halved: once for each time that `role` said it is too long."""
    return sum(1 for one in failed if one.role == role and one.fault.code == code)


def _backoff_s(times: int, policy: Policy, jitter: float) -> float:
    """Return base * factor^(times-1), at most `max_s`, of which jitter takes up to half away."""
    exponent = min(times - 1, 64)
    whole = min(policy.max_s, policy.base_s * policy.factor**exponent)
    return whole * (1 - jitter / 2) if policy.jitter else whole


def _pause_s(times: int, retry_after_s: float | None, policy: Policy, jitter: float) -> float:
    """Return how long to wait after the `times`-th 429 in a row: what the provider says, a little apart from others."""
    if retry_after_s is None:
        return max(_backoff_s(times, policy, jitter), LEAST_PAUSE_S)
    least_s = min(policy.max_s, LEAST_PAUSE_S * 2.0 ** min(times - 1, 16))
    spread_s = min(1.0, retry_after_s / 10) * jitter if policy.jitter else 0.0
    return max(retry_after_s + spread_s, least_s)


def _refused_in_a_row(failed: Sequence[FailedAttempt]) -> int:
    times = 0
    for one in reversed(failed):
        if not one.backpressure or one.role != failed[-1].role:
            break
        times += 1
    return times
