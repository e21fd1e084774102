"""A run in the words of the AG-UI protocol (docs.ag-ui.com, version 1.0). Pure: facts and texts in, events out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from services.gateway.http.answers import to_chat
from services.gateway.pages import Fact
from services.gateway.texts import Said
from shared.contracts.events import RunEnded
from shared.transcript import Restart

PROTOCOL: Final = "1.0"
ANSWERS: Final = frozenset({"answer", "final"})
"""The calls whose texts are the answer; what tasks say in between are steps."""

Event = dict[str, Any]


@dataclass(slots=True)
class Translation:
    """One run's. Every step that it starts it finishes, and every message that it begins it ends."""

    thread: str
    run: str
    """As the client names it."""
    messages: Sequence[Mapping[str, Any]]
    """The conversation as the client knows it."""
    our_run: str
    _text: str = ""
    _message: str | None = None
    _numbers: int = 0
    _steps: list[str] = field(default_factory=list)
    _acknowledged: str | None = None

    def begin(self) -> list[Event]:
        return [self._event("RUN_STARTED", threadId=self.thread, runId=self.run, protocolVersion=PROTOCOL)]

    def said(self, said: Said) -> list[Event]:
        """Translate a piece of a call's text."""
        if said.call not in ANSWERS:
            return []
        if isinstance(said.told, Restart):
            return self._take_back()
        self._text += said.told.text
        return [*self._open(), self._event("TEXT_MESSAGE_CONTENT", messageId=self._message, delta=said.told.text)]

    def fact(self, fact: Fact) -> list[Event]:
        """Translate a fact of the run."""
        match fact.name.split("."):
            case ["call", purpose, call, "attempt", _]:
                return self._start(f"{purpose} {call}")
            case ["call", purpose, call, "settled"]:
                found = self._finish(f"{purpose} {call}")
                if call == "acknowledge" and isinstance(fact.data, dict) and (text := fact.data.get("text")):
                    found += self._acknowledge(str(text))
                return found
            case ["asked", task]:
                value = {"run_id": self.our_run, "task": task, **(fact.data or {})}
                return [self._event("CUSTOM", name="segue.approval_asked", value=value)]
            case ["category"] if isinstance(fact.data, dict):
                value = {"run_id": self.our_run, "category": fact.data.get("category")}
                return [self._event("CUSTOM", name="segue.category", value=value)]
        return []

    def end(self, ended: RunEnded) -> list[Event]:
        """Translate the end. What of the answer was not said as it came in is said now."""
        answer = to_chat(ended)
        body = answer.body.model_dump(mode="json")
        steps = [event for step in reversed(self._steps) for event in self._finish(step)]
        usage = [{"inputTokens": ended.spent.usage.prompt_tokens, "outputTokens": ended.spent.usage.completion_tokens}]
        if ended.outcome == "cancelled":
            outcome = {"type": "cancelled"}
            return [*self._close(), *steps, self._last("RUN_FINISHED", outcome=outcome, result=body, usage=usage)]
        if answer.status != 200:
            code = ended.fault.code if ended.fault is not None else ended.outcome
            return [
                *self._close(),
                *steps,
                self._event("RUN_ERROR", message=body["detail"], code=code, usage=usage),
            ]
        text, found = body.pop("response"), list[Event]()
        if not text.startswith(self._text):
            found += self._take_back()
        if rest := text[len(self._text) :]:
            found += [*self._open(), self._event("TEXT_MESSAGE_CONTENT", messageId=self._message, delta=rest)]
            self._text = text
        last = self._last("RUN_FINISHED", outcome={"type": "success"}, result=body, usage=usage)
        return [*found, *self._close(), *steps, last]

    def fail(self, message: str, code: str) -> list[Event]:
        """Say that the run can no longer be followed here."""
        return [*self._close(), self._event("RUN_ERROR", message=message, code=code)]

    def _acknowledge(self, text: str) -> list[Event]:
        if self._acknowledged is not None or self._message is not None:
            return []
        self._acknowledged = text
        name = f"{self.our_run}-acknowledgement"
        return [
            self._event("TEXT_MESSAGE_START", messageId=name, role="assistant"),
            self._event("TEXT_MESSAGE_CONTENT", messageId=name, delta=text),
            self._event("TEXT_MESSAGE_END", messageId=name),
        ]

    def _take_back(self) -> list[Event]:
        """What was said counts no more: the conversation is said anew without it."""
        if not self._text:
            return []
        self._text = ""
        said = [*self.messages]
        if self._acknowledged is not None:
            name = f"{self.our_run}-acknowledgement"
            said.append({"id": name, "role": "assistant", "content": self._acknowledged})
        return [*self._close(), self._event("MESSAGES_SNAPSHOT", messages=said)]

    def _open(self) -> list[Event]:
        if self._message is not None:
            return []
        self._numbers += 1
        self._message = f"{self.our_run}-{self._numbers}"
        return [self._event("TEXT_MESSAGE_START", messageId=self._message, role="assistant")]

    def _close(self) -> list[Event]:
        name, self._message = self._message, None
        return [] if name is None else [self._event("TEXT_MESSAGE_END", messageId=name)]

    def _start(self, step: str) -> list[Event]:
        if step in self._steps:
            return []  # another attempt at the same
        self._steps.append(step)
        return [self._event("STEP_STARTED", stepName=step)]

    def _finish(self, step: str) -> list[Event]:
        """Finish a step; one that began in no attempt (an answer from the cache) was none."""
        if step not in self._steps:
            return []
        self._steps = [one for one in self._steps if one != step]
        return [self._event("STEP_FINISHED", stepName=step)]

    def _last(self, kind: str, **fields: Any) -> Event:
        return self._event(kind, threadId=self.thread, runId=self.run, **fields)

    @staticmethod
    def _event(kind: str, **fields: Any) -> Event:
        return {"type": kind, **fields}
