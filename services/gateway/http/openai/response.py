"""Responses as they go out: whole, and their items. Pure. (OpenAI "Responses")"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from services.gateway.http.openai import outcome
from services.gateway.http.openai.failures import of_run
from services.gateway.http.openai.functions import Calls
from services.gateway.http.openai.outcome import Asked
from shared.contracts.conversation import Conversation
from shared.contracts.events import RunEnded
from shared.contracts.ids import is_token
from shared.contracts.message import ChatMessage, Usage

PREFIX: Final = "resp_"
_KINDS: Final = {
    "reasoning": "rs",
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}
"""How ids of items begin."""
Status = Literal["queued", "in_progress", "completed", "failed", "cancelled", "incomplete"]


def id_of(run_id: str) -> str:
    return f"{PREFIX}{run_id}"


def run_id_of(response_id: str) -> str | None:
    """Return the run that a response is; None for what is no response's id."""
    return response_id.removeprefix(PREFIX) if response_id.startswith(PREFIX) else None


def item_run(item_id: str) -> str | None:
    """Return the run of whose response an item is, by the item's id; None for what is no item's id of ours."""
    kind, _, rest = item_id.partition("_")
    run_id = rest.partition(".")[0]  # which no run's id has in it
    return run_id if kind in _KINDS.values() and is_token(run_id) else None


def reasoning_item(asked: Asked, lines: Sequence[str], status: str = "completed") -> dict[str, Any]:
    summary = [{"type": "summary_text", "text": line} for line in lines]
    return {"id": f"rs_{asked.run.run_id}", "type": "reasoning", "summary": summary, "status": status}


def message_item(asked: Asked, text: str | None, status: str = "completed") -> dict[str, Any]:
    """Return the item that the answer's text is; None: it has not begun."""
    content = [] if text is None else [text_part(text)]
    return {
        "id": f"msg_{asked.run.run_id}",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": content,
    }


def text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def call_items(asked: Asked, ended: RunEnded) -> list[dict[str, Any]]:
    calls = _calls(asked)
    return [
        _identified({"status": "completed", **calls.item(call)}, f"{asked.run.run_id}.{place}")
        for place, call in enumerate(ended.tool_calls or ())
    ]


def _calls(asked: Asked) -> Calls:
    return Calls((asked.conversation.echo or {}).get("tools"))


def _identified(item: Mapping[str, Any], place: str) -> dict[str, Any]:
    return {"id": f"{_KINDS[item['type']]}_{place}", **item}


def output_of(asked: Asked, lines: Sequence[str], ended: RunEnded | None) -> list[dict[str, Any]]:
    """Return the items of a response as far as there are any."""
    items = [reasoning_item(asked, lines)] if lines else []
    if ended is None or ended.outcome != "completed":
        return items
    status = "incomplete" if status_of(ended) == "incomplete" else "completed"
    if text := outcome.text_of(asked, ended):
        items.append(message_item(asked, text, status))
    return [*items, *call_items(asked, ended)]


def status_of(ended: RunEnded) -> Status:
    match ended.outcome:
        case "completed":
            return "incomplete" if outcome.finish_reason(ended) in ("length", "content_filter") else "completed"
        case "cancelled":
            return "cancelled"
    return "failed"


def response(
    asked: Asked, lines: Sequence[str], ended: RunEnded | None, status: Status | None = None
) -> dict[str, Any]:
    """Return a response. `lines`: what was done on the way; `status`: of one that has not ended."""
    said, run = dict(asked.conversation.echo or {}), asked.run
    now: Status = status_of(ended) if ended is not None else status or "in_progress"
    failing = of_run(ended) if ended is not None and ended.outcome != "completed" else None
    reason = "max_output_tokens" if ended is not None and ended.finish_reason == "length" else "content_filter"
    parameters = asked.conversation.parameters
    found: dict[str, Any] = {
        "id": id_of(run.run_id),
        "object": "response",
        "created_at": int(run.born_at.timestamp()),
        "completed_at": int(ended.ended_at.timestamp()) if ended is not None else None,
        "status": now,
        "error": {"code": failing.code or "server_error", "message": failing.message} if failing is not None else None,
        "incomplete_details": {"reason": reason} if now == "incomplete" else None,
        "model": asked.model,
        "output": output_of(asked, lines, ended),
        "usage": usage_of(ended.spent.usage) if ended is not None else None,
        "background": False,
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": (parameters.extra or {}).get("reasoning_effort"), "summary": None},
        "store": asked.conversation.store,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "truncation": "disabled",
        "user": None,
    }
    found.update(said)
    if ended is not None:
        found["segue"] = outcome.segue(asked, ended)
    return found


def usage_of(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


def gone_on(conversation: Conversation, asked: Asked, ended: RunEnded) -> tuple[ChatMessage, ...]:
    """Return what the next turn goes on from: what was said, and the answer. Instructions are one turn's only."""
    answer = ChatMessage(role="assistant", content=outcome.text_of(asked, ended), tool_calls=ended.tool_calls)
    return (*conversation.messages, answer)


def input_items(asked: Asked) -> list[dict[str, Any]]:
    """Return what was asked, oldest first, as items."""
    items, calls, custom = list[dict[str, Any]](), _calls(asked), set[str]()
    for message in asked.conversation.messages:
        if message.role == "tool":
            kind = "custom_tool_call_output" if message.tool_call_id in custom else "function_call_output"
            result = {"call_id": message.tool_call_id, "output": message.content}
            items.append({"type": kind, "status": "completed", **result})
            continue
        if parts := _parts(message):
            items.append({"type": "message", "status": "completed", "role": message.role, "content": parts})
        for call in message.tool_calls or ():
            items.append(calls.item(call))
            if calls.is_custom(call):
                custom.add(call.id)
    return [_identified(item, f"{asked.run.run_id}.in{place}") for place, item in enumerate(items)]


def items_by_id(asked: Asked, ended: RunEnded) -> dict[str, dict[str, Any]]:
    """Return what a response was asked and what it put out, but for its reasoning, which nobody goes on from."""
    return {item["id"]: item for item in (*input_items(asked), *output_of(asked, (), ended))}


def _parts(message: ChatMessage) -> list[dict[str, Any]]:
    kind = "output_text" if message.role == "assistant" else "input_text"
    if isinstance(message.content, str):
        return [{"type": kind, "text": message.content}] if message.content else []
    found = list[dict[str, Any]]()
    for part in message.content:
        image = part.get("image_url")
        if isinstance(image, dict):
            found.append(
                {"type": "input_image", "detail": image.get("detail") or "auto", "image_url": image.get("url")}
            )
        else:
            found.append({"type": kind, "text": part.get("text")})
    return found
