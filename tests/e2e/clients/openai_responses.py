"""OpenAI's Python client, Responses: `python openai_responses.py <base url>`. Fails where something is wrong."""

import sys
import time
from typing import Any

import openai
from openai import OpenAI
from pydantic import BaseModel

client = OpenAI(base_url=sys.argv[1], api_key="unused")
H = "Research three electric bikes, compare them, then write a marketing campaign with an email and a landing page"
TOOL: Any = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


class City(BaseModel):
    name: str
    people: int


def whole() -> None:
    for model in ("segue-auto", "medium_ai"):
        answer = client.responses.create(model=model, input="What is the capital of France?", instructions="Be kind.")
        assert answer.status == "completed"
        assert "capital of France" in answer.output_text
        assert answer.usage.total_tokens > 0
        assert [item.type for item in answer.output] == (["reasoning"] if model == "segue-auto" else []) + ["message"]
    parsed = client.responses.parse(model="medium_ai", input="Which city?", text_format=City)
    assert isinstance(parsed.output_parsed, City)


def streamed() -> None:
    events = list(client.responses.create(model="segue-auto", input=H, stream=True))
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(set(numbers))
    assert events[0].type == "response.created"
    last = events[-1]
    assert last.type == "response.completed"
    assert "".join(one.delta for one in events if one.type == "response.output_text.delta") == last.response.output_text
    assert any(one.type == "response.reasoning_summary_text.delta" for one in events)
    for place in (0, len(events) // 2, len(events) - 2):
        after = numbers[place]
        rest = list(client.responses.retrieve(last.response.id, stream=True, starting_after=after))
        kinds = [one.type for one in rest if "output_text.delta" not in one.type]
        assert kinds == [one.type for one in events[place + 1 :] if "output_text.delta" not in one.type]
    with client.responses.stream(model="medium_ai", input="Hello there") as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text.startswith("[simulated]")


def until_done(response_id: str) -> Any:
    for _ in range(600):
        found = client.responses.retrieve(response_id)
        if found.status not in ("queued", "in_progress"):
            return found
        time.sleep(0.05)
    raise AssertionError(f"{response_id} is {found.status}")


def in_the_background() -> None:
    begun = client.responses.create(model="segue-auto", input=H, background=True)
    assert begun.status == "queued"
    done = until_done(begun.id)
    assert (done.status, done.background, done.model) == ("completed", True, "segue-auto")
    assert done.output_text
    slow = client.responses.create(model="medium_ai", input="this is answered slowly", background=True)
    cancelled = client.responses.cancel(slow.id)
    assert cancelled.status == "cancelled", cancelled.status
    assert client.responses.retrieve(slow.id).status == "cancelled"


def turns() -> None:
    first = client.responses.create(model="medium_ai", input="My dog is called Wilhelmina.")
    second = client.responses.create(
        model="medium_ai", input="What did I tell you?", previous_response_id=first.id, metadata={"a": "b"}
    )
    assert "Wilhelmina" in second.output_text
    assert (second.previous_response_id, second.metadata) == (first.id, {"a": "b"})
    assert [item.type for item in client.responses.input_items.list(second.id)] == ["message"] * 3
    by_hand: Any = [{"role": "user", "content": "My dog is called Wilhelmina."}, *first.output]
    third = client.responses.create(model="medium_ai", input=[*by_hand, {"role": "user", "content": "And?"}])
    assert "Wilhelmina" in third.output_text
    client.responses.delete(second.id)
    try:
        client.responses.retrieve(second.id)
    except openai.NotFoundError as error:
        assert error.code == "not_found"
    else:
        raise AssertionError("a deleted response was read")


def tools() -> None:
    asked = client.responses.create(model="medium_ai", input="What is the weather in Oslo?", tools=[TOOL])
    (call,) = (item for item in asked.output if item.type == "function_call")
    assert call.name == "get_weather"
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "seven degrees"}
    answer = client.responses.create(model="medium_ai", previous_response_id=asked.id, input=[result], tools=[TOOL])
    assert "seven degrees" in answer.output_text
    kinds = [
        event.type
        for event in client.responses.create(model="medium_ai", input="the weather", tools=[TOOL], stream=True)
    ]
    assert kinds[-3:] == ["response.function_call_arguments.done", "response.output_item.done", "response.completed"]


def errors() -> None:
    try:
        client.responses.create(model="medium_ai", input="Hi", tools=[{"type": "web_search_preview"}])
    except openai.BadRequestError as error:
        assert error.param == "tools[0]"
    else:
        raise AssertionError("a tool that we do not have was taken")
    *_, last = client.responses.create(model="medium_ai", input="this is always refused", stream=True)
    assert last.type == "response.failed"
    assert (last.response.status, last.response.error.code) == ("failed", "invalid_request")
    cut = client.responses.create(model="medium_ai", input="Hello there, how are you?", max_output_tokens=5)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")


for check in (whole, streamed, in_the_background, turns, tools, errors):
    check()
    print(f"{check.__name__}: as it should be")
