"""Functions of the caller's: called where that is demanded or a message names one, whole and streamed; then quoted."""

import json
from typing import Any

import httpx
import pytest

from tests.simulator.conftest import asking, said

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}


def called(body: Any) -> Any:
    (choice,) = body["choices"]
    return choice["message"].get("tool_calls")


@pytest.mark.parametrize(
    ("text", "choice", "calls"),
    [
        ("What is the weather in Oslo?", None, True),
        ("Use get_weather", "auto", True),
        ("Hello", None, False),
        ("Hello", "required", True),
        ("Hello", {"type": "function", "function": {"name": "get_weather"}}, True),
        ("What is the weather in Oslo?", "none", False),
    ],
)
async def test_when_it_is_called(http: httpx.AsyncClient, text: str, choice: Any, calls: bool) -> None:
    chosen = {} if choice is None else {"tool_choice": choice}
    body = (await http.post("/chat/completions", json=asking(text, tools=[TOOL], **chosen))).json()
    found = called(body)
    assert bool(found) is calls
    assert body["choices"][0]["finish_reason"] == ("tool_calls" if calls else "stop")
    if calls:
        assert found[0]["function"]["name"] == "get_weather"
        assert json.loads(found[0]["function"]["arguments"]).keys() == {"city"}


async def test_a_stream_brings_the_arguments_in_pieces(http: httpx.AsyncClient) -> None:
    answer = await http.post("/chat/completions", json=asking("The weather?", tools=[TOOL], stream=True))
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    deltas = [one["delta"] for line in lines for one in json.loads(line)["choices"]]
    pieces = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert pieces[0]["function"]["name"] == "get_weather"
    assert json.loads("".join(piece["function"]["arguments"] for piece in pieces)).keys() == {"city"}


async def test_with_its_result_there_it_answers(http: httpx.AsyncClient) -> None:
    body = asking("The weather?", tools=[TOOL])
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    body["messages"] += [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "seven degrees"},
    ]
    assert "seven degrees" in said(await http.post("/chat/completions", json=body))
