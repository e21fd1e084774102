"""Every way in which a provider says no, or fails to say anything, and what it amounts to: one table.

A signal is what was seen: OpenRouter's `error_type`, an OpenAI-compatible server's `code`, Google's status, the HTTP
status, or something about the answer or the wire itself. The most telling one that the table knows decides. Printed
into docs/reference/errors.md by `python -m services.executor.taxonomy_page`. Sources: OpenRouter "Errors", OpenAI
"Error codes", google.rpc.Code.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from shared.contracts.message import ErrorType


class Seen(StrEnum):
    """Where a signal was seen, the most telling first."""

    MESSAGE = "message"
    """What an error says in words, where OpenRouter's status says something else: see `providers.failures`."""
    ERROR_TYPE = "error_type"
    """OpenRouter: `error.metadata.error_type`."""
    CODE = "code"
    """OpenAI-compatible servers: `error.code`, else `error.type`."""
    GOOGLE = "google"
    """Google: `error.status`."""
    STATUS = "status"
    """HTTP status, or the number in `error.code`."""
    ANSWER = "answer"
    """An answer that came and is none."""
    WIRE = "wire"
    """No answer came, or only a part."""
    OURS = "ours"
    """Decided here, without asking the provider."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a failure amounts to."""

    type: ErrorType
    code: str
    backpressure: bool = False
    """It says "later", not "no": waiting uses up no retry."""
    repeat: bool = True
    """The same request to the same model can go otherwise the next time."""
    smaller: bool = False
    """It is repeated with half of what was too long: of the answer's length, or of the session before the message."""
    at_once: bool = False
    """The first repetition does not wait: servers close kept connections at any time, even as one is used again."""


@dataclass(frozen=True, slots=True)
class Row:
    seen: Seen
    signal: str
    verdict: Verdict


_RATE = Verdict("transient", "rate_limited", backpressure=True)
_IN_FLIGHT = Verdict("transient", "budget_in_flight", backpressure=True)
_QUOTA = Verdict("persistent", "quota_exhausted", repeat=False)
_PAYMENT = Verdict("persistent", "payment_required", repeat=False)
_AUTHENTICATION = Verdict("persistent", "authentication")
_PERMISSION = Verdict("persistent", "permission_denied")
MODEL_GONE: Final = Verdict("persistent", "model_not_found", repeat=False)
_REDIRECT = Verdict("persistent", "unexpected_redirect", repeat=False)
INVALID: Final = Verdict("logical", "invalid_request", repeat=False)
_POLICY = Verdict("logical", "content_policy", repeat=False)
_REFUSAL = Verdict("logical", "refusal", repeat=False)
_SAFETY = Verdict("logical", "safety_filter", repeat=False)
CONTEXT: Final = Verdict("resource", "context_too_long", smaller=True, at_once=True)
ANSWER_LENGTH: Final = Verdict("resource", "answer_length", smaller=True)
_BODY = Verdict("resource", "request_too_large", repeat=False)
_PROVIDER_ERROR = Verdict("transient", "provider_error")
UNAVAILABLE: Final = Verdict("transient", "provider_unavailable")
_OVERLOADED = Verdict("transient", "provider_overloaded")
_PROVIDER_TIMEOUT = Verdict("transient", "provider_timeout")

EMPTY: Final = Verdict("logical", "empty_answer")
MALFORMED: Final = Verdict("logical", "malformed_answer")
NOTHING_SAID: Final = Verdict("resource", "nothing_said", repeat=False)
OVERSIZED: Final = Verdict("resource", "oversized_answer", repeat=False)
REFUSAL: Final = _REFUSAL
SAFETY: Final = _SAFETY
PROVIDER_ERROR: Final = _PROVIDER_ERROR
CUT: Final = Verdict("transient", "stream_cut")
UNREACHABLE: Final = Verdict("transient", "unreachable")
NOT_SENT: Final = Verdict("transient", "not_sent", at_once=True)
CONNECTION_LOST: Final = Verdict("transient", "connection_lost", at_once=True)
TLS: Final = Verdict("persistent", "tls_failed")
TIMEOUT: Final = Verdict("resource", "timeout")
SILENCE: Final = Verdict("resource", "silence")

