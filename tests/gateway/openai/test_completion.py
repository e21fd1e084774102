"""What comes of a run as a chat completion: whole, in chunks, and when it fails on the way."""

from typing import Any

import pytest
from pydantic_core import from_json

from services.gateway.http.openai.completion import Chunks, completion
from services.gateway.http.openai.failures import of_detail
from shared.contracts.message import ToolCall
from tests.gateway.openai.asked import asked, categorized, ended, failed

CALLS = (ToolCall(id="c1", name="look", arguments="{}"),)


def events(stream: bytes) -> list[Any]:
    """Return what a stream's events say; `[DONE]` as it is."""
    lines = [line.removeprefix(b"data: ") for line in stream.split(b"\n\n") if line]
    return [line.decode() if line == b"[DONE]" else from_json(line) for line in lines]


def test_a_whole_completion() -> None:
    body = completion(asked(), ended())
    assert (body["object"], body["id"], body["model"]) == ("chat.completion", "chatcmpl-r1", "segue-auto")
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "Hello there", "refusal": None}
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["total_tokens"] == 7
    assert body["segue"]["cost_usd"] == 0.5
    assert body["system_fingerprint"] == "segue-1.2.3"


def test_a_simulated_one_says_so() -> None:
    spent = ended().spent.model_copy(update={"simulated": True})
    body = completion(asked(), ended(spent=spent))
    assert body["segue"]["simulated"] is True
    assert body["system_fingerprint"] == "segue-1.2.3-simulated"


@pytest.mark.parametrize(
    ("reason", "calls", "theirs"),
    [
        (None, None, "stop"),
        ("end_turn", None, "stop"),
        ("length", None, "length"),
        ("tool_calls", CALLS, "tool_calls"),
        ("stop", CALLS, "tool_calls"),
    ],
)
def test_the_finish_reason_is_one_of_openais(reason: str | None, calls: Any, theirs: str) -> None:
    assert completion(asked(), ended(finish_reason=reason, tool_calls=calls))["choices"][0]["finish_reason"] == theirs


def test_functions_to_be_called_come_with_no_content() -> None:
    message = completion(asked("code_ai"), ended("", tool_calls=CALLS))["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]


def test_a_stream_is_whole() -> None:
    """Every chunk has a delta; steps are reasoning; the pieces are the text; usage comes last, without choices."""
    chunks = Chunks(asked(), simulated=False, include_usage=True)
    stream = chunks.opened() + chunks.step(categorized()) + chunks.answering() + chunks.token(1, 0, "Hello ")
    *told, usage, done = events(stream + chunks.ended(ended()))
    assert done == "[DONE]"
    assert (usage["choices"], usage["usage"]["prompt_tokens"]) == ([], 3)
    deltas = [one["choices"][0]["delta"] for one in told]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "Category M" in deltas[1]["reasoning_content"]
    assert "".join(delta.get("content", "") for delta in deltas) == "Hello there"
    assert [one["choices"][0]["finish_reason"] for one in told] == [None] * 4 + ["stop"]
    assert {one["object"] for one in told} == {"chat.completion.chunk"}
    assert all(one["usage"] is None for one in told)


def test_without_include_usage_there_is_none() -> None:
    chunks = Chunks(asked(), simulated=False)
    assert all("usage" not in one for one in events(chunks.opened() + chunks.ended(ended()))[:-1])


def test_a_stream_brings_calls_with_their_index() -> None:
    told = events(Chunks(asked("code_ai"), simulated=False).ended(ended("", tool_calls=CALLS)))
    assert told[0]["choices"][0]["delta"]["tool_calls"][0]["index"] == 0
    assert told[1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("how", ["run", "ours", "another answer"])
def test_a_stream_that_fails_never_looks_like_a_clean_end(how: str) -> None:
    """The last event is an error: no finish reason before it, no [DONE] behind it."""
    chunks = Chunks(asked(), simulated=False)
    stream = chunks.opened() + chunks.token(1, 0, "Hello ")
    match how:
        case "run":
            stream += chunks.ended(failed("stream_cut"))
        case "ours":
            stream += chunks.failed(of_detail(503, "this gateway stops", "r1"))
        case _:
            stream += chunks.ended(ended("Goodbye"))
    *before, last = events(stream)
    assert last.keys() == {"error"}
    assert last["error"]["run_id"] == "r1"
    assert all(one["choices"][0]["finish_reason"] is None for one in before)
