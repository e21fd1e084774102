"""The taxonomy, row by row: what each signal amounts to."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.executor import taxonomy
from services.executor.providers.failures import read_failure, read_fault
from services.executor.taxonomy import TABLE, Row, Seen, Signal, classify, worth_repeating
from services.executor.taxonomy_page import render

NOW_S = 1_790_000_000.0

# (where, signal, type, code, flags): b backpressure, r worth repeating, s smaller, a first at once
EXPECTED = """
message no|endpoint|has|what|this|request|needs logical invalid_request -
message not|a|valid|model|id persistent model_not_found -
error_type context_length_exceeded resource context_too_long rsa
error_type max_tokens_exceeded resource answer_length rs
error_type invalid_request logical invalid_request -
error_type invalid_prompt logical invalid_request -
error_type content_policy_violation logical content_policy -
error_type refusal logical refusal -
error_type authentication persistent authentication r
error_type payment_required persistent payment_required -
error_type in_flight_budget_exhausted transient budget_in_flight br
error_type permission_denied persistent permission_denied r
error_type not_found persistent model_not_found -
error_type timeout transient provider_timeout r
error_type rate_limit_exceeded transient rate_limited br
error_type server transient provider_error r
error_type provider_unavailable transient provider_unavailable r
error_type provider_overloaded transient provider_overloaded r
code context_length_exceeded resource context_too_long rsa
code string_above_max_length resource context_too_long rsa
code exceed_context_size_error resource context_too_long rsa
code invalid_request_error logical invalid_request -
code invalid_prompt logical invalid_request -
code unsupported_parameter logical invalid_request -
code unsupported_value logical invalid_request -
code content_policy_violation logical content_policy -
code content_filter logical safety_filter -
code invalid_api_key persistent authentication r
code authentication_error persistent authentication r
code permission_error persistent permission_denied r
code model_not_found persistent model_not_found -
code not_found_error persistent model_not_found -
code insufficient_quota persistent quota_exhausted -
code billing_hard_limit_reached persistent quota_exhausted -
code in_flight_budget_exhausted transient budget_in_flight br
code rate_limit_exceeded transient rate_limited br
code rate_limit_error transient rate_limited br
code server_error transient provider_error r
code api_error transient provider_error r
code overloaded_error transient provider_overloaded r
code timeout_error transient provider_timeout r
google INVALID_ARGUMENT logical invalid_request -
google FAILED_PRECONDITION persistent permission_denied r
google OUT_OF_RANGE logical invalid_request -
google UNAUTHENTICATED persistent authentication r
google PERMISSION_DENIED persistent permission_denied r
google NOT_FOUND persistent model_not_found -
google UNIMPLEMENTED persistent model_not_found -
google RESOURCE_EXHAUSTED transient rate_limited br
google ABORTED transient provider_error r
google CANCELLED transient provider_error r
google UNKNOWN transient provider_error r
google INTERNAL transient provider_error r
google DATA_LOSS transient provider_error r
google UNAVAILABLE transient provider_unavailable r
google DEADLINE_EXCEEDED transient provider_timeout r
status 3xx persistent unexpected_redirect -
status 400 logical invalid_request -
status 401 persistent authentication r
status 402 persistent payment_required -
status 403 persistent permission_denied r
status 404 persistent model_not_found -
status 408 transient provider_timeout r
status 410 persistent model_not_found -
status 413 resource request_too_large -
status 422 logical invalid_request -
status 425 transient provider_error r
status 429 transient rate_limited br
status 4xx logical invalid_request -
status 500 transient provider_error r
status 502 transient provider_unavailable r
status 503 transient provider_overloaded r
status 504 transient provider_timeout r
status 524 transient provider_timeout r
status 529 transient provider_overloaded r
status 5xx transient provider_error r
answer empty logical empty_answer r
answer malformed logical malformed_answer r
answer oversized resource oversized_answer -
answer refusal logical refusal -
answer finish_reason|content_filter logical safety_filter -
answer finish_reason|error transient provider_error r
answer finish_reason|length|without|text resource nothing_said -
answer error|of|an|unknown|kind transient provider_error r
wire no|connection transient unreachable r
wire no|TLS persistent tls_failed r
wire connection|lost|while|sending transient not_sent ra
wire connection|lost|before|the|answer transient connection_lost ra
wire stream|cut transient stream_cut r
wire silence resource silence r
wire out|of|time resource timeout r
ours past|the|run's|deadline resource deadline -
ours run|cancelled logical cancelled -
ours run|ended logical run_ended -
ours call|settled|by|others|meanwhile logical claim_lapsed -
ours our|own|limit|until|past|the|deadline transient limit_reached -
ours model|left|alone,|and|all|that|stand|in transient breaker_open -
ours the|budget|of|its|key|or|tenant|is|used|up resource budget_exceeded -
ours a|budget|in|US|dollars,|and|no|price|of|the|model persistent price_unknown -
ours a|role|that|its|key|or|tenant|may|not|ask logical model_not_allowed -
ours no|provider|for|the|role persistent no_provider -
ours role|not|configured logical unknown_role -
ours command|unreadable logical unreadable_command -
ours an|artifact|that|the|call|refers|to|is|not|there logical artifact_gone -
ours an|image|that|the|call|is|to|look|at|cannot|be|had logical image_unusable -
ours what|was|made|cannot|be|stored fatal artifact_not_stored -
ours a|provider's|job|that|cannot|be|asked|about transient job_lost r
ours executors|died|on|it fatal executor_died -
ours an|error|of|ours,|again|and|again fatal internal_error -
"""
ROWS = [line.split() for line in EXPECTED.strip().splitlines()]


@pytest.mark.parametrize(("row", "expected"), list(zip(TABLE, ROWS, strict=False)), ids=str)
def test_each_row_amounts_to_what_the_design_says(row: Row, expected: list[str]) -> None:
    """Type, code, and whether it waits, repeats, repeats smaller, or repeats at once."""
    seen, signal, type_, code, flags = expected
    verdict = row.verdict
    assert (row.seen, row.signal) == (seen, signal.replace("|", " "))
    assert (verdict.type, verdict.code) == (type_, code)
    found = (verdict.backpressure, verdict.repeat, verdict.smaller, verdict.at_once)
    assert found == ("b" in flags, "r" in flags, "s" in flags, "a" in flags)


def test_every_row_is_expected_and_none_stands_twice() -> None:
    """The table has as many rows as the list above, and one verdict a signal."""
    assert len(TABLE) == len(ROWS)
    assert len({(row.seen, row.signal) for row in TABLE}) == len(TABLE)


ON_THE_WIRE = [row for row in TABLE if row.seen in {Seen.ERROR_TYPE, Seen.CODE, Seen.GOOGLE, Seen.STATUS}]


def body_of(row: Row) -> tuple[int, dict[str, Any]]:
    """Return the status and body with which a provider sends a row's signal."""
    match row.seen:
        case Seen.ERROR_TYPE:
            return 400, {"error": {"code": 400, "message": "m", "metadata": {"error_type": row.signal}}}
        case Seen.CODE:
            status = 500 if row.verdict.type == "transient" else 400
            return status, {"error": {"code": row.signal, "type": "api_error", "message": "m"}}
        case Seen.GOOGLE:
            return 400, {"error": {"code": 400, "message": "m", "status": row.signal}}
        case _:
            return int(row.signal.replace("xx", "18")), {"error": {"message": "m"}}


