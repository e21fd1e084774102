"""Tools that are no plain functions: what a model is offered, and what its calls are to the caller."""

import json
from typing import Any

import pytest

from services.gateway.http.openai.bodies import ResponsesBody
from services.gateway.http.openai.functions import MOST_NAME, joined
from services.gateway.http.openai.messages import of_input
from services.gateway.http.openai.response import input_items, item_run, output_of
from services.gateway.http.openai.response_events import ResponseEvents
from shared.contracts.message import ToolCall
from tests.gateway.openai.asked import asked, ended

LOOK = {"type": "function", "name": "look", "description": "Look.", "parameters": {"type": "object"}, "strict": False}
PATCH = {
    "type": "custom",
    "name": "patch",
    "description": "Patch files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: LINE"},
}
CRM = {"type": "namespace", "name": "crm", "description": "Customers.", "tools": [{**LOOK, "name": "find"}, PATCH]}
TOOLS = [LOOK, PATCH, CRM]
CALLS = (
    ToolCall(id="a", name="look", arguments='{"at": 1}'),
    ToolCall(id="b", name="patch", arguments=json.dumps({"input": "+ line"})),
    ToolCall(id="c", name="crm__find", arguments="{}"),
    ToolCall(id="d", name="crm__patch", arguments="not as it was told"),
    ToolCall(id="e", name="unheard of", arguments="{}"),
)


def body(**said: Any) -> ResponsesBody:
    return ResponsesBody.model_validate({"model": "m", "input": "Hi", **said})


def test_a_model_is_offered_functions_only() -> None:
    """A custom tool's input is one text; of a namespace both names and, once, what it is about."""
    assert body(tools=TOOLS).problems() == ()
    offered = [one["function"] for one in body(tools=TOOLS).parameters().tools or ()]
    assert [one["name"] for one in offered] == ["look", "patch", "crm__find", "crm__patch"]  # type: ignore[call-overload,index]
    told = json.dumps(offered)
    assert told.count("Customers.") == 1
    assert told.count("start: LINE") == 2
    assert offered[0] == {key: value for key, value in LOOK.items() if key != "type"}
    assert offered[1]["parameters"]["required"] == ["input"]  # type: ignore[call-overload,index]


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ({"type": "function", "name": "look"}, "look"),
        ({"type": "custom", "name": "patch"}, "patch"),
        ({"type": "function", "name": "find", "namespace": "crm"}, "crm__find"),
    ],
)
def test_a_choice_names_the_function(wanted: dict[str, Any], name: str) -> None:
    chosen = body(tools=TOOLS, tool_choice=wanted).parameters().tool_choice
    assert chosen == {"type": "function", "function": {"name": name}}


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_of_allowed_tools_no_others_are_offered(mode: str) -> None:
    """No provider has to know of such a choice."""
    allowed = [{"type": "function", "name": "find", "namespace": "crm"}, {"type": "custom", "name": "patch"}]
    said = body(tools=TOOLS, tool_choice={"type": "allowed_tools", "mode": mode, "tools": allowed})
    assert said.problems() == ()
    asked_for = said.parameters()
    assert [one["function"]["name"] for one in asked_for.tools or ()] == ["patch", "crm__find"]  # type: ignore[call-overload,index]
    assert asked_for.tool_choice == mode
    assert said.echo()["tools"] == TOOLS


@pytest.mark.parametrize(
    ("wanted", "path"),
    [
        ({"type": "web_search"}, "$.tool_choice"),
        ({}, "$.tool_choice"),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "other"}]}, ".tools"),
        ({"type": "allowed_tools", "mode": "auto", "tools": [1, {}, {"name": 2}]}, ".tools"),
        ({"type": "allowed_tools", "mode": "auto"}, ".tools"),
        ({"type": "allowed_tools", "tools": [{"type": "function", "name": "look"}]}, ".mode"),
    ],
)
def test_a_choice_of_none_of_the_callers_tools_is_refused(wanted: dict[str, Any], path: str) -> None:
    (problem,) = body(tools=TOOLS, tool_choice=wanted).problems()
    assert f"$.tool_choice{path.removeprefix('$.tool_choice')}" == problem.path


