"""OpenRouter's bodies, byte for byte. Pure.

Written by hand from parts: a benchmark's provider must cost next to nothing. `tests/simulator` reads them back.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, Final

from simulator.answers import Answer
from simulator.tools import Call

EVENTS: Final = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"))
PROCESSING: Final = b": OPENROUTER PROCESSING\n\n"
DONE: Final = b"data: [DONE]\n\n"
PROVIDER: Final = "Simulator"

ERROR_TYPES: Final[dict[int, str]] = {
    400: "invalid_request",
    401: "authentication",
    402: "payment_required",
    403: "permission_denied",
    404: "not_found",
    408: "timeout",
    413: "payload_too_large",
    422: "unprocessable",
    429: "rate_limit_exceeded",
    500: "server",
    502: "provider_unavailable",
    503: "provider_overloaded",
    504: "timeout",
}


def usage(
    prompt_tokens: int,
    completion_tokens: int,
    reasoning_tokens: int,
    prompt_usd: float,
    completion_usd: float,
    *,
    cached_tokens: int = 0,
    with_cost: bool = True,
) -> str:
    """Return the usage object."""
    total = round(prompt_usd + completion_usd, 12)
    cost = (
        f'"cost":{total!r},"is_byok":false,"cost_details":{{"upstream_inference_cost":{total!r},'
        f'"upstream_inference_prompt_cost":{prompt_usd!r},"upstream_inference_completions_cost":{completion_usd!r}}},'
        if with_cost
        else ""
    )
    return (
        f'{{"prompt_tokens":{prompt_tokens},"completion_tokens":{completion_tokens},'
        f'"total_tokens":{prompt_tokens + completion_tokens},{cost}'
        f'"prompt_tokens_details":{{"cached_tokens":{cached_tokens},"cache_write_tokens":0,"audio_tokens":0,"video_tokens":0}},'
        f'"completion_tokens_details":{{"reasoning_tokens":{reasoning_tokens},"image_tokens":0}}}}'
    )


def completion(
    generation_id: str, created: int, model: str, answer: Answer, used: str | None, error: str = ""
) -> bytes:
    """Return a whole answer. `error`: the JSON of `choices[0].error`."""
    finish = "error" if error else answer.finish_reason
    content = quoted(answer.text) if answer.text is not None else "null"
    refusal = quoted(answer.refusal) if answer.refusal is not None else "null"
    wrong = f',"error":{error}' if error else ""
    return (
        f'{_head(generation_id, created, model, "chat.completion")}{{"logprobs":null,"finish_reason":"{finish}",'
        f'"native_finish_reason":"{finish}","index":0,"message":{{"role":"assistant","content":{content},'
        f'"refusal":{refusal},"reasoning":null{_calls(generation_id, answer)}}}{wrong}}}]{_used(used)}}}'
    ).encode()


def _calls(generation_id: str, answer: Answer) -> str:
    """Return the function that is to be called, as a field of the message."""
    if answer.call is None:
        return ""
    function = f'{{"name":{quoted(answer.call.name)},"arguments":{quoted(answer.call.arguments)}}}'
    return f',"tool_calls":[{{"index":0,"id":"call_{generation_id}","type":"function","function":{function}}}]'


def without_choices(generation_id: str, created: int, model: str, used: str | None) -> bytes:
    """Return an answer that has no choices."""
    return f"{_head(generation_id, created, model, 'chat.completion')}]{_used(used)}}}".encode()


def _head(generation_id: str, created: int, model: str, kind: str) -> str:
    """Return a document's beginning, up to its list of choices."""
    return f'{{"id":"{generation_id}",{_origin(model)},"object":"{kind}","created":{created},"choices":['


@lru_cache(maxsize=256)
def _origin(model: str) -> str:
    return f'"provider":"{PROVIDER}","model":{quoted(model)}'


def _used(used: str | None) -> str:
    return f',"usage":{used}' if used else ""


class Chunks:
    """The events of one stream."""

    __slots__ = ("_head",)

    def __init__(self, generation_id: str, created: int, model: str) -> None:
        self._head = f"data: {_head(generation_id, created, model, 'chat.completion.chunk')}"

    def text(self, piece: str, finish: str | None = None) -> bytes:
        reason = f'"{finish}"' if finish else "null"
        return (
            f'{self._head}{{"index":0,"delta":{{"role":"assistant","content":{quoted(piece)}}},'
            f'"finish_reason":{reason},"native_finish_reason":{reason},"logprobs":null}}]}}\n\n'
        ).encode()

    def call(self, generation_id: str, call: Call) -> bytes:
        """Return the events of a function that is to be called: its name, then its arguments in two pieces."""
        half = len(call.arguments) // 2
        first = (
            f'"id":"call_{generation_id}","type":"function","function":{{"name":{quoted(call.name)},"arguments":""}}'
        )
        rest = [f'"function":{{"arguments":{quoted(one)}}}' for one in (call.arguments[:half], call.arguments[half:])]
        return b"".join(
            (
                f'{self._head}{{"index":0,"delta":{{"role":"assistant","content":null,"tool_calls":[{{"index":0,{one}}}]}},'
                '"finish_reason":null,"native_finish_reason":null,"logprobs":null}]}\n\n'
            ).encode()
            for one in (first, *rest)
        )

    def usage(self, used: str) -> bytes:
        return f'{self._head}],"usage":{used}}}\n\n'.encode()

    def error(self, error: str) -> bytes:
        """Return the event that an error in mid-stream is: a top-level error and the finish reason `error`."""
        return (
            f'{self._head}{{"index":0,"delta":{{"role":"assistant","content":""}},"finish_reason":"error",'
            f'"native_finish_reason":"error","logprobs":null}}],"error":{error}}}\n\n'
        ).encode()


def pieces(text: str, chars: int) -> Sequence[str]:
    """Cut a text into pieces of `chars` characters."""
    return [text[start : start + chars] for start in range(0, len(text), chars)]


def error(code: int | str, message: str, error_type: str, **more: Any) -> str:
    """Return the error object. Raises ValueError for what JSON cannot carry."""
    metadata = {"error_type": error_type, "provider_name": PROVIDER}
    return json.dumps({"code": code, "message": message, "metadata": metadata, **more}, allow_nan=False)


def error_body(
    status: int, message: str, error_type: str | None = None, code: int | str | None = None, **more: Any
) -> bytes:
    """Return the body of an error response."""
    kind = error_type or error_type_of(status)
    return f'{{"error":{error(code if code is not None else status, message, kind, **more)}}}'.encode()


def error_type_of(status: int) -> str:
    return ERROR_TYPES.get(status, "server" if status >= 500 else "invalid_request")
