"""What a caller says himself (parameters, functions, calls, results) reaches the model, and its calls come back."""

import json
from typing import Any

import pytest
from pydantic_core import to_json

from services.executor.caching import kept, key_of
from services.executor.pricing import most_tokens
from services.executor.providers import Answered, Asked
from services.executor.providers.google_wire import ContentReader, content_fields
from services.executor.providers.openai_wire import StreamReader, read_completion, request_fields, trimmed
from shared.contracts.conversation import Parameters
from shared.contracts.events import CallSettled
from shared.contracts.message import ChatMessage, ToolCall
from tests.executor.conftest import Begin, call, route
from tests.executor.standin import answer, refuse

TOOL: dict[str, Any] = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
SAID = Parameters(
    temperature=0.1,
    stop=("END",),
    seed=7,
    presence_penalty=0.5,
    tools=(TOOL,),
    tool_choice={"type": "function", "function": {"name": "look"}},
    response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    extra={"top_k": 3, "seed": 1},
)
LOOP = (
    ChatMessage(role="system", content="Be kind"),
    ChatMessage(role="user", content="Before"),
    ChatMessage(role="assistant", content="Yes"),
    ChatMessage(role="user", content="Look"),
    ChatMessage(role="assistant", content="", tool_calls=(ToolCall(id="c1", name="look", arguments='{"at": 1}'),)),
    ChatMessage(role="tool", content="seen", tool_call_id="c1"),
)


def sent(**fields: Any) -> dict[str, Any]:
    """Return what goes over the wire for a call."""
    asked = Asked(call(**fields), 1)
    said = request_fields(asked, "m", {"temperature": 0.9, "max_tokens": 50}, stream=False, omit={})
    body: dict[str, Any] = json.loads(to_json(said, exclude_none=True))
    return body


def test_parameters_are_sent_over_the_roles() -> None:
    body = sent(parameters=SAID, temperature=0.1)
    assert (body["temperature"], body["max_tokens"], body["stop"], body["seed"]) == (0.1, 50, ["END"], 7)
    assert (body["top_k"], body["tools"], body["tool_choice"]) == (3, [TOOL], SAID.tool_choice)
    assert body["response_format"] == SAID.response_format
    assert "extra" not in body


def test_without_tools_nothing_is_said_of_them() -> None:
    """Servers refuse the one without the other."""
    body = sent(parameters=Parameters(tool_choice="auto", parallel_tool_calls=True))
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & body.keys()


def test_calls_and_results_are_sent_in_openais_shape() -> None:
    messages = sent(messages=LOOP)["messages"]
    assert messages[0] == {"role": "system", "content": "Be kind"}
    function = {"name": "look", "arguments": '{"at": 1}'}
    assert messages[4]["tool_calls"] == [{"id": "c1", "type": "function", "function": function}]
    assert messages[5] == {"role": "tool", "content": "seen", "tool_call_id": "c1"}


def test_a_trimmed_session_keeps_a_question_with_its_calls() -> None:
    assert trimmed(LOOP, 5) == (LOOP[0], *LOOP[3:])


def test_a_whole_answer_with_calls() -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}]
    choice = {"message": {"role": "assistant", "content": None, "tool_calls": calls}, "finish_reason": "tool_calls"}
    found = read_completion(json.dumps({"choices": [choice]}).encode(), 0.0)
    assert isinstance(found, Answered)
    assert (found.text, found.finish_reason) == ("", "tool_calls")
    assert found.tool_calls == (ToolCall(id="c1", name="look", arguments='{"at": 1}'),)


@pytest.mark.parametrize("indexed", [True, False])
def test_calls_come_in_pieces(indexed: bool) -> None:
    """By their index; servers that leave it out send one at a time."""
    reader = StreamReader()
    for function in ({"name": "look", "arguments": ""}, {"arguments": '{"at"'}, {"arguments": ": 1}"}):
        piece = {
            "function": function,
            **({"index": 0} if indexed else {}),
            **({"id": "c1"} if "name" in function else {}),
        }
        reader.take(json.dumps({"choices": [{"delta": {"tool_calls": [piece]}}]}).encode(), 0.0)
    reader.take(b'{"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}', 0.0)
    reader.take(b"[DONE]", 0.0)
    found = reader.conclude()
    assert isinstance(found, Answered)
    assert found.tool_calls == (ToolCall(id="c1", name="look", arguments='{"at": 1}'),)