def test_calls_come_back_as_calls_of_the_callers_tools() -> None:
    """With the ids of items, also where a model did not keep to what it was told."""
    said = asked(echo={"tools": TOOLS})
    items = output_of(said, (), ended(None, tool_calls=CALLS))
    shown = [{key: value for key, value in item.items() if key not in ("id", "status", "call_id")} for item in items]
    assert shown == [
        {"type": "function_call", "name": "look", "arguments": '{"at": 1}'},
        {"type": "custom_tool_call", "name": "patch", "input": "+ line"},
        {"type": "function_call", "name": "find", "namespace": "crm", "arguments": "{}"},
        {"type": "custom_tool_call", "name": "patch", "namespace": "crm", "input": "not as it was told"},
        {"type": "function_call", "name": "unheard of", "arguments": "{}"},
    ]
    assert {item_run(item["id"]) for item in items} == {"r1"}
    assert len({item["id"] for item in items}) == len(items)


def test_calls_sent_back_are_those_that_the_model_made() -> None:
    """And so shown again under what was asked."""
    said = asked(echo={"tools": TOOLS})
    items = output_of(said, (), ended(None, tool_calls=CALLS))
    outputs = [
        {"type": item["type"].replace("call", "call_output"), "call_id": item["call_id"], "output": "done"}
        for item in items
    ]
    messages = of_input([*items, *outputs])
    assert [one.role for one in messages] == ["assistant", *["tool"] * len(CALLS)]
    again = messages[0].tool_calls or ()
    assert [(one.id, one.name) for one in again] == [(one.id, one.name) for one in CALLS]
    assert json.loads(again[1].arguments) == {"input": "+ line"}
    shown = input_items(asked(echo={"tools": TOOLS}, messages=messages))
    assert [item["type"] for item in shown] == [item["type"] for item in (*items, *outputs)]


def test_a_custom_call_is_streamed_as_what_it_is() -> None:
    events = ResponseEvents(asked(echo={"tools": TOOLS}))
    out = (events.opened() + events.ended(ended(None, tool_calls=CALLS[1:2]))).decode()
    told = [json.loads(line[6:]) for line in out.splitlines() if line.startswith("data: ")]
    assert [one["type"] for one in told[2:-1]] == [
        "response.output_item.added",
        "response.custom_tool_call_input.delta",
        "response.custom_tool_call_input.done",
        "response.output_item.done",
    ]
    assert (told[2]["item"]["input"], told[3]["delta"], told[4]["input"]) == ("", "+ line", "+ line")


@pytest.mark.parametrize(
    ("tools", "path"),
    [
        ([{"type": "web_search"}], "$.tools[0]"),
        ([LOOK, {"type": "function"}], "$.tools[1]"),
        ([{"type": "namespace", "name": "n", "tools": [LOOK, {"type": "mcp", "name": "x"}]}], "$.tools[0].tools[1]"),
        ([{"type": "namespace", "name": "n", "tools": "look"}], "$.tools[0]"),
        ([{"type": "namespace", "name": "n", "tools": [{**CRM, "name": "within"}]}], "$.tools[0].tools[0]"),
        ([CRM, {**LOOK, "name": "crm__find"}], "$.tools[1]"),
        ([{**CRM, "tools": [{**LOOK, "name": f"f{number}"} for number in range(513)]}], "$.tools"),
        ([{**CRM, "tools": [{}] * 100_000}], "$.tools"),
    ],
)
def test_what_is_no_tool_of_the_callers_is_refused_with_its_place(tools: list[dict[str, Any]], path: str) -> None:
    assert [problem.path for problem in body(tools=tools).problems()] == [path]


def test_long_names_stay_names_that_every_provider_takes() -> None:
    """And different ones different."""
    long = [joined(f"{'n' * 60}{number}", "space") for number in range(3)]
    assert {len(one) for one in long} == {MOST_NAME}
    assert len(set(long)) == 3
    assert joined("n" * 200, None) == "n" * 200


@pytest.mark.parametrize(
    "tools", [[{}], [{"type": "namespace"}], [{"name": 1}], [1], "x", None, [{**CRM, "tools": [1]}]]
)
def test_what_was_asked_over_the_bus_with_tools_that_are_none_is_shown(tools: Any) -> None:
    """A door that looks at no tools takes such a conversation too."""
    (item,) = output_of(asked(echo={"tools": tools}), (), ended(None, tool_calls=CALLS[:1]))
    assert (item["type"], item["name"]) == ("function_call", "look")
