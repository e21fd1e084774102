"""The tools of a Responses request as functions of a chat request, and the calls of those as its items. Pure.

What models of every provider know are functions. So one in a `namespace` goes by both names, and a `custom` tool, whose
input is a text, is a function of one text.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from pydantic import JsonValue
from pydantic_core import from_json, to_json

from shared.contracts.message import ToolCall
from shared.workflows.validation import Problem

MOST: Final = 512
MOST_NAME: Final = 64
"""Characters of a function's name that every provider takes."""
_INPUT: Final = "input"
_ALLOWED: Final = "allowed_tools"
_KNOWN: Final = ("name", "description", "parameters", "strict")
_WANTED: Final = "{type: function, name, parameters}, {type: custom, name} or {type: namespace, name, tools: […]}"


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool of the caller's, and where it stands in his list."""

    path: str
    said: Mapping[str, Any]
    namespace: str | None = None
    about: str | None = None
    """The description of the namespace, where this is the first in it."""

    @property
    def custom(self) -> bool:
        return self.said.get("type") == "custom"

    @property
    def name(self) -> str:
        """What the model calls it."""
        return joined(str(self.said["name"]), self.namespace)


def joined(name: str, namespace: str | None) -> str:
    """Return the name of a function that stands in a namespace; the same for the same two, also where they are long."""
    whole = name if namespace is None else f"{namespace}__{name}"
    if namespace is None or len(whole) <= MOST_NAME:
        return whole
    return f"{whole[: MOST_NAME - 9]}_{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def problems(tools: Sequence[Mapping[str, Any]] | None) -> list[Problem]:
    """Return what is wrong with a request's tools."""
    found, names = list[Problem](), set[str]()
    every = list(islice(_each(tools or ()), MOST + 1))  # of a namespace there may be as many as fit into a body
    if len(every) > MOST:
        return [Problem("$.tools", "too_many_tools", f"at most {MOST} tools are taken, with those in namespaces")]
    for tool in every:
        kind = tool.said.get("type")
        if kind not in ("function", "custom", "namespace"):
            said = f"{str(kind)[:40]!r} is no tool of yours, and nobody here has it: leave it out. Tools are {_WANTED}"
        elif kind == "namespace" or not isinstance(tool.said.get("name"), str):
            said = f"this is none of the tools that are known: {_WANTED}"
        elif tool.name in names:
            said = f"{tool.name[:MOST_NAME]!r} names a tool that stands before it too"
        else:
            names.add(tool.name)
            continue
        found.append(Problem(tool.path, "unsupported_tool", said))
    return found


def choice_problems(
    tools: Sequence[Mapping[str, Any]] | None, wanted: str | Mapping[str, JsonValue] | None
) -> list[Problem]:
    """Return what is wrong with what a request says about which of its tools are called; they have no problems."""
    path, code = "$.tool_choice", "unsupported_tool_choice"
    if not isinstance(wanted, Mapping):
        return []
    if wanted.get("type") not in ("function", "custom", _ALLOWED):
        said = f"{str(wanted.get('type'))[:40]!r} is no tool of yours: {{type: function, name}}, {{type: custom, name}}"
        return [Problem(path, code, f"{said} or {{type: {_ALLOWED}, mode, tools: […]}}")]
    if (names := _allowed(wanted)) is None:
        return []
    found = list[Problem]()
    if wanted.get("mode") not in ("auto", "required"):
        found.append(Problem(f"{path}.mode", code, "the mode is auto or required"))
    if not names & {one.name for one in _each(tools or ())}:
        found.append(Problem(f"{path}.tools", code, "none of them is in the request's tools"))
    return found


def _allowed(wanted: str | Mapping[str, JsonValue] | None) -> set[str] | None:
    """Return the names of the tools that may be called; None: of all."""
    if not isinstance(wanted, Mapping) or wanted.get("type") != _ALLOWED:
        return None
    tools, names = wanted.get("tools"), set[str]()
    for one in tools[:MOST] if isinstance(tools, list) else []:
        if isinstance(one, dict) and isinstance(name := one.get("name"), str):
            names.add(_chosen(name, one))
    return names


def _chosen(name: str, said: Mapping[str, Any]) -> str:
    """Return what the model calls a tool that is named here, perhaps with its namespace."""
    within = said.get("namespace")
    return joined(name, within if isinstance(within, str) else None)


