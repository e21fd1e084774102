"""What an error body and its headers say: signals for the taxonomy, a message for people, when to come back. Pure."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from pydantic_core import from_json

from services.executor.providers import Failed
from services.executor.taxonomy import Seen, Signal, classify
from shared.contracts.message import Usage

MESSAGE_CHARS = 500
_SAID = {
    400: (re.compile(r"is not a valid model id\b", re.IGNORECASE), "not a valid model id"),
    404: (
        re.compile(r"^no (?:endpoints found (?:that|matching|with)|allowed providers)\b", re.IGNORECASE),
        "no endpoint has what this request needs",
    ),
}
"""OpenRouter answers 400 for an id that it has no more, and 404 for a model that is there and cannot do what one
request wants (images, tools, a provider): that one says nothing of the model."""
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)s$")


def read_failure(status: int, headers: Mapping[str, str], data: bytes, now_s: float) -> Failed:
    """Return what an answer with an error status means. `now_s`: seconds since the epoch, for dates in headers."""
    try:
        body: object = from_json(data)
    except ValueError:
        body = None
    if isinstance(body, list) and body:  # Google sometimes wraps it
        body = body[0]
    fault: object = None
    if isinstance(body, dict):
        fault = body.get("error") or {"message": body.get("message") or _detail(body.get("detail"))}
    if not fault:
        fault = {"message": " ".join(data[:MESSAGE_CHARS].decode(errors="replace").split())}
    failed = read_fault(status, fault, now_s)
    after_s = retry_after_s(headers, now_s)
    if after_s is not None:
        failed = replace(failed, retry_after_s=max(after_s, failed.retry_after_s or 0.0))
    if headers.get("x-should-retry") == "false" and not failed.verdict.backpressure:
        failed = replace(failed, verdict=replace(failed.verdict, repeat=False))
    return failed


def read_fault(
    status: int, fault: object, now_s: float, *, usage: Usage | None = None, cost_usd: float | None = 0.0
) -> Failed:
    """Return what the `error` of a body means, wherever it stood: an error answer, a 200, the middle of a stream."""
    fields: dict[str, Any] = fault if isinstance(fault, dict) else {"message": str(fault)}
    numeric = _status_in(fields.get("code"))
    verdict = classify(_signals(numeric or status, fields))
    after_s = None
    availability = fields.get("availability")
    if isinstance(availability, dict):
        after_s = _seconds(availability.get("retry_after"))
        if availability.get("retryable") is False and not verdict.backpressure:
            verdict = replace(verdict, repeat=False)
    metadata = fields.get("metadata")
    if after_s is None and isinstance(metadata, dict):
        after_s = _seconds(metadata.get("retry_after"))
        if after_s is None and isinstance(metadata.get("headers"), dict):
            after_s = retry_after_s({str(k).lower(): str(v) for k, v in metadata["headers"].items()}, now_s)
    if after_s is None:
        after_s = _retry_info(fields.get("details"))
    return Failed(
        verdict,
        _message(fields),
        numeric or status,
        after_s,
        usage=usage or Usage(),
        cost_usd=cost_usd,
    )


def retry_after_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """Return what the headers say, in seconds from now: a number, a date (RFC 9110, 10.2.3), or a reset in epoch ms."""
    if (milliseconds := _seconds(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    if value is not None:
        if (seconds := _seconds(value)) is not None:
            return seconds
        try:
            at = parsedate_to_datetime(value)
            return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now_s)
        except (ValueError, OverflowError):
            return None
    if headers.get("x-ratelimit-remaining") == "0" and (reset := _seconds(headers.get("x-ratelimit-reset"))):
        return max(0.0, (reset / 1000 if reset > 1e11 else reset) - now_s) if reset > 1e9 else reset
    return None


def _signals(status: int, fields: Mapping[str, Any]) -> Iterator[Signal]:
    metadata, said = fields.get("metadata"), fields.get("message")
    if status in _SAID and isinstance(said, str) and _SAID[status][0].search(said):
        yield Signal(Seen.MESSAGE, _SAID[status][1])
    if isinstance(metadata, dict) and isinstance(metadata.get("error_type"), str):
        yield Signal(Seen.ERROR_TYPE, metadata["error_type"])
    for name in ("code", "type"):
        if isinstance(fields.get(name), str):
            yield Signal(Seen.CODE, fields[name])
            yield Signal(Seen.ERROR_TYPE, fields[name])
    if isinstance(fields.get("status"), str):
        yield Signal(Seen.GOOGLE, fields["status"])
    if status != 200:
        yield Signal(Seen.STATUS, str(status))


def _status_in(code: object) -> int | None:
    """Return the HTTP status that `error.code` is, as a number or as text."""
    if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) == 3:
        code = int(code)
    return code if isinstance(code, int) and not isinstance(code, bool) and 400 <= code <= 599 else None


def _retry_info(details: object) -> float | None:
    """Return google.rpc.RetryInfo's delay."""
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and str(detail.get("@type", "")).endswith("google.rpc.RetryInfo"):
            found = _DURATION.match(str(detail.get("retryDelay", "")))
            return float(found.group(1)) if found else None
    return None


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _message(fields: Mapping[str, Any]) -> str:
    said = fields.get("message")
    text = said if isinstance(said, str) else "" if said is None else repr(said)
    metadata = fields.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    if isinstance(raw, str) and raw and raw not in text:  # what OpenRouter's upstream said
        text = f"{text}: {raw}" if text else raw
    parameter = fields.get("param")
    if isinstance(parameter, str) and parameter not in text:
        text = f"{text} (parameter {parameter})"
    return " ".join(text.split())[:MESSAGE_CHARS]


def _detail(detail: object) -> str:
    """Return FastAPI's `detail`, which many self-hosted servers answer with, without the input that it echoes."""
    if isinstance(detail, list):
        return "; ".join(
            f"{'.'.join(str(part) for part in one.get('loc', ()))}: {one.get('msg')}"
            for one in detail
            if isinstance(one, dict)
        )
    return detail if isinstance(detail, str) else ""


def without(message: str, secret: str | None) -> str:
    """Return the message with a key that the provider quoted back taken out."""
    return message.replace(secret, "***") if secret and len(secret) >= 4 else message