DEADLINE: Final = Verdict("resource", "deadline", repeat=False)
CANCELLED: Final = Verdict("logical", "cancelled", repeat=False)
RUN_ENDED: Final = Verdict("logical", "run_ended", repeat=False)
CLAIM_LAPSED: Final = Verdict("logical", "claim_lapsed", repeat=False)
LIMIT_REACHED: Final = Verdict("transient", "limit_reached", repeat=False)
BREAKER_OPEN: Final = Verdict("transient", "breaker_open", repeat=False)
OVER_BUDGET: Final = Verdict("resource", "budget_exceeded", repeat=False)
UNPRICED: Final = Verdict("persistent", "price_unknown", repeat=False)
NOT_ALLOWED: Final = Verdict("logical", "model_not_allowed", repeat=False)
NO_PROVIDER: Final = Verdict("persistent", "no_provider", repeat=False)
UNKNOWN_ROLE: Final = Verdict("logical", "unknown_role", repeat=False)
UNREADABLE: Final = Verdict("logical", "unreadable_command", repeat=False)
ARTIFACT_GONE: Final = Verdict("logical", "artifact_gone", repeat=False)
IMAGE_UNUSABLE: Final = Verdict("logical", "image_unusable", repeat=False)
NOT_STORED: Final = Verdict("fatal", "artifact_not_stored", repeat=False)
JOB_LOST: Final = Verdict("transient", "job_lost")
EXECUTOR_DIED: Final = Verdict("fatal", "executor_died", repeat=False)
INTERNAL: Final = Verdict("fatal", "internal_error", repeat=False)


def _rows(seen: Seen, signals: dict[str, Verdict]) -> tuple[Row, ...]:
    return tuple(Row(seen, signal, verdict) for signal, verdict in signals.items())


