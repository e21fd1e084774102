"""Chat completions as they go out: whole, or as chunks. Pure. (OpenAI "Chat", "Streaming")"""

from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_core import to_json

from services.gateway.http.openai import outcome
from services.gateway.http.openai.failures import Failing, of_run
from services.gateway.http.openai.outcome import Asked
from services.gateway.http.openai.pieces import Pieces
from services.gateway.http.openai.steps import Steps
from shared.contracts.events import CallSettled, RunCategorized, RunEnded, RunPlanned
from shared.contracts.message import Usage

DONE: Final = b"data: [DONE]\n\n"


def usage_of(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens, "audio_tokens": 0},
    }


def completion(asked: Asked, ended: RunEnded) -> dict[str, Any]:
    """Return a whole chat completion of a run that went well."""
    text, calls = outcome.text_of(asked, ended), outcome.calls_of(ended)
    message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    return {
        "id": id_of(asked),
        "object": "chat.completion",
        "created": int(asked.run.born_at.timestamp()),
        "model": asked.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": outcome.finish_reason(ended)}],
        "usage": usage_of(ended.spent.usage),
        "system_fingerprint": outcome.fingerprint(asked, simulated=ended.spent.simulated),
        "segue": outcome.segue(asked, ended),
    }


def id_of(asked: Asked) -> str:
    return f"chatcmpl-{asked.run.run_id}"


@dataclass(slots=True)
class Chunks:
    """A chat completion as a stream: fed with what happens to its run, gives what goes out."""

    asked: Asked
    simulated: bool
    include_usage: bool = False
    _steps: Steps = field(default_factory=Steps)
    _pieces: Pieces = field(default_factory=Pieces)

    def opened(self) -> bytes:
        return self._chunk({"role": "assistant", "content": ""}, segue={"run_id": self.asked.run.run_id})

    def step(self, fact: RunCategorized | RunPlanned | CallSettled) -> bytes:
        line = self._steps.take(fact)
        return self._chunk({"reasoning_content": f"{line}\n"}) if line is not None else b""

    def answering(self) -> bytes:
        return b""

    def began(self, attempt: int) -> None:
        self._pieces.begin(attempt)

    def token(self, attempt: int, offset: int, text: str) -> bytes:
        out = self._pieces.take(attempt, offset, text)
        return self._chunk({"content": out}) if out else b""

    def ended(self, ended: RunEnded) -> bytes:
        """Return the rest of the stream."""
        if ended.outcome != "completed":
            return self.failed(of_run(ended))
        rest = self._pieces.rest(outcome.text_of(self.asked, ended))
        if rest is None:
            return self.failed(began_again(self.asked))
        out = [self._chunk({"content": rest})] if rest else []
        if calls := outcome.calls_of(ended):
            out.append(self._chunk({"tool_calls": [{"index": place, **one} for place, one in enumerate(calls)]}))
        self.simulated = ended.spent.simulated
        told = outcome.segue(self.asked, ended)
        out.append(self._chunk({}, outcome.finish_reason(ended), segue=told))
        if self.include_usage:
            out.append(_event({**self._head(), "choices": [], "usage": usage_of(ended.spent.usage)}))
        return b"".join([*out, DONE])

    def failed(self, failing: Failing) -> bytes:
        """Return how a stream ends that is not whole: with the error, and without [DONE]."""
        return _event({"error": failing.error})

    def _chunk(self, delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        usage = {"usage": None} if self.include_usage else {}
        return _event({**self._head(), "choices": [choice], **usage, **more})

    def _head(self) -> dict[str, Any]:
        return {
            "id": id_of(self.asked),
            "object": "chat.completion.chunk",
            "created": int(self.asked.run.born_at.timestamp()),
            "model": self.asked.model,
            "system_fingerprint": outcome.fingerprint(self.asked, simulated=self.simulated),
        }


def began_again(asked: Asked) -> Failing:
    """Return the error of a stream of which some text had gone out when the model was asked anew and said another."""
    run_id = asked.run.run_id
    said = (
        "the model call broke off after some of its text had gone out, and another attempt gave another answer: "
        f"forget this one. The whole answer is at GET /v1/responses/resp_{run_id}"
    )
    return Failing(502, said, "stream_began_again", None, run_id, final=True)


def _event(body: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % to_json(body)
