"""Functions of the caller's, as the simulated models call them. Pure.

One is called where `tool_choice` demands it, or where what the user said last names it, or a word of its name. With the
result there, the answer quotes it. The arguments are the smallest that the function's schema takes.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from simulator.schemas import instance

_SHORT: Final = 3


class Call(NamedTuple):
    """A function that is to be called."""

    name: str
    arguments: str


def called(document: Mapping[str, Any], text: str) -> Call | None:
    """Return the call that answers a request; None for one that is answered with words."""
    tools = document.get("tools")
    messages = document.get("messages")
    if not isinstance(tools, list) or not tools or not isinstance(messages, list):
        return None
    functions = [
        tool["function"] for tool in tools if isinstance(tool, dict) and isinstance(tool.get("function"), dict)
    ]
    choice = document.get("tool_choice")
    if choice == "none":
        return None
    answered = isinstance(messages[-1], dict) and messages[-1].get("role") == "tool"
    chosen: dict[str, Any] | None = None
    if isinstance(choice, dict):
        wanted = (choice.get("function") or {}).get("name")
        chosen = next((one for one in functions if one.get("name") == wanted), None)
    elif not answered:
        words = set(re.findall(r"\w+", text.lower()))
        chosen = next((one for one in functions if _named(str(one.get("name")), words)), None)
        if chosen is None and choice == "required":
            chosen = functions[0] if functions else None
    if chosen is None:
        return None
    arguments = instance(chosen.get("parameters") or {"type": "object"}, text[:60])
    return Call(str(chosen.get("name")), json.dumps(arguments, ensure_ascii=False))


def _named(name: str, words: set[str]) -> bool:
    lowered = name.lower()
    return lowered in words or any(part in words for part in lowered.split("_") if len(part) > _SHORT)


def result(document: Mapping[str, Any]) -> str | None:
    """Return what the last call gave, where the request ends with that."""
    messages = document.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    if not isinstance(last, dict) or last.get("role") != "tool":
        return None
    content = last.get("content")
    return content if isinstance(content, str) else json.dumps(content)
