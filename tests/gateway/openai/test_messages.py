"""What OpenAI's messages and input items are to us, and what is wrong with those that are none."""

from typing import Any

import pytest

from services.gateway.http.openai.bodies import ChatCompletionBody, ResponsesBody
from services.gateway.http.openai.messages import Wrong, of_chat, of_input, question
from shared.contracts.message import ChatMessage, ToolCall

IMAGE = "data:image/png;base64,AAAA"
USER = {"role": "user", "content": "Hi"}


def test_every_role_is_known() -> None:
    """`developer` is what `system` was; the rest keep their names."""
    roles = ["system", "developer", "user", "assistant"]
    assert [one.role for one in of_chat([{"role": role, "content": "x"} for role in roles])] == [
        "system",
        "system",
        "user",
        "assistant",
    ]


def test_parts_of_text_are_one_text() -> None:
    (message,) = of_chat([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}])
    assert message.content == "a\nb"


@pytest.mark.parametrize("image", [{"url": IMAGE, "detail": "low"}, IMAGE])
def test_images_stay_parts(image: Any) -> None:
    (message,) = of_chat(
        [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": image}]}]
    )
    assert question((message,)) == ("a", (IMAGE,))
    assert isinstance(message.content, list)
    assert message.content[1]["type"] == "image_url"


def test_tool_calls_and_their_results_keep_their_ids() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
    told = of_chat(
        [
            USER,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "seen"},
        ]
    )
    assert told[1].tool_calls == (ToolCall(id="c1", name="look", arguments='{"at": 1}'),)
    assert (told[2].role, told[2].tool_call_id, told[2].content) == ("tool", "c1", "seen")


@pytest.mark.parametrize(
    ("message", "path"),
    [
        ({"role": "bard", "content": "x"}, "$.messages[1].role"),
        ({"role": "user", "content": 7}, "$.messages[1].content"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "$.messages[1].content[0]"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///x"}}]},
            "$.messages[1].content[0]",
        ),
        ({"role": "tool", "content": "x"}, "$.messages[1].tool_call_id"),
        ({"role": "assistant", "tool_calls": [{"id": "x"}]}, "$.messages[1].tool_calls[0]"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_place(message: dict[str, Any], path: str) -> None:
    with pytest.raises(Wrong) as wrong:
        of_chat([USER, message])
    assert wrong.value.problem.path == path


def test_an_input_is_a_text_or_items() -> None:
    """Calls that follow each other are one message's, reasoning is left out, a result goes to its call."""
    assert of_input("Hi") == (ChatMessage(role="user", content="Hi"),)
    told = of_input(
        [
            {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
            {"type": "reasoning", "summary": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look"}]},
            {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"},
            {"type": "function_call", "call_id": "b", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "a", "output": [{"type": "input_text", "text": "seen"}]},
        ]
    )
    assert [one.role for one in told] == ["user", "assistant", "tool"]
    assert [one.id for one in told[1].tool_calls or ()] == ["a", "b"]
    assert told[2].content == "seen"


def test_an_item_of_another_kind_is_refused() -> None:
    with pytest.raises(Wrong) as wrong:
        of_input([{"type": "item_reference", "id": "x"}])
    assert wrong.value.problem.path == "$.input[0].type"


def test_nothing_asked_is_refused() -> None:
    with pytest.raises(Wrong, match="say what you want to know"):
        question(of_chat([{"role": "user", "content": " "}]))


def test_a_chat_requests_parameters_are_read() -> None:
    body = ChatCompletionBody.model_validate(
        {
            "model": "m",
            "messages": [USER],
            "stop": "END",
            "max_tokens": 5,
            "max_completion_tokens": 9,
            "seed": 3,
            "response_format": {"type": "text"},
            "reasoning_effort": "low",
            "models": ["another/model"],
            "logprobs": False,
        }
    )
    wanted = body.parameters()
    assert (wanted.stop, wanted.max_tokens, wanted.seed) == (("END",), 9, 3)
    assert wanted.response_format is None
    assert wanted.extra == {"reasoning_effort": "low"}, "what names other models would go around our prices"
    assert not body.problems()


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({"n": 2}, "$.n"),
        ({"functions": [{}]}, "$.functions"),
        ({"tools": [{"type": "web_search"}]}, "$.tools[0]"),
        ({"response_format": {"type": "grammar"}}, "$.response_format.type"),
    ],
)
def test_what_we_cannot_do_is_refused(more: dict[str, Any], path: str) -> None:
    body = ChatCompletionBody.model_validate({"model": "m", "messages": [USER], **more})
    assert [one.path for one in body.problems()] == [path]


def test_a_responses_requests_parameters_are_those_of_chat() -> None:
    body = ResponsesBody.model_validate(
        {
            "model": "m",
            "input": "Hi",
            "max_output_tokens": 7,
            "reasoning": {"effort": "high", "summary": "auto"},
            "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}},
            "tools": [{"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": None}],
            "tool_choice": {"type": "function", "name": "look"},
        }
    )
    wanted = body.parameters()
    assert wanted.max_tokens == 7
    assert wanted.extra == {"reasoning_effort": "high"}
    assert wanted.response_format == {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
    }
    assert wanted.tools == ({"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}},)
    assert wanted.tool_choice == {"type": "function", "function": {"name": "look"}}
    assert not body.problems()


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({"tools": [{"type": "web_search_preview"}]}, "$.tools[0]"),
        ({"background": True, "store": False}, "$.store"),
        ({"conversation": "conv_1"}, "$.conversation"),
        ({"input": ""}, "$.input"),
    ],
)
def test_what_responses_cannot_do_is_refused(more: dict[str, Any], path: str) -> None:
    body = ResponsesBody.model_validate({"model": "m", "input": "Hi", **more})
    assert [one.path for one in body.problems()] == [path]