def _each(tools: Sequence[Mapping[str, Any]]) -> Iterator[Tool]:
    """Yield the tools, those in namespaces too; a namespace that is none as it is."""
    for place, said in enumerate(tools):
        path, within, name = f"$.tools[{place}]", said.get("tools"), said.get("name")
        if said.get("type") != "namespace" or not isinstance(within, list) or not isinstance(name, str):
            yield Tool(path, said)
            continue
        about = said.get("description")
        for index, one in enumerate(within):
            told = about if index == 0 and isinstance(about, str) else None
            yield Tool(f"{path}.tools[{index}]", one if isinstance(one, dict) else {}, name, told)


def offered(
    tools: Sequence[Mapping[str, Any]] | None, wanted: str | Mapping[str, JsonValue] | None = None
) -> tuple[dict[str, JsonValue], ...] | None:
    """Return the functions that a model is offered; of tools and a choice that have no problems.

    Where only some may be called the others are not offered, which every provider understands.
    """
    names = _allowed(wanted)
    there = (one for one in _each(tools or ()) if names is None or one.name in names)
    return tuple({"type": "function", "function": _function(one)} for one in there) or None


def _function(tool: Tool) -> dict[str, JsonValue]:
    said: dict[str, JsonValue] = {key: tool.said[key] for key in _KNOWN if tool.said.get(key) is not None}
    said["name"] = tool.name
    told = [str(one) for one in (tool.about, said.get("description")) if one]
    if tool.custom:
        shape = tool.said.get("format")
        if isinstance(shape, dict) and shape.get("type") == "grammar":
            told.append(f"The input follows this {shape.get('syntax')} grammar:\n{shape.get('definition')}")
        text: dict[str, JsonValue] = {"type": "string", "description": "The whole input, as it is."}
        said["parameters"] = {
            "type": "object",
            "properties": {_INPUT: text},
            "required": [_INPUT],
            "additionalProperties": False,
        }
    return {**said, **({"description": "\n\n".join(told)} if told else {})}


def choice(wanted: str | Mapping[str, JsonValue] | None) -> str | dict[str, JsonValue] | None:
    """Return which function a model has to call."""
    if not isinstance(wanted, Mapping):
        return wanted
    if wanted.get("type") == _ALLOWED:
        return str(wanted.get("mode"))
    if not isinstance(name := wanted.get("name"), str):
        return dict(wanted)
    return {"type": "function", "function": {"name": _chosen(name, wanted)}}


def call_of(item: Mapping[str, Any]) -> ToolCall | None:
    """Return the call that an item of the input tells of; None for one that does not say what was called."""
    name, call_id = item.get("name"), item.get("call_id")
    if not isinstance(name, str) or not isinstance(call_id, str):
        return None
    said = {_INPUT: item.get("input")} if item.get("type") == "custom_tool_call" else item.get("arguments")
    return ToolCall(id=call_id, name=_chosen(name, item), arguments=arguments_of(said))


def arguments_of(said: object) -> str:
    """Return a call's arguments as the JSON that they travel as: mostly what was said."""
    return said if isinstance(said, str) else to_json(said if said is not None else {}).decode()


class Calls:
    """The items that the calls of one request's tools are."""

    def __init__(self, tools: JsonValue) -> None:
        said = [one for one in tools if isinstance(one, dict)] if isinstance(tools, list) else []
        self._tools = {one.name: one for one in _each(said) if isinstance(one.said.get("name"), str)}

    def is_custom(self, call: ToolCall) -> bool:
        tool = self._tools.get(call.name)
        return tool is not None and tool.custom

    def item(self, call: ToolCall) -> dict[str, Any]:
        """Return a call as an item, without its id."""
        tool = self._tools.get(call.name)
        name = call.name if tool is None else str(tool.said["name"])
        within = {} if tool is None or tool.namespace is None else {"namespace": tool.namespace}
        if tool is not None and tool.custom:
            return {"type": "custom_tool_call", "call_id": call.id, "name": name, **within, "input": _text(call)}
        return {"type": "function_call", "call_id": call.id, "name": name, **within, "arguments": call.arguments}


def _text(call: ToolCall) -> str:
    """Return a custom tool's input; of a model that did not keep to the one text, all that it said."""
    try:
        said = from_json(call.arguments)
    except ValueError:
        return call.arguments
    text = said.get(_INPUT) if isinstance(said, dict) else None
    return text if isinstance(text, str) else call.arguments
