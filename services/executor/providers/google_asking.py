"""What a caller says in OpenAI's words, in Google's: parameters, functions, their calls and results. Pure.

Source: Google "Generate content", "Function calling" (Gemini API, v1beta).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic_core import to_json

from services.executor.providers.objects import object_in
from shared.contracts.conversation import Parameters
from shared.contracts.message import ChatMessage, ToolCall

_CONFIG: Final = {
    "stop": "stopSequences",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
_MODES: Final = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
MOST_ARGUMENTS: Final = 1_000_000


def generation(wanted: Parameters) -> dict[str, Any]:
    """Return the fields of `generationConfig` that a caller's parameters are."""
    said = wanted.model_dump(mode="json", exclude_none=True)
    config = {theirs: said[ours] for ours, theirs in _CONFIG.items() if ours in said}
    shape = said.get("response_format") or {}
    if shape.get("type") in ("json_object", "json_schema"):
        config["responseMimeType"] = "application/json"
    if isinstance(named := shape.get("json_schema"), dict) and isinstance(named.get("schema"), dict):
        config["responseJsonSchema"] = named["schema"]
    return config


def functions(wanted: Parameters) -> dict[str, Any]:
    """Return the fields of a request that a caller's tools are."""
    if not wanted.tools:
        return {}
    declared = []
    for tool in wanted.tools:
        function = tool.get("function")
        if isinstance(function, dict):
            one: dict[str, Any] = {name: function[name] for name in ("name", "description") if function.get(name)}
            if function.get("parameters"):
                one["parametersJsonSchema"] = function["parameters"]
            declared.append(one)
    fields: dict[str, Any] = {"tools": [{"functionDeclarations": declared}]}
    if isinstance(wanted.tool_choice, str) and wanted.tool_choice in _MODES:
        fields["toolConfig"] = {"functionCallingConfig": {"mode": _MODES[wanted.tool_choice]}}
    elif isinstance(wanted.tool_choice, dict) and isinstance(named := wanted.tool_choice.get("function"), dict):
        chosen = {"mode": "ANY", "allowedFunctionNames": [named.get("name")]}
        fields["toolConfig"] = {"functionCallingConfig": chosen}
    return fields


def result_part(message: ChatMessage, text: str, before: Sequence[ChatMessage]) -> dict[str, Any]:
    """Return the part that the result of a call is. Google knows it by the function's name."""
    name = next(
        (one.name for other in before for one in other.tool_calls or () if one.id == message.tool_call_id),
        message.name or "function",
    )
    found = object_in(text)
    return {"functionResponse": {"name": name, "response": found if found is not None else {"result": text}}}


def call_parts(message: ChatMessage) -> list[dict[str, Any]]:
    """Return the parts that a message's own calls are."""
    return [
        {"functionCall": {"name": one.name, "args": object_in(one.arguments) or {}}} for one in message.tool_calls or ()
    ]


def called(part: Mapping[str, Any], place: int) -> ToolCall | None:
    """Return the call that a part of an answer is; None for any other."""
    found = part.get("functionCall")
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        return None
    arguments = to_json(found.get("args") or {}).decode()[:MOST_ARGUMENTS]
    given = found.get("id")
    return ToolCall(id=given if isinstance(given, str) else f"call_{place}", name=found["name"], arguments=arguments)
