"""A response as a stream of typed events, each with a number that follows from the log. Pure.

So that a reader who was cut off can go on behind the last number that he has, at another gateway too: what was done has
the numbers of its place in the log; a piece of text has the number of the character that it reaches; what follows the
text has those behind. Numbers rise, and leave gaps. (ADR 0020)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_core import to_json

from services.gateway.http.openai import outcome, response
from services.gateway.http.openai.completion import began_again
from services.gateway.http.openai.failures import Failing
from services.gateway.http.openai.outcome import Asked
from services.gateway.http.openai.pieces import Pieces
from services.gateway.http.openai.steps import Steps
from shared.contracts.events import CallSettled, RunCategorized, RunEnded, RunPlanned

BEYOND_TEXT: Final = 100_000_000
"""Where a failure stands, as nobody can say how far its text had come."""
FIRST: Final = 2


@dataclass(slots=True)
class ResponseEvents:
    """Fed with what happens to a run, gives the events of its response."""

    asked: Asked
    after: int = -1
    """The last number that the reader has."""
    _steps: Steps = field(default_factory=Steps)
    _pieces: Pieces = field(default_factory=Pieces)
    _next: int = FIRST
    _text_at: int | None = None
    """The number of the event that begins the answer's item, once it is known."""
    _speaking: bool = False
    _last: int = 0

    @property
    def lines(self) -> list[str]:
        return self._steps.said

    def opened(self) -> bytes:
        begun = response.response(self.asked, (), None, "in_progress")
        return self._event(0, "response.created", response=begun) + self._event(
            1, "response.in_progress", response=begun
        )

    def step(self, fact: RunCategorized | RunPlanned | CallSettled) -> bytes:
        if self._text_at is not None or (line := self._steps.take(fact)) is None:
            return b""
        place, out = len(self.lines) - 1, b""
        if place == 0:
            item = response.reasoning_item(self.asked, (), "in_progress")
            out += self._following("response.output_item.added", output_index=0, item=item)
        where = {"item_id": f"rs_{self.asked.run.run_id}", "output_index": 0, "summary_index": place}
        part = {"type": "summary_text", "text": line}
        summary = "response.reasoning_summary"
        out += self._following(f"{summary}_part.added", **where, part={**part, "text": ""})
        out += self._following(f"{summary}_text.delta", **where, delta=line)
        out += self._following(f"{summary}_text.done", **where, text=line)
        return out + self._following(f"{summary}_part.done", **where, part=part)

    def answering(self) -> bytes:
        if self._text_at is not None:
            return b""
        out = b""
        if self.lines:
            item = response.reasoning_item(self.asked, self.lines)
            out = self._following("response.output_item.done", output_index=0, item=item)
        self._text_at = self._next
        return out

    def began(self, attempt: int) -> None:
        self._pieces.begin(attempt)

    def token(self, attempt: int, offset: int, text: str) -> bytes:
        out = self._pieces.take(attempt, offset, text)
        return self._speak(out) if out else b""

    def ended(self, ended: RunEnded) -> bytes:
        """Return the rest of the events."""
        out = self.answering()
        if ended.outcome != "completed":
            whole = response.response(self.asked, self.lines, ended)
            return out + self._event(self._beyond(), "response.failed", response=whole)
        text = outcome.text_of(self.asked, ended)
        rest = self._pieces.rest(text)
        if rest is None:
            return out + self.failed(began_again(self.asked))
        whole = response.response(self.asked, self.lines, ended)
        index = len(self.lines[:1])
        self._next = self._beginning() + FIRST
        if text:
            out += self._speak(rest)
            self._next = self._beginning() + FIRST + len(text)
            where = {"item_id": f"msg_{self.asked.run.run_id}", "output_index": index, "content_index": 0}
            out += self._following("response.output_text.done", **where, text=text, logprobs=[])
            out += self._following("response.content_part.done", **where, part=response.text_part(text))
            out += self._following("response.output_item.done", output_index=index, item=whole["output"][index])
            index += 1
        for place, item in enumerate(response.call_items(self.asked, ended), start=index):
            out += self._call(item, place)
        status = "incomplete" if whole["status"] == "incomplete" else "completed"
        return out + self._following(f"response.{status}", response=whole)

    def failed(self, failing: Failing) -> bytes:
        """Return an error of ours, which is not the run's: it bears the last number, so that reading can go on."""
        error = failing.error
        said = {"code": error["code"], "message": error["message"], "param": error["param"]}
        return _written(max(self._last, self.after), "error", said)

    def _speak(self, text: str) -> bytes:
        """Return the events of a piece of text, without what the reader has of it."""
        index, out = len(self.lines[:1]), b""
        where = {"item_id": f"msg_{self.asked.run.run_id}", "output_index": index, "content_index": 0}
        if not self._speaking:
            self._speaking = True
            item = response.message_item(self.asked, None, "in_progress")
            out = self._event(self._beginning(), "response.output_item.added", output_index=index, item=item)
            part = response.text_part("")
            out += self._event(self._beginning() + 1, "response.content_part.added", **where, part=part)
        reached = self._beginning() + 1 + self._pieces.sent_chars
        new = text[max(0, len(text) - (reached - self.after)) :] if self.after < reached else ""
        if new:
            out += self._event(reached, "response.output_text.delta", **where, delta=new, logprobs=[])
        return out

    def _call(self, item: dict[str, Any], index: int) -> bytes:
        where = {"item_id": item["id"], "output_index": index}
        said, named = ("input", {}) if "input" in item else ("arguments", {"name": item["name"]})
        begun = {**item, said: "", "status": "in_progress"}
        out = self._following("response.output_item.added", output_index=index, item=begun)
        kind = f"response.{item['type']}_{said}"
        out += self._following(f"{kind}.delta", **where, delta=item[said])
        out += self._following(f"{kind}.done", **where, **named, **{said: item[said]})
        return out + self._following("response.output_item.done", output_index=index, item=item)

    def _beginning(self) -> int:
        assert self._text_at is not None
        return self._text_at

    def _beyond(self) -> int:
        return self._beginning() + BEYOND_TEXT

    def _following(self, kind: str, **fields: Any) -> bytes:
        number, self._next = self._next, self._next + 1
        return self._event(number, kind, **fields)

    def _event(self, number: int, kind: str, **fields: Any) -> bytes:
        if number <= self.after:
            return b""
        self._last = number
        return _written(number, kind, fields)


def _written(number: int, kind: str, fields: Mapping[str, Any]) -> bytes:
    body = to_json({"type": kind, "sequence_number": number, **fields})
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), body)
