"""What the client decides: when a request is sent again, what an answer is, how events are read."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import ApiError, Busy, Event, Forbidden, Invalid, NotFound, RunFailed, Unauthorized, calls
from client.errors import error_of
from client.events import EventReader, events


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, Unauthorized), (403, Forbidden), (404, NotFound), (422, Invalid), (429, Busy), (503, Busy), (500, ApiError)],
)
def test_each_status_is_its_own_error(status: int, kind: type[ApiError]) -> None:
    error = error_of(status, {"detail": "so it is"}, {"retry-after": "7"})
    assert (type(error), str(error), error.status, error.retry_after_s) == (kind, "so it is", status, 7.0)


def test_a_run_that_failed_says_its_code_and_what_it_cost() -> None:
    body = {"detail": "gone", "run_id": "r", "error": {"code": "timeout"}, "cost_usd": 0.5, "result": {"a": 1}}
    error = error_of(502, body, {})
    assert isinstance(error, RunFailed)
    assert (error.code, error.cost_usd, error.result, error.run_id) == ("timeout", 0.5, {"a": 1}, "r")


def test_problems_are_lines() -> None:
    problems = [{"path": "$.a", "code": "c", "message": "one"}, {"path": "", "code": "c", "message": "two"}]
    error = error_of(422, {"detail": problems}, {})
    assert (str(error), list(error.problems)) == ("$.a: one\ntwo", problems)


@given(st.integers(1, 50), st.floats(0, 1))
def test_a_pause_is_never_shorter_than_the_gateway_says_nor_longer_than_half_a_minute(
    tried: int, chance: float
) -> None:
    asked = Busy(429, {"detail": "full"}, {"retry-after": "3"})
    pause = calls.pause_s(asked, tried, chance)
    assert pause is not None
    assert 3 <= pause <= calls.MOST_WAIT_S
    cut = calls.pause_s(None, tried, chance)
    assert cut is not None
    assert calls.LEAST_WAIT_S <= cut <= calls.MOST_WAIT_S
    assert calls.pause_s(Invalid(422, {}, {}), tried, chance) is None


def test_what_is_no_segue_is_said_to_be_none() -> None:
    call = calls.health()
    for content in (b"<html>", b"[1]"):
        with pytest.raises(ApiError):
            calls.taken(call, 200, content, {})
    with pytest.raises(ApiError, match="no answer that this client knows"):
        calls.taken(calls.models(), 200, b"{}", {})


def test_paths_are_quoted_and_queries_left_out_where_nothing_is_wanted() -> None:
    assert calls.run("a/b ?").path == "/runs/a%2Fb%20%3F"
    assert calls.query({"a": None}) == ""
    assert calls.query({"state": ["failed", "denied"], "a": None}) == "?state=failed%2Cdenied"
    assert calls.artifact_path("/artifacts/x") == calls.artifact_path("x") == "/artifacts/x"


@given(
    st.lists(
        st.builds(
            Event,
            st.from_regex(r"[a-z]{1,8}", fullmatch=True).filter(lambda name: name != "message"),
            st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3),
            st.none() | st.integers(1, 10**12),
        ),
        max_size=6,
    )
)
def test_events_are_read_as_they_were_written(sent: list[Event]) -> None:
    """Whatever stands in their data, comments and heartbeats between them."""
    lines = [": hello", ""]
    for event in sent:
        lines += [f"id: {event.id}"] if event.id is not None else []
        lines += [f"event: {event.name}", f"data: {json.dumps(event.data)}", "", ": still there", ""]
    reader = EventReader()
    assert [found for line in lines if (found := reader.take(line)) is not None] == sent
    with_ids = [event.id for event in sent if event.id is not None]
    assert reader.last_id == (with_ids[-1] if with_ids else None)
    assert list(events(lines)) == sent