@pytest.mark.parametrize("row", ON_THE_WIRE, ids=str)
def test_each_row_is_recognised_in_an_error_answer(row: Row) -> None:
    """Read from the bytes of an answer, the signal amounts to its row; nothing was charged."""
    status, body = body_of(row)
    failed = read_failure(status, {}, json.dumps(body).encode(), NOW_S)
    assert failed.verdict == row.verdict
    assert (failed.cost_usd, failed.message) == (0.0, "m")


@pytest.mark.parametrize("row", [row for row in ON_THE_WIRE if row.seen is not Seen.STATUS], ids=str)
def test_each_row_is_recognised_inside_a_200(row: Row) -> None:
    """The same error in the middle of a stream, or in an answer that says 200, amounts to the same."""
    _, body = body_of(row)
    body["error"].pop("code") if row.seen is not Seen.CODE else None
    assert read_fault(200, body["error"], NOW_S).verdict == row.verdict


@pytest.mark.parametrize("code", [429, "429"])
def test_a_status_in_the_body_counts_as_one(code: int | str) -> None:
    """OpenRouter's mid-stream `code` is a number, or a number as text."""
    failed = read_fault(200, {"code": code, "message": "slow down"}, NOW_S)
    assert (failed.verdict.code, failed.status) == ("rate_limited", 429)


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (404, "No endpoints found that support image input", "invalid_request"),
        (
            404,
            "No endpoints found that support tool use. To learn more about provider routing, visit",
            "invalid_request",
        ),
        (404, "No endpoints found matching your data policy", "invalid_request"),
        (404, "No allowed providers are available for the selected model.", "invalid_request"),
        (404, "No endpoints found for vendor/gone.", "model_not_found"),
        (400, "vendor/gone is not a valid model ID", "model_not_found"),
        (400, "temperature is not a valid number", "invalid_request"),
    ],
)
def test_openrouters_words_tell_a_model_that_is_gone_from_one_that_cannot_do_this(
    status: int, message: str, code: str
) -> None:
    """Else one request with an image to a model that cannot see would keep everybody from it for an hour."""
    body = json.dumps({"error": {"code": status, "message": message}}).encode()
    assert read_failure(status, {}, body, NOW_S).verdict.code == code


