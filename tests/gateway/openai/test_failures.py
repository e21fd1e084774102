"""Every error of ours in OpenAI's form, with the status that its clients know."""

import pytest
from pydantic_core import from_json

from services.gateway.http.openai.failures import of_detail, of_run
from tests.gateway.openai.asked import ended, failed


@pytest.mark.parametrize(
    ("code", "status", "theirs", "kind"),
    [
        ("provider_unavailable", 502, "provider_unavailable", "server_error"),
        ("deadline", 504, "deadline", "server_error"),
        ("context_too_long", 400, "context_length_exceeded", "invalid_request_error"),
        ("safety_filter", 400, "content_filter", "invalid_request_error"),
        ("invalid_request", 400, "invalid_request", "invalid_request_error"),
        ("no_provider", 502, "no_provider", "server_error"),
    ],
)
def test_a_run_that_failed(code: str, status: int, theirs: str, kind: str) -> None:
    """What the same request would meet again is the caller's error. All are final: another try is another run."""
    failing = of_run(failed(code))
    assert (failing.status, failing.code, failing.kind) == (status, theirs, kind)
    assert failing.headers() == {"x-should-retry": "false"}
    assert from_json(failing.body())["error"] == {
        "message": f"it {code}",
        "type": kind,
        "param": "messages" if code == "context_too_long" else None,
        "code": theirs,
        "run_id": "r1",
    }


@pytest.mark.parametrize(
    ("code", "status"), [("budget_exceeded", 402), ("budget_exceeded", 429), ("model_not_allowed", 403)]
)
def test_what_an_allowance_does_not_allow_has_the_status_that_it_has_elsewhere(code: str, status: int) -> None:
    """It is refused so at the door, and over `/chat`: the same words wherever a run meets its limit."""
    fault = {"type": "resource", "code": code, "message": "no", "status": status}
    failing = of_run(ended(None, outcome="failed", fault=fault))
    assert (failing.status, failing.code, failing.final) == (status, code, True)


def test_a_run_that_was_cancelled_is_a_conflict_that_is_not_repeated() -> None:
    failing = of_run(ended(None, outcome="cancelled"))
    assert (failing.status, failing.final) == (409, True)


def test_the_explanation_comes_before_the_fault() -> None:
    said = of_run(failed("timeout").model_copy(update={"text": "I am sorry."})).message
    assert said == "I am sorry.\n\nThe fault: it timeout"


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (401, "authentication_error", "invalid_api_key"),
        (403, "permission_error", None),
        (404, "invalid_request_error", "not_found"),
        (413, "invalid_request_error", "request_too_large"),
        (429, "rate_limit_error", "rate_limit_exceeded"),
        (503, "server_error", "overloaded"),
        (500, "server_error", None),
    ],
)
def test_what_the_door_says(status: int, kind: str, code: str | None) -> None:
    error = of_detail(status, "no").error
    assert (error["type"], error["code"], error["message"]) == (kind, code, "no")


def test_what_is_not_valid_is_400_and_names_its_first_parameter() -> None:
    problems = [
        {"path": "$.messages[0].role", "code": "invalid_value", "message": "no role"},
        {"path": "$.n", "code": "unsupported_value", "message": "one"},
    ]
    failing = of_detail(422, problems)
    assert (failing.status, failing.param, failing.code) == (400, "messages[0].role", "invalid_value")
    assert failing.message == "messages[0].role: no role; n: one"


def test_a_value_of_no_known_kind_is_named_once_by_its_parameter() -> None:
    problems = [
        {"path": "$.input.str", "code": "string_type", "message": "no text"},
        {"path": "$.input['list[dict[str,any]]']", "code": "too_short", "message": "too short"},
        {"path": "$.input['list[dict[str,any]]'][2].role", "code": "x", "message": "no role"},
    ]
    failing = of_detail(422, problems)
    assert (failing.param, failing.message) == ("input", "input: no text; input[2].role: no role")
