"""When a model is left alone, and how it is tried again. Pure: a breaker's next state from its last one.

Closed until so many failures come in a row, over all executors; then open for a time, in which nobody asks; then
half-open: a few calls are let through. One that fails opens it again, and when all have answered it is closed.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.executor.taxonomy import MODEL_GONE, NOT_STORED, Verdict
from shared.contracts.health import BreakerState

COUNTED: Final = frozenset(
    {
        "provider_error",
        "provider_unavailable",
        "provider_overloaded",
        "provider_timeout",
        "timeout",
        "silence",
        "stream_cut",
        "unreachable",
        "connection_lost",
        "tls_failed",
        "malformed_answer",
        "unexpected_redirect",
    }
)
"""Failures that say something about the model's health. A request's own fault, a limit or a wrong key is none."""


GONE_S: Final = 3_600.0
"""A model that its provider has no more is asked again this much later: ids that die stay dead, mostly."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`error_handling.circuit_breaker` of the configuration."""

    threshold: int = 5
    open_s: float = 60.0
    probes: int = 3


@dataclass(frozen=True, slots=True)
class Go:
    """Ask. `probe`: it is one of the few that try a half-open model, and `state` has to be written first."""

    probe: bool = False
    state: BreakerState | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Do not ask, for so many seconds at least."""

    seconds: float


def gate(state: BreakerState | None, now: datetime, settings: Settings) -> Go | Wait:
    """Return whether a model may be asked now."""
    if state is None or state.state == "closed" or state.until is None:
        return Go()
    left_s = (state.until - now).total_seconds()
    if state.state == "half_open" and state.probes and left_s > 0:
        return Go(probe=True, state=state.model_copy(update={"probes": state.probes - 1}))
    if left_s > 0:
        return Wait(left_s)
    # Its time is over; of a half-open one: the calls that were let through have died with their executors.
    tried = {
        "state": "half_open",
        "until": now + timedelta(seconds=settings.open_s),
        "probes": settings.probes - 1,
        "passed": 0,
    }
    return Go(probe=True, state=state.model_copy(update=tried))


def counts(verdict: Verdict) -> bool:
    """Whether a failure speaks against the model."""
    return verdict.code in COUNTED or _at_once(verdict)


def _at_once(verdict: Verdict) -> bool:
    """Whether one is enough: an executor died on it, or the provider says that there is no such model any more.

    That our own store refused what was made says nothing of the model.
    """
    return (verdict.type == "fatal" and verdict != NOT_STORED) or verdict == MODEL_GONE


def after_failure(
    state: BreakerState, verdict: Verdict, reason: str, *, probe: bool, now: datetime, settings: Settings
) -> BreakerState:
    """Return the state after a failure that counts. A late one of an open breaker's changes nothing."""
    if state.state == "open" or (state.state == "half_open" and not probe):
        return state
    failures = state.failures + 1
    changed: dict[str, object] = {"failures": failures, "reason": reason, "code": verdict.code}
    open_s = max(settings.open_s, GONE_S) if verdict == MODEL_GONE else settings.open_s
    if state.state == "half_open" or failures >= settings.threshold or _at_once(verdict):
        changed |= {
            "state": "open",
            "until": now + timedelta(seconds=open_s),
            "probes": 0,
            "passed": 0,
            "opened": state.opened + 1,
        }
    return state.model_copy(update=changed)


def after_answer(state: BreakerState, *, probe: bool, settings: Settings) -> BreakerState | None:
    """Return the state after an answer; None: it is as good as new."""
    if state.state == "closed":
        return None
    if state.state == "open" or not probe:
        return state  # asked before it opened: it says nothing about now
    passed = state.passed + 1
    return None if passed >= settings.probes else state.model_copy(update={"passed": passed})
