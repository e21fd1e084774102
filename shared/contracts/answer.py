"""A run's answer as outside systems get it, by callback and over the bus. Fields may be added, never renamed."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

from pydantic import AwareDatetime, JsonValue, NonNegativeFloat, NonNegativeInt
from pydantic_core import to_json

from shared.contracts.callbacks import DeliverCallback
from shared.contracts.commands import WorkflowRequest
from shared.contracts.events import RunAccepted, RunEnded
from shared.contracts.ids import Category
from shared.contracts.message import ErrorType, Part, ToolCall

PREVIEW_CHARS: Final = 2_000


class AnswerArtifact(Part):
    """An image or a video that a model made."""

    url: str
    """Its path on the gateway."""
    media_type: str
    bytes: NonNegativeInt
    expires_at: AwareDatetime


class AnswerError(Part):
    """Why a run did not complete."""

    type: ErrorType
    code: str
    """Stable and short: `deadline`, `provider_unavailable`, …"""
    message: str


class AnswerUsage(Part):
    """Tokens as the providers counted them, of all calls of the run."""

    prompt_tokens: NonNegativeInt
    completion_tokens: NonNegativeInt
    total_tokens: NonNegativeInt


class RunAnswer(Part):
    """What a run's caller gets: the same as over HTTP, by the same names."""

    run_id: str
    outcome: Literal["completed", "failed", "denied", "cancelled"]
    session_id: str | None = None
    category: Category | None = None
    response: str | None = None
    """The answer's text; None: a workflow that says nothing beside its result, or a failure."""
    acknowledgement: str | None = None
    result: dict[str, JsonValue] | None = None
    """A workflow's variables and outputs by name."""
    tool_calls: tuple[ToolCall, ...] | None = None
    """Functions of an OpenAI client's that the model wants called."""
    finish_reason: str | None = None
    """Of the one call that answered, as its provider says: `length`, where the answer was cut short."""
    artifacts: tuple[AnswerArtifact, ...] = ()
    error: AnswerError | None = None
    note: str | None = None
    """Why it was answered in another way than it would be usually."""
    model_used: str | None = None
    calls: NonNegativeInt = 0
    cost_usd: NonNegativeFloat = 0.0
    cost_known: bool = True
    usage: AnswerUsage
    simulated: bool = False
    born_at: AwareDatetime
    ended_at: AwareDatetime
    took_s: NonNegativeFloat
    parent: str | None = None
    """Of a callback: the run that this one is a retry or a fork of."""
    schedule: str | None = None
    """Of a callback: the schedule that began the run."""
    left_out: tuple[str, ...] = ()
    """What is too long to be carried and is cut to its beginning: `response`, `result.<name>`; or, being nothing
    without its end, is not there at all: `tool_calls`. It can be read whole."""


class CallbackBody(Part):
    """What is POSTed to a callback's URL (https://www.standardwebhooks.com)."""

    type: Literal["run.ended"] = "run.ended"
    timestamp: AwareDatetime
    """When the run ended."""
    data: RunAnswer


def delivery_of(accepted: RunAccepted, begun_at: datetime, number: int = 1) -> DeliverCallback | None:
    """Return the command that has a run's answer POSTed; None: nobody wants that."""
    if accepted.callback is None:
        return None
    request, lineage = accepted.request, accepted.lineage
    return DeliverCallback(
        run=accepted.run,
        callback=accepted.callback,
        number=number,
        begun_at=begun_at,
        parent=None if lineage is None else lineage.parent,
        schedule=request.schedule if isinstance(request, WorkflowRequest) else None,
    )


def answer_of(ended: RunEnded, most_bytes: int) -> RunAnswer:
    """Return a run's answer in at most about so many bytes of JSON: what is longest is cut first, and named."""
    run, spent, fault = ended.run, ended.spent, ended.fault
    answer = RunAnswer(
        run_id=run.run_id,
        outcome=ended.outcome,
        session_id=run.session_id,
        category=ended.category,
        response=ended.text,
        acknowledgement=ended.acknowledgement,
        result=ended.result,
        tool_calls=ended.tool_calls,
        finish_reason=ended.finish_reason,
        artifacts=tuple(
            AnswerArtifact(url=one.path, media_type=one.media_type, bytes=one.bytes, expires_at=one.expires_at)
            for one in ended.artifacts
        ),
        error=None if fault is None else AnswerError(type=fault.type, code=fault.code, message=fault.message),
        note=ended.note,
        model_used=ended.model,
        calls=spent.calls,
        cost_usd=spent.cost_usd,
        cost_known=spent.cost_known,
        usage=AnswerUsage(
            prompt_tokens=spent.usage.prompt_tokens,
            completion_tokens=spent.usage.completion_tokens,
            total_tokens=spent.usage.total_tokens,
        ),
        simulated=spent.simulated,
        born_at=run.born_at,
        ended_at=ended.ended_at,
        took_s=round(max(0.0, (ended.ended_at - run.born_at).total_seconds()), 6),
    )
    return _within(answer, most_bytes)


def _within(answer: RunAnswer, most_bytes: int) -> RunAnswer:
    size = len(answer.__pydantic_serializer__.to_json(answer))
    if size <= most_bytes:
        return answer
    parts: dict[str, JsonValue] = {"response": answer.response}
    parts |= {f"result.{name}": value for name, value in (answer.result or {}).items()}
    sizes = {name: len(to_json(value)) for name, value in parts.items()}
    left_out = []
    for name in sorted(parts, key=lambda one: -sizes[one]):
        if size <= most_bytes:
            break
        short = _beginning(parts[name])
        saved = sizes[name] - len(to_json(short))
        if saved > 0:
            parts[name] = short
            size -= saved
            left_out.append(name)
    response = parts["response"]
    kept = {name: parts[f"result.{name}"] for name in answer.result} if answer.result is not None else None
    tool_calls = answer.tool_calls
    if size > most_bytes and tool_calls is not None:
        size -= len(to_json(tool_calls))
        tool_calls, left_out = None, [*left_out, "tool_calls"]
    if size > most_bytes and kept is not None:  # very many values: none of them
        kept, left_out = None, [*(name for name in left_out if not name.startswith("result.")), "result"]
    assert response is None or isinstance(response, str)
    cut = {"response": response, "result": kept, "tool_calls": tool_calls, "left_out": tuple(left_out)[:1_000]}
    return answer.model_copy(update=cut)


def _beginning(value: JsonValue) -> str:
    text = value if isinstance(value, str) else to_json(value).decode()
    return text[:PREVIEW_CHARS]


def piece_of(ended: RunEnded, name: str) -> str | None:
    """Return a part of the answer as text, whole: `response`, `result.<name>` or `tool_calls`; None: there is none."""
    if name == "response":
        return ended.text
    if name == "tool_calls":
        return None if ended.tool_calls is None else to_json(ended.tool_calls).decode()
    result: Mapping[str, JsonValue] = ended.result or {}
    key = name.removeprefix("result.")
    if key == name or key not in result:
        return None
    value = result[key]
    return value if isinstance(value, str) else to_json(value).decode()
