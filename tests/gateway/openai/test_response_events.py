"""A response's events tell the same story to whoever asks, from the beginning or from any place in it."""

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json

from services.gateway.http.openai.failures import of_detail
from services.gateway.http.openai.response_events import ResponseEvents
from shared.contracts.events import RunEnded
from shared.contracts.message import ToolCall
from tests.gateway.openai.asked import asked, categorized, done, ended, failed

WHOLE = "Hello there, whoever you are"
CALLS = (ToolCall(id="c1", name="look", arguments='{"at": 1}'),)


def story(after: int = -1, cuts: tuple[int, ...] = (), end: RunEnded | None = None) -> list[dict[str, Any]]:
    """Return the events of one run, its text heard in pieces cut at some places; a reader has those up to `after`."""
    events = ResponseEvents(asked(), after)
    stream = events.opened() + events.step(categorized("H")) + events.step(done("0-0")) + events.answering()
    places = [0, *cuts, len(WHOLE)] if cuts else []
    for start, stop in itertools.pairwise(places):
        stream += events.token(1, start, WHOLE[start:stop])
    stream += events.ended(end or ended(WHOLE))
    pairs = [one.split(b"\n") for one in stream.split(b"\n\n") if one]
    read = [from_json(data.removeprefix(b"data: ")) for _, data in pairs]
    assert [name.removeprefix(b"event: ").decode() for name, _ in pairs] == [one["type"] for one in read]
    return read


def text_in(events: list[dict[str, Any]]) -> str:
    return "".join(one["delta"] for one in events if one["type"] == "response.output_text.delta")


CUTS = st.lists(st.integers(1, len(WHOLE) - 1), max_size=4, unique=True).map(sorted).map(tuple)


@given(cuts=CUTS)
def test_the_story_is_whole_and_its_numbers_rise(cuts: tuple[int, ...]) -> None:
    told = story(cuts=cuts)
    numbers = [one["sequence_number"] for one in told]
    assert numbers == sorted(set(numbers))
    assert text_in(told) == WHOLE
    kinds = [one["type"] for one in told]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    output = told[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["reasoning", "message"]
    assert output[1]["content"][0]["text"] == WHOLE
    assert told[-1]["response"]["status"] == "completed"


@given(first=CUTS, second=CUTS, place=st.integers(0, 40))
def test_a_reader_goes_on_where_he_was(first: tuple[int, ...], second: tuple[int, ...], place: int) -> None:
    """Whatever he had, and however the text is cut for him now: together it is the story, each event once."""
    live = story(cuts=first)
    had = live[: min(place, len(live))]
    last = had[-1]["sequence_number"] if had else -1
    then = story(after=last, cuts=second)
    assert all(one["sequence_number"] > last for one in then)
    assert text_in(had) + text_in(then) == WHOLE
    plain = [one for one in live if one["type"] != "response.output_text.delta"]
    together = [one for one in [*had, *then] if one["type"] != "response.output_text.delta"]
    assert together == plain


def test_calls_follow_the_text() -> None:
    told = story(end=ended("", tool_calls=CALLS))
    kinds = [one["type"] for one in told if one["sequence_number"] > 11]
    assert kinds == [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    item = told[-1]["response"]["output"][-1]
    assert (item["type"], item["call_id"], item["arguments"]) == ("function_call", "c1", '{"at": 1}')


def test_what_was_cut_short_is_incomplete() -> None:
    last = story(end=ended(WHOLE, finish_reason="length"))[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


def test_a_run_that_failed_is_a_response_that_failed() -> None:
    """Wherever its text had come to, the failure is behind it."""
    events = ResponseEvents(asked())
    stream = events.opened() + events.answering() + events.token(1, 0, "Hello") + events.ended(failed("stream_cut"))
    last = from_json(stream.split(b"\n\n")[-2].split(b"\n")[1].removeprefix(b"data: "))
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert last["response"]["error"]["code"] == "stream_cut"
    late = ResponseEvents(asked(), after=50)
    assert late.ended(failed("stream_cut")), "a reader who had all of the text is told too"


def test_an_error_of_ours_has_the_last_number_again() -> None:
    """The run goes on: a reader who comes back behind it misses nothing."""
    events = ResponseEvents(asked())
    events.opened()
    events.answering()
    told = events.token(1, 0, "Hello") + events.failed(of_detail(503, "this gateway stops", "r1"))
    *_, delta, error = [from_json(one.split(b"\n")[1].removeprefix(b"data: ")) for one in told.split(b"\n\n") if one]
    assert (delta["type"], error["type"]) == ("response.output_text.delta", "error")
    assert error["sequence_number"] == delta["sequence_number"]
    assert error["message"] == "this gateway stops"
