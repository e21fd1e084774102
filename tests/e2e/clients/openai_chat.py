"""OpenAI's Python client, chat completions: `python openai_chat.py <base url>`. Fails where something is wrong."""

import json
import sys

import openai
from openai import OpenAI
from pydantic import BaseModel

BASE_URL = sys.argv[1]
client = OpenAI(base_url=BASE_URL, api_key="unused")
H = "Research three electric bikes, compare them, then write a marketing campaign with an email and a landing page"
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def told(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def models() -> None:
    names = [model.id for model in client.models.list()]
    assert {"segue-auto", "medium_ai", "template/research_report"} <= set(names), names
    assert client.models.retrieve("template/research_report").owned_by == "segue"


def whole() -> None:
    history = [
        {"role": "system", "content": "Be kind."},
        *told("My dog is called Wilhelmina."),
        {"role": "assistant", "content": "A fine name."},
        *told("What did I tell you?"),
    ]
    for model in ("segue-auto", "medium_ai"):
        answer = client.chat.completions.with_raw_response.create(model=model, messages=history, temperature=0.2)
        assert answer.headers["x-segue-simulated"] == "true"
        body = answer.parse()
        text = body.choices[0].message.content
        assert "Wilhelmina" in text, text
        assert body.choices[0].finish_reason == "stop"
        assert body.usage.total_tokens == body.usage.prompt_tokens + body.usage.completion_tokens > 0
        assert body.segue["simulated"] is True
        assert body.segue["calls"] == (2 if model == "segue-auto" else 1), "a role is asked without the categorizer"


def streamed() -> None:
    chunks = list(client.chat.completions.create(model="medium_ai", messages=told("Hello there"), stream=True))
    assert all(chunk.choices for chunk in chunks), "no usage chunk that nobody asked for"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).startswith("[simulated]")
    assert chunks[-1].choices[0].finish_reason == "stop"
    options = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(model="segue-auto", messages=told(H), stream=True, stream_options=options)
    )
    assert not chunks[-1].choices
    assert chunks[-1].usage.total_tokens > 0
    thoughts = [getattr(chunk.choices[0].delta, "reasoning_content", None) or "" for chunk in chunks[:-1]]
    assert "Category H" in "".join(thoughts)
    assert "landing_page: done by" in "".join(thoughts)
    with client.chat.completions.stream(model="medium_ai", messages=told("Hello there")) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].message.content.startswith("[simulated]")


def tools() -> None:
    for streams in (False, True):
        for model in ("medium_ai", "segue-auto"):
            asked = {"model": model, "messages": told("What is the weather in Oslo?"), "tools": [TOOL]}
            if streams:
                with client.chat.completions.stream(**asked) as stream:
                    for _ in stream:
                        pass
                    choice = stream.get_final_completion().choices[0]
            else:
                choice = client.chat.completions.create(**asked).choices[0]
            assert choice.finish_reason == "tool_calls"
            (call,) = choice.message.tool_calls
            assert (call.function.name, json.loads(call.function.arguments).keys()) == ("get_weather", {"city"})
            result = {"role": "tool", "tool_call_id": call.id, "content": "seven degrees"}
            again = [*asked["messages"], choice.message.model_dump(exclude_none=True), result]
            answer = client.chat.completions.create(model=model, messages=again, tools=[TOOL])
            assert "seven degrees" in answer.choices[0].message.content
    forced = {"type": "function", "function": {"name": "get_weather"}}
    answer = client.chat.completions.create(model="medium_ai", messages=told("Hi"), tools=[TOOL], tool_choice=forced)
    assert answer.choices[0].message.tool_calls
    answer = client.chat.completions.create(
        model="medium_ai", messages=told("weather"), tools=[TOOL], tool_choice="none"
    )
    assert not answer.choices[0].message.tool_calls


class City(BaseModel):
    name: str
    people: int


def structured() -> None:
    for model in ("medium_ai", "segue-auto"):
        answer = client.chat.completions.parse(model=model, messages=told("Which city is it?"), response_format=City)
        assert isinstance(answer.choices[0].message.parsed, City)
    wanted = {"type": "json_object"}
    answer = client.chat.completions.create(model="medium_ai", messages=told("As JSON"), response_format=wanted)
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


def parameters() -> None:
    """What a provider takes goes along; a length that is reached is said."""
    answer = client.chat.completions.create(
        model="medium_ai",
        messages=told("Hello there, how are you today?"),
        max_completion_tokens=5,
        stop=["never"],
        seed=7,
        presence_penalty=0.1,
        frequency_penalty=0.1,
        top_p=0.9,
        user="somebody",
        metadata={"a": "b"},
    )
    assert answer.choices[0].finish_reason == "length"


def images() -> None:
    picture = "data:image/png;base64,iVBORw0KGgo="
    parts = [{"type": "text", "text": "What is on it?"}, {"type": "image_url", "image_url": {"url": picture}}]
    answer = client.chat.completions.create(model="segue-auto", messages=[{"role": "user", "content": parts}])
    assert "I see 1 image" in answer.choices[0].message.content
    assert answer.segue["role"].startswith("image")


def templates() -> None:
    answer = client.chat.completions.create(
        model="template/research_report", messages=told("tidal power"), metadata={"audience": "sailors"}
    )
    assert "tidal power" in answer.choices[0].message.content
    assert answer.segue["result"]["audience"] == "sailors"
    chunks = list(client.chat.completions.create(model="template/research_report", messages=told("tides"), stream=True))
    assert any(chunk.choices[0].delta.content for chunk in chunks)


def raises(kind: type[openai.APIStatusError], text: str = "Hi", **more: object) -> openai.APIStatusError:
    try:
        client.chat.completions.create(**{"model": "medium_ai", "messages": told(text), **more})
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def errors() -> None:
    assert raises(openai.NotFoundError, model="gpt-9").code == "model_not_found"
    assert raises(openai.BadRequestError, n=2).param == "n"
    assert raises(openai.BadRequestError, "this is always refused").code == "invalid_request"
    error = raises(openai.InternalServerError, "this is always forbidden")
    assert error.status_code == 502
    assert error.response.headers["x-should-retry"] == "false"
    try:
        list(client.chat.completions.create(model="medium_ai", messages=told("this is always filtered"), stream=True))
    except openai.APIError as error:
        assert error.body["code"] == "content_filter", error.body
    else:
        raise AssertionError("a stream that failed looked like a clean end")


def once() -> None:
    key = {"Idempotency-Key": "from the client"}
    answers = [
        client.chat.completions.create(model="medium_ai", messages=told("Once"), extra_headers=key) for _ in range(2)
    ]
    assert answers[0].id == answers[1].id


def embeddings() -> None:
    """The client asks for packed vectors unless told otherwise."""
    for more in ({}, {"encoding_format": "float"}):
        answer = client.embeddings.create(model="fast_ai", input=["one", "two"], dimensions=16, **more)
        assert [len(one.embedding) for one in answer.data] == [16, 16]
        assert answer.usage.total_tokens > 0


for check in (models, whole, streamed, tools, structured, parameters, images, templates, errors, once, embeddings):
    check()
    print(f"{check.__name__}: as it should be")
