"""What bytes mean: events however they are cut, answers, streams, requests. No network."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.executor.providers import Answered, Asked, Failed
from services.executor.providers.failures import without
from services.executor.providers.openai_wire import StreamReader, read_completion, request_fields, trimmed, usage_of
from services.executor.providers.refusals import of_the_schema, refused_parameter
from services.executor.providers.sse import SseReader, TooLong
from shared.contracts.message import ChatMessage
from tests.executor.conftest import call
from tests.executor.standin import DONE, USAGE, completion, delta, event

NOW_S = 1_790_000_000.0


# Server-sent events

lines = st.sampled_from(
    [b"data: one", b"data:two", b"data: ", b"data", b": ping", b"event: x", b"id: 7", b"retry: 10", b"", b"",
     "data: grün 漢字 🎈".encode(), b"data:  two spaces", b"nonsense", b"data: [DONE]"]
)  # fmt: skip


def cut(data: bytes, at: list[int]) -> list[bytes]:
    """Cut at some places; empty pieces are fine."""
    places = sorted({min(place, len(data)) for place in at})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def read(pieces: list[bytes]) -> list[bytes]:
    reader = SseReader()
    return [found for piece in pieces for found in reader.feed(piece)]


@given(
    st.lists(lines, max_size=30),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.booleans(),
    st.lists(st.integers(0, 600), max_size=40),
)
def test_any_chunking_gives_the_same_events(content: list[bytes], newline: bytes, mark: bool, at: list[int]) -> None:
    """Whole, cut anywhere, byte by byte; with each of the three line ends, with and without a byte order mark."""
    data = (b"\xef\xbb\xbf" if mark else b"") + newline.join([*content, b"", b""])
    expected, gathered = [], list[bytes]()
    for line in [*content, b""]:
        if not line and gathered:
            expected.append(b"\n".join(gathered))
            gathered = []
        elif line.startswith(b"data:"):
            gathered.append(line[5:].removeprefix(b" "))
    assert read([data]) == expected
    assert read(cut(data, at)) == expected
    assert read([data[i : i + 1] for i in range(len(data))]) == expected


def test_an_event_that_is_not_ended_is_not_an_event() -> None:
    """A cut in the middle of an event loses it, as the standard says."""
    assert read([b"data: one\n\ndata: tw"]) == [b"one"]
    assert read([b"data: one\n\ndata: two\n"]) == [b"one"]


@pytest.mark.parametrize("data", [b"data: " + b"x" * 200, b"data: 12345678\n" * 20])
def test_an_endless_event_is_refused(data: bytes) -> None:
    """One line, or many lines, over the limit."""
    reader = SseReader(limit=100)
    with pytest.raises(TooLong):
        [reader.feed(piece) for piece in cut(data, [50, 100, 150])]


# Answers in one piece


def completed(body: object) -> Answered | Failed:
    return read_completion(body if isinstance(body, bytes) else json.dumps(body).encode(), NOW_S)


def test_an_answer_with_everything() -> None:
    """Text, reason, model, tokens with their details, cost."""
    body = completion("hi")
    body["usage"] |= {
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    answer = completed(body)
    assert isinstance(answer, Answered)
    assert (answer.text, answer.finish_reason, answer.model, answer.cost_usd) == ("hi", "stop", "served/model", 0.001)
    assert (answer.usage.cached_tokens, answer.usage.reasoning_tokens) == (3, 2)


def test_a_server_that_leaves_out_what_it_can() -> None:
    """No usage, no model, no reason, content in parts: the text is the answer, the cost is unknown."""
    parts = [{"type": "text", "text": "he"}, {"type": "image"}, {"type": "text", "text": "y"}]
    answer = completed(b"  \n\n" + json.dumps({"choices": [{"message": {"content": parts}}]}).encode())
    assert answer == Answered("hey")
    bare = {"choices": [{"message": {"content": "x"}, "finish_reason": "eos_token"}], "usage": None}
    assert completed(bare) == Answered("x", "eos_token")


@pytest.mark.parametrize(
    ("body", "code", "cost"),
    [
        (completion(""), "empty_answer", 0.001),
        (completion(None), "empty_answer", 0.001),
        (completion(" \n"), "empty_answer", 0.001),
        (completion("", finish_reason="length"), "nothing_said", 0.001),
        (completion("half", finish_reason="content_filter"), "safety_filter", 0.001),
        (completion("half", finish_reason="error"), "provider_error", 0.001),
        (completion(message={"content": None, "refusal": "I can't"}), "refusal", 0.001),
        (completion(error={"code": 502, "message": "upstream"}), "provider_unavailable", 0.001),
        ({"error": {"code": 429, "message": "later"}}, "rate_limited", 0.0),
        ({"error": "words"}, "provider_error", 0.0),
        ({"choices": []}, "malformed_answer", None),
        ({"choices": [{"text": "legacy"}]}, "malformed_answer", None),
        ({"choices": "none"}, "malformed_answer", None),
        ({}, "malformed_answer", None),
        ([], "malformed_answer", None),
        (b"", "malformed_answer", None),
        (b"<html>", "malformed_answer", None),
        (b'{"choices": [{"mess', "malformed_answer", None),
        (b"[" * 100_000, "malformed_answer", None),
        (b'"\xff\xfe"', "malformed_answer", None),
    ],
)
def test_answers_that_are_none(body: object, code: str, cost: float | None) -> None:
    """Each is a failure of its own kind; what the provider says it cost is kept, what it does not say is unknown."""
    failed = completed(body)
    assert isinstance(failed, Failed)
    assert (failed.verdict.code, failed.cost_usd) == (code, cost)
    assert failed.message


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["choices", "message", "content", "usage", "error", "code", "cost", "delta",
                                         "metadata", "error_type", "finish_reason", "prompt_tokens", "availability",
                                         "details", "retry_after", "prompt_tokens_details", "refusal", "model"]),
                        inner, max_size=5), max_leaves=25))  # fmt: skip
def test_no_json_breaks_the_reader(body: Any) -> None:
    """Whatever types stand where: an answer or a failure comes out, never an exception."""
    assert isinstance(completed(body), Answered | Failed)
    stream = StreamReader()
    stream.take(json.dumps(body).encode(), NOW_S)
    assert isinstance(stream.conclude(), Answered | Failed)


@pytest.mark.parametrize("cost", [None, "0.1", -1, float("nan"), float("inf"), True, 1e300, 10**400])
def test_a_cost_that_is_no_amount_is_unknown(cost: object) -> None:
    """Never zero, never negative."""
    usage, known = usage_of({"prompt_tokens": -3, "completion_tokens": "many", "total_tokens": cost, "cost": cost})
    assert known is None
    assert usage.total_tokens == 0


# Streams


def streamed(data: bytes, at: list[int] | None = None) -> tuple[StreamReader, str]:
    reader, stream, text = SseReader(), StreamReader(), ""
    for piece in cut(data, at or []):
        for found in reader.feed(piece):
            if not (stream.done or stream.failed):
                text += stream.take(found, NOW_S)
    return stream, text


@given(st.lists(st.text(max_size=12), max_size=12), st.lists(st.integers(0, 3000), max_size=30))
def test_a_stream_is_its_texts_however_it_is_cut(texts: list[str], at: list[int]) -> None:
    """What was handed on piece by piece is the answer; tokens and cost come from the chunk without choices."""
    data = b": OPENROUTER PROCESSING\n\n" + b"".join(map(delta, texts)) + delta(finish_reason="stop") + USAGE + DONE
    stream, text = streamed(data, at)
    answer = stream.conclude()
    assert text == "".join(texts)
    if text.strip():
        assert isinstance(answer, Answered)
        assert (answer.text, answer.finish_reason, answer.cost_usd) == (text, "stop", 0.002)
        assert answer.usage.total_tokens == 15
    else:
        assert isinstance(answer, Failed)
        assert answer.verdict.code == "empty_answer"


ERROR = {"error": {"code": "server_error", "message": "oops", "metadata": {"error_type": "provider_overloaded"}}}


@pytest.mark.parametrize(
    ("data", "code", "cost", "text_sent"),
    [
        (delta("half an ans"), "stream_cut", None, True),
        (delta("all") + delta(finish_reason="stop") + USAGE, "stream_cut", 0.002, True),
        (b"", "stream_cut", None, False),
        (delta("half") + event({**ERROR, "choices": [{"delta": {"content": ""}, "finish_reason": "error"}]}) + DONE,
         "provider_overloaded", None, True),
        (event(ERROR), "provider_overloaded", 0.0, False),
        (USAGE + event(ERROR), "provider_overloaded", 0.002, False),
        (delta("half") + event({"choices": [{"delta": {}, "error": {"code": 502, "message": "m"}}]}),
         "provider_unavailable", None, True),
        (delta("a") + event(b"{not json"), "malformed_answer", None, True),
        (delta("a") + event([1]), "malformed_answer", None, True),
        (delta("a") + delta(finish_reason="content_filter") + USAGE + DONE, "safety_filter", 0.002, False),
        (delta(finish_reason="length") + USAGE + DONE, "nothing_said", 0.002, False),
        (event({"choices": [{"delta": {"refusal": "No."}}]}) + delta(finish_reason="stop") + USAGE + DONE,
         "refusal", 0.002, False),
    ],
)  # fmt: skip
def test_streams_that_do_not_end_well(data: bytes, code: str, cost: float | None, text_sent: bool) -> None:
    """Cut, an error in the middle in each of its shapes, garbage, filtered, refused: never a clean end."""
    failed = streamed(data)[0].conclude()
    assert isinstance(failed, Failed)
    assert (failed.verdict.code, failed.cost_usd, failed.text_sent) == (code, cost, text_sent)


# Requests


def fields(command: Any, stream: bool = False, halvings: int = 0, omit: dict[str, str] | None = None) -> dict[str, Any]:
    role = {"temperature": 0.5, "max_tokens": 1000, "top_k": 5, "seed": None}
    return request_fields(Asked(command, 1, halvings), "m", role, stream=stream, omit=omit or {})


def test_a_request_is_the_role_under_the_call() -> None:
    """The role's parameters, unknown ones too, without empty ones; the call's on top."""
    assert fields(call(temperature=0.0)) == {
        "model": "m", "messages": call().messages, "temperature": 0.0, "max_tokens": 1000, "top_k": 5,
    }  # fmt: skip


def test_a_schema_is_asked_for_strictly() -> None:
    schema = {"type": "object"}
    asked = fields(call(response_schema=schema, response_schema_name="plan"))["response_format"]
    assert asked == {"type": "json_schema", "json_schema": {"name": "plan", "strict": True, "schema": schema}}


def test_a_stream_asks_for_its_usage() -> None:
    assert fields(call(), stream=True)["stream_options"] == {"include_usage": True}


def test_what_a_server_refused_is_left_out_or_renamed_and_lengths_are_halved() -> None:
    sent = fields(call(), stream=True, halvings=2, omit={"max_tokens": "max_completion_tokens", "stream_options": ""})
    assert sent["max_completion_tokens"] == 250
    assert not sent.keys() & {"max_tokens", "stream_options"}


SENT = {
    "model": "m",
    "messages": [],
    "max_tokens": 5,
    "top_p": 1,
    "temperature": 1,
    "response_format": {},
    "stream": True,
}


@pytest.mark.parametrize(
    ("status", "message", "refused"),
    [
        (400, "response_format is not supported by this model", ("response_format", "")),
        (400, "Invalid schema for response_format 'plan': additionalProperties is required", ("response_format", "")),
        (422, "body.response_format: Extra inputs are not permitted", ("response_format", "")),
        (400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
         ("max_tokens", "max_completion_tokens")),
        (400, "Unknown parameter: top_p", ("top_p", "")),
        (400, "`temperature` does not support 0.3 with this model", ("temperature", "")),
        (400, "unsupported value (parameter temperature)", ("temperature", "")),
        (400, "max_tokens is too large: 99999", None),
        (400, "temperature must be at most 2", None),
        (400, "unknown model m", None),
        (400, "stream is not supported", None),
        (500, "response_format is not supported", None),
        (401, "unknown parameter top_p", None),
    ],
)  # fmt: skip
def test_which_parameter_was_refused(status: int, message: str, refused: tuple[str, str] | None) -> None:
    """Only what can be left out, only when the server says that it does not know it."""
    assert refused_parameter(status, message, SENT) == refused


def test_a_bad_schema_is_not_a_server_without_schemas() -> None:
    assert of_the_schema("Invalid schema for response_format 'plan'")
    assert not of_the_schema("response_format json_schema is not supported")


def test_a_key_that_is_quoted_back_is_taken_out() -> None:
    assert without("Incorrect API key provided: sk-abc", "sk-abc") == "Incorrect API key provided: ***"
    assert without("nothing here", None) == "nothing here"


@pytest.mark.parametrize(("trims", "kept"), [(0, "suauau"), (1, "suau"), (2, "su"), (3, "su"), (9, "su")])
def test_a_session_that_is_too_long_is_halved_from_its_old_end(trims: int, kept: str) -> None:
    """The prompt and the message stay whole; what is left of the session begins with a person's word."""
    roles = {"s": "system", "u": "user", "a": "assistant"}
    messages = [ChatMessage.model_validate({"role": roles[one], "content": f"{n}"}) for n, one in enumerate("suauau")]
    found = trimmed(messages, trims)
    assert "".join(one.role[0] for one in found) == kept
    assert (found[0], found[-1]) == (messages[0], messages[-1])
