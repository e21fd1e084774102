"""What is known of an answer while it is being made, from its events, and how a terminal shows it."""

import time
from collections.abc import Callable
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.spinner import Spinner
from rich.text import Text

from client import ApiError, ConnectionCut, Event, RequestFailed

SHOWN_LINES: Final = 12
SHOWN_CALLS: Final = 3
WHAT: Final = {"L": "one strong model", "M": "one medium model", "H": "a workflow of several models"}


class Progress:
    """Takes events in, in any order that they come."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._spinner = Spinner("dots")
        self.run_id: str | None = None
        self.category: str | None = None
        self.acknowledgement: str | None = None
        self.texts: dict[str, str] = {}
        """What each call has said so far."""
        self.answer: dict[str, Any] | None = None
        self.failure: RequestFailed | None = None

    def take(self, event: Event) -> None:
        """Take one event in. Unknown ones are for later versions."""
        data = event.data
        match event.name:
            case "accepted":
                self.run_id = data.get("run_id")
            case "category":
                self.category = data.get("category")
            case "acknowledgement":
                self.acknowledgement = data.get("text")
            case "restart":
                self.texts.pop(str(data.get("call")), None)
            case "token":
                call = str(data.get("call"))
                self.texts[call] = self.texts.get(call, "")[: int(data.get("offset", 0))] + str(data.get("text", ""))
            case "answer":
                self.answer = data
            case "error":
                run_id = data.get("run_id") or self.run_id
                self.failure = ApiError(
                    int(data.get("status", 500)), {"detail": data.get("detail", data), "run_id": run_id}
                )

    def result(self) -> dict[str, Any]:
        """Return the answer. Raises `RequestFailed` when there is none."""
        if self.failure is not None:
            raise self.failure
        if self.answer is None:
            raise ConnectionCut("the stream ended without an answer; the run goes on", self.run_id)
        return self.answer

    def state(self) -> str:
        """Return one line about what happens now."""
        what = "categorising" if self.category is None else f"{self.category}, {WHAT.get(self.category, '?')}"
        return f"{what} · {self._clock() - self._began:.1f} s"

    def __rich__(self) -> RenderableType:
        self._spinner.text = Text(self.state(), style="dim")
        parts: list[RenderableType] = [self._spinner]
        if self.acknowledgement:
            parts.append(Text(self.acknowledgement, style="italic"))
        for call, text in list(self.texts.items())[-SHOWN_CALLS:]:
            shown = "\n".join(text.splitlines()[-SHOWN_LINES:])
            parts.append(Text(f"{call}: {shown}" if len(self.texts) > 1 else shown, style="dim"))
        return Group(*parts)


def footer(answer: dict[str, Any]) -> str:
    """Return one line about an answer: category, model, cost, time, run."""
    cost = answer.get("cost_usd")
    parts = [str(answer.get("category")), str(answer.get("model_used"))]
    if answer.get("simulated"):
        parts.append("simulated")
    if "calls" in answer:
        parts.append(f"{answer['calls']} calls" if answer["calls"] != 1 else "1 call")
    known = cost is not None and answer.get("cost_known", True)
    parts.append(f"{float(cost):.6f} USD" if known and cost is not None else "cost not known")
    if "took_s" in answer:
        parts.append(f"{float(answer['took_s']):.2f} s")
    parts.append(f"session {answer.get('session_id')}")
    parts.append(f"run {answer.get('run_id')}")
    return " · ".join(parts)