TABLE: Final[tuple[Row, ...]] = (
    *_rows(Seen.MESSAGE, {
        "no endpoint has what this request needs": INVALID,
        "not a valid model id": MODEL_GONE,
    }),
    *_rows(Seen.ERROR_TYPE, {
        "context_length_exceeded": CONTEXT,
        "max_tokens_exceeded": ANSWER_LENGTH,
        "invalid_request": INVALID,
        "invalid_prompt": INVALID,
        "content_policy_violation": _POLICY,
        "refusal": _REFUSAL,
        "authentication": _AUTHENTICATION,
        "payment_required": _PAYMENT,
        "in_flight_budget_exhausted": _IN_FLIGHT,
        "permission_denied": _PERMISSION,
        "not_found": MODEL_GONE,
        "timeout": _PROVIDER_TIMEOUT,
        "rate_limit_exceeded": _RATE,
        "server": _PROVIDER_ERROR,
        "provider_unavailable": UNAVAILABLE,
        "provider_overloaded": _OVERLOADED,
    }),
    *_rows(Seen.CODE, {
        "context_length_exceeded": CONTEXT,
        "string_above_max_length": CONTEXT,
        "exceed_context_size_error": CONTEXT,
        "invalid_request_error": INVALID,
        "invalid_prompt": INVALID,
        "unsupported_parameter": INVALID,
        "unsupported_value": INVALID,
        "content_policy_violation": _POLICY,
        "content_filter": _SAFETY,
        "invalid_api_key": _AUTHENTICATION,
        "authentication_error": _AUTHENTICATION,
        "permission_error": _PERMISSION,
        "model_not_found": MODEL_GONE,
        "not_found_error": MODEL_GONE,
        "insufficient_quota": _QUOTA,
        "billing_hard_limit_reached": _QUOTA,
        "in_flight_budget_exhausted": _IN_FLIGHT,
        "rate_limit_exceeded": _RATE,
        "rate_limit_error": _RATE,
        "server_error": _PROVIDER_ERROR,
        "api_error": _PROVIDER_ERROR,
        "overloaded_error": _OVERLOADED,
        "timeout_error": _PROVIDER_TIMEOUT,
    }),
    *_rows(Seen.GOOGLE, {
        "INVALID_ARGUMENT": INVALID,
        "FAILED_PRECONDITION": _PERMISSION,
        "OUT_OF_RANGE": INVALID,
        "UNAUTHENTICATED": _AUTHENTICATION,
        "PERMISSION_DENIED": _PERMISSION,
        "NOT_FOUND": MODEL_GONE,
        "UNIMPLEMENTED": MODEL_GONE,
        "RESOURCE_EXHAUSTED": _RATE,
        "ABORTED": _PROVIDER_ERROR,
        "CANCELLED": _PROVIDER_ERROR,
        "UNKNOWN": _PROVIDER_ERROR,
        "INTERNAL": _PROVIDER_ERROR,
        "DATA_LOSS": _PROVIDER_ERROR,
        "UNAVAILABLE": UNAVAILABLE,
        "DEADLINE_EXCEEDED": _PROVIDER_TIMEOUT,
    }),
    *_rows(Seen.STATUS, {
        "3xx": _REDIRECT,
        "400": INVALID,
        "401": _AUTHENTICATION,
        "402": _PAYMENT,
        "403": _PERMISSION,
        "404": MODEL_GONE,
        "408": _PROVIDER_TIMEOUT,
        "410": MODEL_GONE,
        "413": _BODY,
        "422": INVALID,
        "425": _PROVIDER_ERROR,
        "429": _RATE,
        "4xx": INVALID,
        "500": _PROVIDER_ERROR,
        "502": UNAVAILABLE,
        "503": _OVERLOADED,
        "504": _PROVIDER_TIMEOUT,
        "524": _PROVIDER_TIMEOUT,
        "529": _OVERLOADED,
        "5xx": _PROVIDER_ERROR,
    }),
    *_rows(Seen.ANSWER, {
        "empty": EMPTY,
        "malformed": MALFORMED,
        "oversized": OVERSIZED,
        "refusal": REFUSAL,
        "finish_reason content_filter": SAFETY,
        "finish_reason error": PROVIDER_ERROR,
        "finish_reason length without text": NOTHING_SAID,
        "error of an unknown kind": PROVIDER_ERROR,
    }),
    *_rows(Seen.WIRE, {
        "no connection": UNREACHABLE,
        "no TLS": TLS,
        "connection lost while sending": NOT_SENT,
        "connection lost before the answer": CONNECTION_LOST,
        "stream cut": CUT,
        "silence": SILENCE,
        "out of time": TIMEOUT,
    }),
    *_rows(Seen.OURS, {
        "past the run's deadline": DEADLINE,
        "run cancelled": CANCELLED,
        "run ended": RUN_ENDED,
        "call settled by others meanwhile": CLAIM_LAPSED,
        "our own limit until past the deadline": LIMIT_REACHED,
        "model left alone, and all that stand in": BREAKER_OPEN,
        "the budget of its key or tenant is used up": OVER_BUDGET,
        "a budget in US dollars, and no price of the model": UNPRICED,
        "a role that its key or tenant may not ask": NOT_ALLOWED,
        "no provider for the role": NO_PROVIDER,
        "role not configured": UNKNOWN_ROLE,
        "command unreadable": UNREADABLE,
        "an artifact that the call refers to is not there": ARTIFACT_GONE,
        "an image that the call is to look at cannot be had": IMAGE_UNUSABLE,
        "what was made cannot be stored": NOT_STORED,
        "a provider's job that cannot be asked about": JOB_LOST,
        "executors died on it": EXECUTOR_DIED,
        "an error of ours, again and again": INTERNAL,
    }),
)  # fmt: skip

_BY_SIGNAL: Final = {(row.seen, row.signal): row.verdict for row in TABLE}
_ORDER: Final = tuple(Seen)
_GENERIC: Final = frozenset({"invalid_request_error", "api_error", "server_error", "invalid_request"})
"""Servers put these on everything; a status that is more precise wins over them."""


@dataclass(frozen=True, slots=True)
class Signal:
    seen: Seen
    signal: str


def classify(signals: Iterable[Signal]) -> Verdict:
    """Return what the most telling known signal says; `PROVIDER_ERROR` when the table knows none of them."""
    ranked = sorted(signals, key=lambda signal: (signal.signal in _GENERIC, _ORDER.index(signal.seen)))
    for signal in ranked:
        verdict = _BY_SIGNAL.get((signal.seen, signal.signal))
        if verdict is None and signal.seen is Seen.STATUS:
            verdict = _BY_SIGNAL.get((Seen.STATUS, f"{signal.signal[:1]}xx"))
        if verdict is not None:
            return verdict
    return PROVIDER_ERROR


def worth_repeating(verdict: Verdict, status: int | None, retryable: frozenset[int]) -> Verdict:
    """Return `verdict`, or a transient one for an unspecific error whose status the configuration calls retryable."""
    return PROVIDER_ERROR if verdict == INVALID and status in retryable else verdict
