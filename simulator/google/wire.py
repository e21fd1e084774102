"""Google's bodies. Pure."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from simulator.answers import Answer
from simulator.chat_request import CHARS_PER_TOKEN, IMAGE_TOKENS, ChatRequest
from simulator.openrouter.wire import PROVIDER

STATUSES: Final[dict[int, str]] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_FINISHED: Final = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}


def error(status: int, message: str, retry_after_s: float | None = None) -> bytes:
    """Return an error's body, with RetryInfo where it says when."""
    found: dict[str, Any] = {"code": status, "message": message, "status": STATUSES.get(status, "UNKNOWN")}
    if retry_after_s is not None:
        kind = "type.googleapis.com/google.rpc.RetryInfo"
        found["details"] = [{"@type": kind, "retryDelay": f"{retry_after_s:g}s"}]
    return json.dumps({"error": found}).encode()


def read(model: str, body: Mapping[str, Any], *, stream: bool) -> tuple[ChatRequest, bool] | str:
    """Return a `generateContent` request as a chat request, and whether it wants images; or what is wrong with it."""
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents:
        return "contents is not specified"
    system, _ = _texts(body.get("systemInstruction") or body.get("system_instruction") or {})
    users: list[str] = []
    before: str | None = None
    images = tokens = 0
    for place, one in enumerate(contents):
        if not isinstance(one, dict) or one.get("role", "user") not in ("user", "model"):
            return f"contents[{place}].role: please use a valid role: user, model"
        text, seen = _texts(one)
        images += seen
        tokens += 4 - (-len(text) // CHARS_PER_TOKEN)
        if one.get("role", "user") == "user":
            users.append(text)
        else:
            before = text
    config = body.get("generationConfig") or {}
    if not isinstance(config, dict):
        return "generationConfig must be an object"
    makes = "IMAGE" in (config.get("responseModalities") or ())
    schema = config.get("responseJsonSchema") or config.get("responseSchema")
    wanted = config.get("maxOutputTokens")
    return (
        ChatRequest(
            model=model,
            fallbacks=(),
            kind="image" if makes else "json" if isinstance(schema, dict) else "prose",
            system=system,
            text=users[-1] if users else "",
            before_user=users[-2] if len(users) > 1 else None,
            before_assistant=before if len(users) > 1 else None,
            earlier_turns=max(0, len(users) - 1),
            images=images,
            stream=stream,
            max_tokens=wanted if isinstance(wanted, int) and wanted > 0 else None,
            schema=schema if isinstance(schema, dict) else None,
            prompt_tokens=tokens + images * IMAGE_TOKENS - (-len(system) // CHARS_PER_TOKEN),
        ),
        makes,
    )


def _texts(content: Mapping[str, Any]) -> tuple[str, int]:
    parts = [part for part in content.get("parts") or () if isinstance(part, dict)]
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    return "\n".join(texts), sum(1 for part in parts if "inlineData" in part or "fileData" in part)


def piece(
    model: str,
    parts: Sequence[Mapping[str, Any]],
    *,
    prompt_tokens: int,
    answer: Answer | None = None,
    image_tokens: int = 0,
) -> dict[str, Any]:
    """Return an answer, or a piece of one; with `answer` it is the last."""
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    used: dict[str, Any] = {"promptTokenCount": prompt_tokens, "totalTokenCount": prompt_tokens}
    if answer is not None:
        candidate["finishReason"] = _FINISHED.get(answer.finish_reason, "OTHER")
        said = answer.completion_tokens - answer.reasoning_tokens
        used |= {
            "candidatesTokenCount": said,
            "thoughtsTokenCount": answer.reasoning_tokens,
            "totalTokenCount": prompt_tokens + answer.completion_tokens,
        }
        if image_tokens:
            used["candidatesTokensDetails"] = [{"modality": "IMAGE", "tokenCount": image_tokens}]
    return {"candidates": [candidate], "usageMetadata": used, "modelVersion": model, "provider": PROVIDER}


def inline(data: bytes) -> dict[str, Any]:
    """Return an image as a part."""
    return {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(data).decode()}}
