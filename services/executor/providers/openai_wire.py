"""OpenAI's chat completions as bytes: what is sent, and what an answer, a stream or an error means. Pure.

Read with tolerance for what the many compatible servers leave out, and without any for what would be guessed at.
Sources: OpenAI "Chat Completions", OpenRouter "Errors", "Streaming", "Usage accounting".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json

from services.executor.providers import Answered, Asked, Failed
from services.executor.providers.amounts import MOST_TOKENS, MOST_USD, amount, shown, word
from services.executor.providers.failures import read_fault
from services.executor.providers.objects import object_in, read_object
from services.executor.taxonomy import CUT, EMPTY, MALFORMED, NOTHING_SAID, PROVIDER_ERROR, REFUSAL, SAFETY, Verdict
from shared.contracts.conversation import Parameters
from shared.contracts.message import ChatMessage, ToolCall, Usage

DONE = b"[DONE]"


def request_fields(
    asked: Asked, model: str, parameters: Mapping[str, Any], *, stream: bool, omit: Mapping[str, str]
) -> dict[str, Any]:
    """Return the request: the role's parameters, under what the call itself says.

    `omit` names parameters that this server refuses, each with what it wants instead ("": nothing).
    """
    call = asked.call
    fields: dict[str, Any] = {"model": model, "messages": _told(trimmed(call.messages, asked.trims))}
    fields.update({name: value for name, value in parameters.items() if value is not None})
    for name, value in (("temperature", call.temperature), ("max_tokens", call.max_tokens), ("top_p", call.top_p)):
        if value is not None:
            fields[name] = value
    if asked.halvings and isinstance(fields.get("max_tokens"), int):
        fields["max_tokens"] = max(1, fields["max_tokens"] >> asked.halvings)
    if call.parameters is not None:
        fields.update(_wanted(call.parameters))
    if call.response_schema is not None:
        fields["response_format"] = {
            "type": "json_schema",
            "json_schema": {
                "name": call.response_schema_name or "answer",
                "strict": True,
                "schema": call.response_schema,
            },
        }
    if stream:
        fields["stream"] = True
        fields["stream_options"] = {"include_usage": True}
    for name, instead in omit.items():
        if name in fields:
            value = fields.pop(name)
            if instead:
                fields[instead] = value
    return fields


def _wanted(parameters: Parameters) -> dict[str, Any]:
    """Return what the caller himself says, as it is sent; what he says of no name of ours goes below the others."""
    said = parameters.model_dump(mode="json", exclude_none=True)
    for name in ("temperature", "max_tokens", "top_p"):
        said.pop(name, None)  # the call's own
    if not said.get("tools"):
        for name in ("tools", "tool_choice", "parallel_tool_calls"):
            said.pop(name, None)  # servers refuse the one without the other
    return {**said.pop("extra", {}), **said}


def _told(messages: Sequence[ChatMessage]) -> Sequence[ChatMessage | dict[str, Any]]:
    """Return messages as they are sent: those with tool calls in OpenAI's shape of them."""
    if not any(one.tool_calls for one in messages):
        return messages
    return [_calling(one) if one.tool_calls else one for one in messages]


def _calling(message: ChatMessage) -> dict[str, Any]:
    calls = [
        {"id": one.id, "type": "function", "function": {"name": one.name, "arguments": one.arguments}}
        for one in message.tool_calls or ()
    ]
    return {"role": message.role, "content": message.content or None, "tool_calls": calls}


def trimmed(messages: Sequence[ChatMessage], trims: int) -> Sequence[ChatMessage]:
    """Return a conversation with its session halved so often, the oldest left out.

    The prompt stays whole, and so does the question, with what came after it: tool calls and their results.
    """
    if not trims:
        return messages
    first = next((place for place, one in enumerate(messages) if one.role != "system"), 0)
    last = max(first, next((place for place in range(len(messages) - 1, -1, -1) if messages[place].role == "user"), 0))
    session = messages[first:last]
    kept = list(session[len(session) - (len(session) >> trims) :])
    while kept and kept[0].role != "user":
        kept.pop(0)
    return (*messages[:first], *kept, *messages[last:])