def test_the_more_telling_signal_wins() -> None:
    """error_type over code over status; but a code that servers put on everything tells less than a status."""
    assert classify([Signal(Seen.STATUS, "429"), Signal(Seen.CODE, "insufficient_quota")]).code == "quota_exhausted"
    assert classify([Signal(Seen.STATUS, "404"), Signal(Seen.CODE, "invalid_request_error")]).code == "model_not_found"
    assert classify([Signal(Seen.CODE, "rate_limit_exceeded"), Signal(Seen.ERROR_TYPE, "refusal")]).code == "refusal"
    assert classify([Signal(Seen.ERROR_TYPE, "made_up"), Signal(Seen.STATUS, "401")]).code == "authentication"
    assert classify([Signal(Seen.CODE, "made_up")]) == taxonomy.PROVIDER_ERROR
    assert classify([]) == taxonomy.PROVIDER_ERROR


@pytest.mark.parametrize(
    ("headers", "error", "after_s"),
    [
        ({"retry-after": "7"}, {}, 7.0),
        ({"retry-after": "0.5"}, {}, 0.5),
        ({"retry-after-ms": "250"}, {}, 0.25),
        ({"retry-after": "Mon, 21 Sep 2026 14:13:50 GMT"}, {}, 30.0),
        ({"retry-after": "Mon, 21 Sep 2020 14:13:50 GMT"}, {}, 0.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1790000012000"}, {}, 12.0),
        ({"x-ratelimit-remaining": "3", "x-ratelimit-reset": "1790000012000"}, {}, None),
        ({}, {"availability": {"retry_after": 9}}, 9.0),
        ({"retry-after": "3"}, {"availability": {"retry_after": 9}}, 9.0),
        ({}, {"metadata": {"headers": {"Retry-After": "4"}}}, 4.0),
        ({}, {"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}]}, 34.5),
        ({}, {"details": [{"@type": "type.googleapis.com/google.rpc.QuotaFailure"}]}, None),
        ({"retry-after": "soon"}, {}, None),
        ({"retry-after": "Mon, 01 Jan 2024 00:00:00 +99999999999999999999"}, {}, None),
        ({"retry-after": "-5"}, {}, None),
        ({"retry-after": "inf"}, {}, None),
        ({}, {}, None),
    ],
)
def test_when_to_come_back(headers: dict[str, str], error: dict[str, Any], after_s: float | None) -> None:
    """Retry-After as seconds, milliseconds, a date; OpenRouter's, Google's RetryInfo; nonsense is nothing."""
    body = json.dumps({"error": {"message": "later", **error}}).encode()
    found = read_failure(429, headers, body, NOW_S).retry_after_s
    assert found == after_s if after_s is None else found == pytest.approx(after_s)


def test_bodies_that_are_not_what_they_should_be_are_quoted() -> None:
    """HTML, text, an empty body, a list, FastAPI's detail: the status decides, the message says what came."""
    html = read_failure(502, {}, b"<html>\n  Bad Gateway </html>", NOW_S)
    assert (html.verdict.code, html.message) == ("provider_unavailable", "<html> Bad Gateway </html>")
    assert read_failure(500, {}, b"", NOW_S).message == ""
    assert read_failure(500, {}, b"[]", NOW_S).verdict.code == "provider_error"
    wrapped = read_failure(429, {}, b'[{"error": {"status": "RESOURCE_EXHAUSTED", "message": "full"}}]', NOW_S)
    assert (wrapped.verdict.code, wrapped.message) == ("rate_limited", "full")
    detail = (
        b'{"detail": [{"loc": ["body", "top_k"], "msg": "Extra inputs are not permitted", "input": "secret text"}]}'
    )
    assert read_failure(422, {}, detail, NOW_S).message == "body.top_k: Extra inputs are not permitted"
    assert read_failure(400, {}, b'{"error": "plain words"}', NOW_S).message == "plain words"
    long = read_failure(400, {}, json.dumps({"error": {"message": "x" * 9_000}}).encode(), NOW_S)
    assert len(long.message) == 500
    upstream = {"error": {"message": "Provider returned error", "metadata": {"raw": "the upstream's words"}}}
    assert read_failure(400, {}, json.dumps(upstream).encode(), NOW_S).message.endswith(": the upstream's words")


def test_a_server_can_say_that_there_is_no_point_in_repeating() -> None:
    """`x-should-retry: false` and `availability.retryable: false` end repetition; a 429 still waits."""
    assert not read_failure(500, {"x-should-retry": "false"}, b"{}", NOW_S).verdict.repeat
    error = {"error": {"message": "m", "availability": {"retryable": False}}}
    assert not read_failure(503, {}, json.dumps(error).encode(), NOW_S).verdict.repeat
    assert read_failure(429, {"x-should-retry": "false"}, b"{}", NOW_S).verdict.backpressure


def test_the_configuration_can_call_an_unspecific_status_retryable() -> None:
    """A 409 is an invalid request, unless the configuration lists it; a precise verdict stays what it is."""
    conflict = read_failure(409, {}, b"{}", NOW_S).verdict
    assert conflict.code == "invalid_request"
    assert worth_repeating(conflict, 409, frozenset({409})).code == "provider_error"
    assert worth_repeating(conflict, 409, frozenset({429})) == conflict
    gone = read_failure(404, {}, b"{}", NOW_S).verdict
    assert worth_repeating(gone, 404, frozenset({404})) == gone


def test_the_page_in_the_docs_is_the_table() -> None:
    """docs/reference/errors.md is generated and current."""
    page = Path(__file__).resolve().parents[2] / "docs" / "reference" / "errors.md"
    assert page.read_text() == render(), "run: python -m services.executor.taxonomy_page > docs/reference/errors.md"