@pytest.mark.parametrize(
    "pieces", [None, 7, [None], [{}], [{"function": 3}], [{"index": "x", "function": {"name": 1}}]]
)
def test_calls_that_are_none_are_no_calls(pieces: Any) -> None:
    reader = StreamReader()
    reader.take(json.dumps({"choices": [{"delta": {"content": "text", "tool_calls": pieces}}]}).encode(), 0.0)
    reader.take(b"[DONE]", 0.0)
    found = reader.conclude()
    assert isinstance(found, Answered)
    assert found.tool_calls == ()


def test_everything_that_is_said_makes_another_call_of_it() -> None:
    """The cache's key has every parameter; an answer that calls functions is not kept."""
    asked = ("p", "u", "m")
    plain = key_of(call(), asked, {})
    seen = {plain}
    for said in (
        Parameters(stop=("a",)),
        Parameters(seed=1),
        Parameters(tools=(TOOL,)),
        Parameters(response_format={"type": "json_object"}),
        Parameters(extra={"top_k": 1}),
    ):
        seen.add(key_of(call(parameters=said), asked, {}))
    seen.add(key_of(call(messages=LOOP), asked, {}))
    changed = LOOP[4].model_copy(update={"tool_calls": None})
    seen.add(key_of(call(messages=(*LOOP[:4], changed, LOOP[5])), asked, {}))
    assert len(seen) == 8
    command = call()
    fact = CallSettled(
        run=command.run,
        call=command.call,
        purpose=command.purpose,
        outcome="answered",
        text="I look",
        tool_calls=LOOP[4].tool_calls,
        role="r",
        asked_role="r",
    )
    assert kept(fact, command.run.born_at) is None


def test_functions_count_among_what_is_told() -> None:
    assert (
        most_tokens(call(parameters=SAID), route("m", "http://x"))[0] > most_tokens(call(), route("m", "http://x"))[0]
    )


def test_google_is_told_in_its_own_words() -> None:
    body = content_fields(Asked(call(messages=LOOP, parameters=SAID), 1), {}, images=False)
    config = body["generationConfig"]
    assert (config["stopSequences"], config["seed"], config["presencePenalty"]) == (["END"], 7, 0.5)
    assert (config["responseMimeType"], config["responseJsonSchema"]) == ("application/json", {"type": "object"})
    assert body["tools"] == [{"functionDeclarations": [{"name": "look", "parametersJsonSchema": {"type": "object"}}]}]
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["look"]}}
    assert body["contents"][-2:] == [
        {"role": "model", "parts": [{"functionCall": {"name": "look", "args": {"at": 1}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "look", "response": {"result": "seen"}}}]},
    ]


def test_googles_calls_come_back() -> None:
    reader = ContentReader()
    parts = [{"functionCall": {"name": "look", "args": {"at": 1}}}]
    candidate = {"content": {"parts": parts}, "finishReason": "STOP"}
    reader.take(json.dumps({"candidates": [candidate]}).encode(), 0.0)
    found = reader.conclude()
    assert isinstance(found, Answered)
    assert found.tool_calls == (ToolCall(id="call_0", name="look", arguments='{"at":1}'),)
    assert found.finish_reason == "tool_calls"


async def test_a_server_that_does_not_know_functions_is_not_asked_without_them(begin: Begin) -> None:
    """An answer that ignores what the caller demands is not what he asked for: the refusal is the answer."""
    world = await begin(roles=["medium_ai"])
    world.provider.then(refuse(400, "unknown field: tools"), answer("never said"))
    settled = await world.do(call(parameters=Parameters(tools=(TOOL,))))
    assert settled.outcome == "failed"
    assert settled.fault is not None
    assert "tools" in settled.fault.message
    assert len(world.provider.seen) == 1
