"""Callbacks as decisions: what is POSTed, how it is signed, and what follows from how that went. Pure.

Signed as https://www.standardwebhooks.com says: HMAC-SHA256 over `<webhook-id>.<webhook-timestamp>.<body>`.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from shared.contracts.answer import CallbackBody, answer_of
from shared.contracts.callbacks import CallbackAttempt, DeliverCallback
from shared.contracts.events import RunEnded

GONE: Final = 410
FACTOR: Final = 3.0
SPREAD: Final = 0.2
"""Waits are longer by up to this share, so that those that failed together do not come back together."""
ENVELOPE_BYTES: Final = 400
BUSY_S: Final = 1.0
MOST_BUSY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Policy:
    """How often, how fast and for how long it is tried."""

    attempts: int
    first_retry_s: float
    most_retry_s: float
    give_up_s: float


@dataclass(frozen=True, slots=True)
class Settle:
    """It is over. `reason` None: delivered."""

    reason: str | None


@dataclass(frozen=True, slots=True)
class PutBack:
    """It is tried again at a time."""

    at: datetime


def message_id(run_id: str) -> str:
    """Return the `webhook-id` of a run's answer: the same however often it is sent."""
    return f"run_{run_id}"


def body_of(command: DeliverCallback, ended: RunEnded, most_bytes: int) -> bytes:
    """Return what is POSTed: the same bytes with every try."""
    origin = {"parent": command.parent, "schedule": command.schedule}
    answer = answer_of(ended, most_bytes - ENVELOPE_BYTES).model_copy(update=origin)
    body = CallbackBody(timestamp=ended.ended_at, data=answer)
    return body.__pydantic_serializer__.to_json(body, exclude_none=True)


def headers_of(secrets: Sequence[bytes], run_id: str, body: bytes, now: datetime) -> dict[str, str]:
    """Return the headers of a POST, signed with every current secret: a receiver needs to know one of them."""
    name, timestamp = message_id(run_id), int(now.timestamp())
    signed = f"{name}.{timestamp}.".encode() + body
    signatures = [base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode() for secret in secrets]
    return {
        "content-type": "application/json",
        "webhook-id": name,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def after(
    policy: Policy, command: DeliverCallback, last: CallbackAttempt, retry_after_s: float | None, now: datetime
) -> Settle | PutBack:
    """Return what follows from the latest attempt. `command.tried` are those before it."""
    if last.problem is None:
        return Settle(None)
    if last.status == GONE:
        return Settle("the receiver answered 410 Gone: it wants nothing more at this URL")
    tried = len(command.tried) + 1
    if tried >= policy.attempts:
        return Settle(f"{tried} attempts failed, the last one: {last.problem}")
    wait_s = min(policy.most_retry_s, policy.first_retry_s * FACTOR ** (tried - 1))
    if retry_after_s is not None:
        wait_s = max(wait_s, min(retry_after_s, policy.most_retry_s))
    return _back(policy, command, wait_s, now) or Settle(
        f"not delivered within {policy.give_up_s:.0f} s, after {tried} attempts, the last one: {last.problem}"
    )


def defer(policy: Policy, command: DeliverCallback, wait_s: float, why: str, now: datetime) -> Settle | PutBack:
    """Return what follows when it is not tried now: the receiver is left alone for `wait_s`, or too many wait there."""
    grown_s = min(MOST_BUSY_S, BUSY_S * 2.0 ** min(command.deferred, 10))
    return _back(policy, command, max(wait_s, grown_s), now) or Settle(
        f"not delivered within {policy.give_up_s:.0f} s, after {len(command.tried)} attempts: {why}"
    )


def _back(policy: Policy, command: DeliverCallback, wait_s: float, now: datetime) -> PutBack | None:
    at = now + timedelta(seconds=wait_s * (1 + SPREAD * _share(command)))
    return PutBack(at) if at < command.begun_at + timedelta(seconds=policy.give_up_s) else None


def _share(command: DeliverCallback) -> float:
    """Return a number from 0 to 1 that differs from run to run and from try to try."""
    digest = hashlib.sha256(f"{command.run.run_id} {command.step}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return for how long a receiver wants to be left alone, by its `Retry-After`; None when it does not say."""
    said = headers.get("retry-after", "").strip()
    if said.isascii() and said.isdigit():
        return float(said[:9])
    try:
        until = parsedate_to_datetime(said)
    except ValueError:
        return None
    return max(0.0, ((until if until.tzinfo else until.replace(tzinfo=UTC)) - now).total_seconds())