def read_completion(data: bytes, now_s: float) -> Answered | Failed:
    """Return what a 200 that is not a stream says: errors come inside those too."""
    body = read_object(data)
    if isinstance(body, Failed):
        return body
    usage, cost = usage_of(body.get("usage"))
    choice = _first(body.get("choices"))
    fault = body.get("error") or choice.get("error")
    if fault:
        return read_fault(200, fault, now_s, usage=usage, cost_usd=cost if body.get("usage") else 0.0)
    if not choice:
        return Failed(MALFORMED, f"the answer has no choices: {shown(body)}", 200, usage=usage, cost_usd=cost)
    message = choice.get("message")
    if not isinstance(message, dict):
        return Failed(MALFORMED, f"the answer has no message: {shown(choice)}", 200, usage=usage, cost_usd=cost)
    return conclude(
        text_of(message.get("content")),
        refusal=text_of(message.get("refusal")),
        finish_reason=word(choice.get("finish_reason")),
        model=word(body.get("model")),
        usage=usage,
        cost_usd=cost,
        tool_calls=_calls_of(message.get("tool_calls")),
    )


def conclude(
    text: str,
    *,
    refusal: str,
    finish_reason: str | None,
    model: str | None,
    usage: Usage,
    cost_usd: float | None,
    tool_calls: tuple[ToolCall, ...] = (),
) -> Answered | Failed:
    """Return what a complete answer amounts to: some are refusals, filtered, or nothing at all."""

    def failed(verdict: Verdict, message: str) -> Failed:
        return Failed(verdict, message, 200, usage=usage, cost_usd=cost_usd)

    if finish_reason == "content_filter":
        return failed(SAFETY, "the provider's safety filter stopped the answer; ask for something else, or another way")
    if finish_reason == "error":
        return failed(PROVIDER_ERROR, "the provider ended the answer with an error and did not say which")
    if tool_calls:
        return Answered(
            text, "length" if finish_reason == "length" else "tool_calls", model, usage, cost_usd, tool_calls=tool_calls
        )
    if refusal and not text:
        return failed(REFUSAL, f"the model refused: {refusal}")
    if not text.strip():
        if finish_reason == "length":
            return failed(NOTHING_SAID, "the model used up max_tokens before it said anything; raise max_tokens")
        return failed(EMPTY, f"the answer is empty (finish_reason {finish_reason or 'not given'})")
    return Answered(text, finish_reason, model, usage, cost_usd)


