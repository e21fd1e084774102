"""What a chat request asks for: its body, read once. Pure."""

import json
from typing import Any, Final, Literal, NamedTuple

from simulator.tools import Call, called, result

Kind = Literal["letter", "plan", "json", "prose", "image", "video", "embedding"]

CHARS_PER_TOKEN: Final = 4
MESSAGE_TOKENS: Final = 4
IMAGE_TOKENS: Final = 1_000

PLAN_SCHEMA: Final = "segue_workflow"
LETTER_MARK: Final = "exactly one letter"
LETTER_MAX_TOKENS: Final = 64


class ChatRequest(NamedTuple):
    """A chat request, as far as an answer depends on it. A tuple, as those are made fastest."""

    model: str
    fallbacks: tuple[str, ...]
    """`models` after the first: OpenRouter goes on to them by itself."""
    kind: Kind
    system: str
    text: str
    """The last user message."""
    before_user: str | None
    """The user message before that, where there is one."""
    before_assistant: str | None
    earlier_turns: int
    """How many user messages came before the last."""
    images: int
    stream: bool
    max_tokens: int | None
    schema: dict[str, Any] | None
    prompt_tokens: int
    call: Call | None = None
    """The caller's function that is to be called instead of an answer."""
    result: str | None = None
    """What the function gave that was called last."""


class Unreadable(NamedTuple):
    """A request that cannot be answered, and why."""

    message: str


def read(body: bytes | bytearray) -> ChatRequest | Unreadable:
    """Read a request's body; what is not needed for an answer is not looked at, like at the provider."""
    try:
        document = json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        return Unreadable(f"the body is not valid JSON: {error}")
    if not isinstance(document, dict):
        return Unreadable("the body must be a JSON object")
    models = document.get("models")
    fallbacks = tuple(str(one) for one in models) if isinstance(models, list) else ()
    model = document.get("model") or (fallbacks[0] if fallbacks else None)
    if not isinstance(model, str):
        return Unreadable("'model' must be a string")
    messages = document.get("messages")
    if not isinstance(messages, list) or not messages:
        return Unreadable("'messages' must be a list that is not empty")
    max_tokens = document.get("max_tokens", document.get("max_completion_tokens"))
    if max_tokens is not None and (isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1):
        return Unreadable(f"'max_tokens' must be a positive integer, not {max_tokens!r}")
    system: list[str] = []
    users: list[str] = []
    assistant: str | None = None
    tokens = images = 0
    for place, message in enumerate(messages):
        if not isinstance(message, dict):
            return Unreadable(f"messages[{place}] must be an object")
        role, content = message.get("role"), message.get("content")
        if isinstance(content, list):
            content, seen = _parts(content)
            images += seen
            tokens += seen * IMAGE_TOKENS
        elif content is None and role in ("assistant", "tool"):
            content = ""
        elif not isinstance(content, str):
            return Unreadable(f"messages[{place}].content must be a string or a list of parts")
        tokens += MESSAGE_TOKENS - (-len(content) // CHARS_PER_TOKEN)
        if role == "user":
            users.append(content)
        elif role == "assistant":
            assistant = content
        elif role in ("system", "developer"):
            system.append(content)
        elif role != "tool":
            return Unreadable(f"messages[{place}].role is {role!r}; known: system, developer, user, assistant, tool")
    schema_name, schema = _schema_of(document.get("response_format"))
    told = "\n\n".join(system)
    return ChatRequest(
        model=model,
        fallbacks=tuple(one for one in fallbacks if one != model) if fallbacks else (),
        kind=_kind(told, schema_name, schema, max_tokens, tools=bool(document.get("tools"))),
        system=told,
        text=users[-1] if users else "",
        before_user=users[-2] if len(users) > 1 else None,
        before_assistant=assistant if len(users) > 1 else None,
        earlier_turns=max(0, len(users) - 1),
        images=images,
        stream=document.get("stream") is True,
        max_tokens=max_tokens,
        schema=schema,
        prompt_tokens=tokens,
        call=called(document, users[-1] if users else ""),
        result=result(document),
    )


def _parts(parts: list[Any]) -> tuple[str, int]:
    """Return the text of a message in parts, and how many images are in it."""
    known = [part for part in parts if isinstance(part, dict)]
    texts = [part["text"] for part in known if isinstance(part.get("text"), str)]
    return "\n".join(texts), sum(1 for part in known if part.get("type") == "image_url")


def tokens_of(text: str) -> int:
    """Return about how many tokens a text is: the provider's own count would need its tokenizer."""
    return -(-len(text) // CHARS_PER_TOKEN)


def _schema_of(wanted: object) -> tuple[str | None, dict[str, Any] | None]:
    """Return the name and schema of a structured answer. `json_object` is a schema that takes any object."""
    if not isinstance(wanted, dict):
        return None, None
    if wanted.get("type") == "json_object":
        return None, {"type": "object"}
    named = wanted.get("json_schema")
    if wanted.get("type") != "json_schema" or not isinstance(named, dict):
        return None, None
    schema = named.get("schema")
    return str(named.get("name", "")), schema if isinstance(schema, dict) else {}


def _kind(
    system: str, schema_name: str | None, schema: dict[str, Any] | None, max_tokens: int | None, *, tools: bool
) -> Kind:
    if schema_name is not None:
        return "plan" if schema_name.startswith(PLAN_SCHEMA) else "json"
    lowered = system.lower()
    if LETTER_MARK in lowered and (max_tokens is None or max_tokens <= LETTER_MAX_TOKENS):
        return "letter"
    if "workflow" in lowered and "json" in lowered and not tools:  # which programs offer, and no planner
        return "plan"
    return "json" if schema is not None else "prose"
