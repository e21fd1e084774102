"""From OpenAI's messages and input items to ours. Pure: what cannot be understood is a problem with its place."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from services.gateway.http.openai.functions import arguments_of, call_of
from shared.contracts.message import ChatMessage, ToolCall
from shared.conversation import text_of
from shared.workflows.validation import Problem

MOST_IMAGES: Final = 64
_ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_TEXTS: Final = frozenset({"text", "input_text", "output_text"})


class Wrong(Exception):
    """A message that cannot be understood."""

    def __init__(self, path: str, message: str, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.problem = Problem(path, code, message)


def of_chat(messages: Sequence[Mapping[str, Any]]) -> tuple[ChatMessage, ...]:
    """Return the messages of a chat request. Raises `Wrong`."""
    return tuple(_message(message, f"$.messages[{place}]") for place, message in enumerate(messages))


def _message(message: Mapping[str, Any], path: str) -> ChatMessage:
    role = _role(message, path)
    name = message.get("name") if isinstance(message.get("name"), str) else None
    calls = _calls(message.get("tool_calls"), f"{path}.tool_calls") if role == "assistant" else None
    call_id = message.get("tool_call_id") if role == "tool" else None
    if role == "tool" and not isinstance(call_id, str):
        raise Wrong(f"{path}.tool_call_id", "a tool's result says of which call it is")
    content = message.get("content")
    if content is None and role == "assistant":
        content = message.get("refusal") or ""
    return ChatMessage.model_validate(
        {
            "role": role,
            "content": _content(content, f"{path}.content"),
            "name": name,
            "tool_calls": calls,
            "tool_call_id": call_id,
        }
    )


def _role(message: Mapping[str, Any], path: str) -> str:
    role = _ROLES.get(str(message.get("role")))
    if role is None:
        known = ", ".join(_ROLES)
        raise Wrong(f"{path}.role", f"{message.get('role')!r} is no role; known: {known}")
    return role


def _content(content: object, path: str) -> str | list[dict[str, object]]:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Wrong(path, "a message's content is a text, or a list of parts")
    parts = [part for place, one in enumerate(content) for part in _part(one, f"{path}[{place}]")]
    if all(part["type"] == "text" for part in parts):
        return "\n".join(str(part["text"]) for part in parts)
    return parts


def _part(part: object, path: str) -> list[dict[str, object]]:
    if isinstance(part, str):
        return [{"type": "text", "text": part}]
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(part, dict) and kind in _TEXTS and isinstance(part.get("text"), str):
        return [{"type": "text", "text": part["text"]}]
    if isinstance(part, dict) and kind == "refusal":
        return [{"type": "text", "text": str(part.get("refusal") or "")}]
    if isinstance(part, dict) and kind in ("image_url", "input_image"):
        given, detail = part.get("image_url"), part.get("detail")
        image = given.get("url") if isinstance(given, dict) else given
        if isinstance(given, dict):
            detail = given.get("detail", detail)
        if not isinstance(image, str) or not image.startswith(("https://", "http://", "data:image/", "/artifacts/")):
            raise Wrong(path, "an image is an http(s) URL or a data:image/… URL in image_url")
        return [{"type": "image_url", "image_url": {"url": image, **({"detail": detail} if detail else {})}}]
    raise Wrong(path, f"parts are texts and images; {kind!r} is not read here", "unsupported_part")


def _calls(found: object, path: str) -> tuple[ToolCall, ...] | None:
    if not found:
        return None
    calls = list[ToolCall]()
    for place, one in enumerate(found if isinstance(found, list) else [found]):
        function = one.get("function") if isinstance(one, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Wrong(f"{path}[{place}]", "a tool call is {id, type: function, function: {name, arguments}}")
        calls.append(
            ToolCall(
                id=str(one.get("id") or ""), name=function["name"], arguments=arguments_of(function.get("arguments"))
            )
        )
    return tuple(calls)


def of_input(given: str | Sequence[Mapping[str, Any]]) -> tuple[ChatMessage, ...]:
    """Return the messages of a Responses request's input. Raises `Wrong`.

    Function calls that follow each other are one message's; reasoning that we or others put out is left out.
    """
    if isinstance(given, str):
        return (ChatMessage(role="user", content=given),)
    found = list[ChatMessage]()
    for place, item in enumerate(given):
        path = f"$.input[{place}]"
        match item.get("type", "message"):
            case "message":
                found.append(_message(item, path))
            case "function_call" | "custom_tool_call" as kind:
                if (call := call_of(item)) is None:
                    said = "arguments" if kind == "function_call" else "input"
                    raise Wrong(path, f"a {kind} is {{call_id, name, {said}}}")
                if found and found[-1].role == "assistant":
                    found[-1] = found[-1].model_copy(update={"tool_calls": (*(found[-1].tool_calls or ()), call)})
                else:
                    found.append(ChatMessage(role="assistant", content="", tool_calls=(call,)))
            case "function_call_output" | "custom_tool_call_output":
                if not isinstance(item.get("call_id"), str):
                    raise Wrong(f"{path}.call_id", "a function's output says of which call it is")
                output = item.get("output")
                text = (
                    output
                    if isinstance(output, str)
                    else text_of(ChatMessage(role="tool", content=_content(output, f"{path}.output")))
                )
                found.append(ChatMessage(role="tool", content=text, tool_call_id=item["call_id"]))
            case "reasoning":
                continue
            case other:
                raise Wrong(f"{path}.type", f"items of the type {other!r} are not read here", "unsupported_item")
    return tuple(found)


def question(messages: Sequence[ChatMessage]) -> tuple[str, tuple[str, ...]]:
    """Return the text and the images of what is asked: the last thing that a user said, else the last of all.

    Raises `Wrong` when nothing is.
    """
    asked = next((one for one in reversed(messages) if one.role == "user"), messages[-1] if messages else None)
    images = images_of(asked) if asked is not None else ()
    text = text_of(asked) if asked is not None else ""
    if not text.strip() and not images:
        raise Wrong("$.messages", "the last message of the user is empty; say what you want to know", "empty_message")
    if sum(len(images_of(one)) for one in messages) > MOST_IMAGES:
        raise Wrong("$.messages", f"a request has at most {MOST_IMAGES} images")
    return text, images


def images_of(message: ChatMessage) -> tuple[str, ...]:
    """Return the addresses of a message's images."""
    if isinstance(message.content, str):
        return ()
    images = (part.get("image_url") for part in message.content)
    return tuple(str(image["url"]) for image in images if isinstance(image, dict) and image.get("url"))