@dataclass(slots=True)
class StreamReader:
    """One streamed answer, event by event. `failed` or `done` says that nothing more is to come."""

    parts: list[str] = field(default_factory=list)
    done: bool = False
    failed: Failed | None = None
    _refusal: list[str] = field(default_factory=list)
    _finish_reason: str | None = None
    _model: str | None = None
    _usage: Usage = field(default_factory=Usage)
    _cost_usd: float | None = None
    _counted: bool = False
    _calls: dict[int, dict[str, str]] = field(default_factory=dict)
    """Tool calls by their index, as far as they have come."""

    def take(self, event: bytes, now_s: float) -> str:
        """Return the text that an event brings, mostly a few characters, often none."""
        if event == DONE:
            self.done = True
            return ""
        body = object_in(event)
        if body is None:
            said = f"an event of the stream is not a JSON object: {shown(event)}"
            self._fail(Failed(MALFORMED, said, 200, cost_usd=None))
            return ""
        if body.get("usage") is not None:
            self._usage, self._cost_usd = usage_of(body["usage"])
            self._counted = True
        self._model = word(body.get("model")) or self._model
        choice = _first(body.get("choices"))
        fault = body.get("error") or choice.get("error")
        if fault:
            self._fail(read_fault(200, fault, now_s))
            return ""
        self._finish_reason = word(choice.get("finish_reason")) or self._finish_reason
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return ""
        if refusal := text_of(delta.get("refusal")):
            self._refusal.append(refusal)
        if delta.get("tool_calls"):
            self._take_calls(delta["tool_calls"])
        text = text_of(delta.get("content"))
        if text:
            self.parts.append(text)
        return text

    def _take_calls(self, pieces: object) -> None:
        for place, piece in enumerate(pieces if isinstance(pieces, list) else []):
            if not isinstance(piece, dict):
                continue
            index = piece.get("index")
            known = self._calls.setdefault(index if isinstance(index, int) else place, {})
            function = piece.get("function")
            said = {**(function if isinstance(function, dict) else {}), "id": piece.get("id")}
            for name in ("id", "name"):
                known[name] = word(said.get(name)) or known.get(name, "")
            arguments = said.get("arguments")
            known["arguments"] = known.get("arguments", "") + (arguments if isinstance(arguments, str) else "")

    def _called(self) -> tuple[ToolCall, ...]:
        calls = ({"id": one["id"], "function": one} for _, one in sorted(self._calls.items()))
        return _calls_of(list(calls))

    def _fail(self, failed: Failed) -> None:
        began = self.parts or self._calls or self._refusal
        cost = self._cost_usd if self._counted else (0.0 if not began and failed.cost_usd == 0.0 else None)
        self.failed = Failed(
            failed.verdict,
            failed.message,
            failed.status,
            failed.retry_after_s,
            usage=self._usage,
            cost_usd=cost,
            text_sent=bool(self.parts),
        )

    def conclude(self) -> Answered | Failed:
        """Return what the stream came to, once it has ended."""
        if self.failed is not None:
            return self.failed
        if not self.done:
            got = sum(len(part) for part in self.parts)
            message = f"the stream was cut after {got} characters: it ended with neither [DONE] nor an error"
            return self.broken(CUT, message)
        return conclude(
            "".join(self.parts),
            refusal="".join(self._refusal),
            finish_reason=self._finish_reason,
            model=self._model,
            usage=self._usage,
            cost_usd=self._cost_usd,
            tool_calls=self._called(),
        )

    def broken(self, verdict: Verdict, message: str) -> Failed:
        """Return the failure of a stream that something else ended."""
        cost = self._cost_usd if self._counted else None
        return Failed(verdict, message, 200, usage=self._usage, cost_usd=cost, text_sent=bool(self.parts))


def usage_of(usage: object) -> tuple[Usage, float | None]:
    """Return tokens and cost as the provider counted them; what it leaves out is 0, or None for the cost."""
    if not isinstance(usage, dict):
        return Usage(), None
    prompt, completion = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    return Usage(
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        cached_tokens=_count(prompt.get("cached_tokens")) if isinstance(prompt, dict) else 0,
        reasoning_tokens=_count(completion.get("reasoning_tokens")) if isinstance(completion, dict) else 0,
        image_tokens=_count(completion.get("image_tokens")) if isinstance(completion, dict) else 0,
    ), _usd(usage.get("cost"))


def text_of(content: object) -> str:
    """Return a message's text: a string, or the texts of its parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
    return ""


def _calls_of(found: object) -> tuple[ToolCall, ...]:
    """Return the functions that a message wants called; what has no name is none."""
    calls = list[ToolCall]()
    for one in found if isinstance(found, list) else []:
        function = one.get("function") if isinstance(one, dict) else None
        if not isinstance(function, dict) or (name := word(function.get("name"))) is None:
            continue
        arguments = function.get("arguments")
        text = arguments if isinstance(arguments, str) else to_json(arguments or {}).decode()
        calls.append(ToolCall(id=word(one.get("id")) or f"call_{len(calls)}", name=name, arguments=text or "{}"))
    return tuple(calls)


def _first(choices: object) -> dict[str, Any]:
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    return {}


def _count(value: object) -> int:
    return int(amount(value, MOST_TOKENS) or 0)


def _usd(value: object) -> float | None:
    return amount(value, MOST_USD)
