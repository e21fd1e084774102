"""What the simulator was asked, by its own account: the other half of every check of money and limits."""

import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Final, Literal

KEPT: Final = 50_000
SHOWN_CHARS: Final = 160

Outcome = Literal["open", "answered", "error", "cut", "hung", "disconnected"]


@dataclass(slots=True)
class Entry:
    """One request. `outcome` is `open` while it is being answered."""

    number: int
    at: float
    """Seconds since the epoch, when the request was complete."""
    path: str
    model: str
    kind: str
    stream: bool
    run: str | None
    call: str | None
    attempt: str | None
    asked: str
    """The beginning of the last user message."""
    generation_id: str
    prompt_tokens: int
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float = 0.0
    status: int | None = None
    outcome: Outcome = "open"
    fault: str | None = None
    finish_reason: str | None = None
    disconnected: bool = False
    """Whether the client had gone before it had everything."""
    took_s: float | None = None
    era: int = 0
    """How often the ledger had been cleared when this began."""

    def shown(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__ if name != "era"}


class Ledger:
    """The latest requests, oldest first; bounded, and it says how many it let go."""

    def __init__(self, kept: int = KEPT) -> None:
        self.entries: deque[Entry] = deque(maxlen=kept)
        self.total = 0
        self.cost_usd = 0.0
        self.open = 0
        self.most_open = 0
        self.era = 0
        self._began = time.time()

    def add(self, entry: Entry) -> None:
        entry.era = self.era
        self.entries.append(entry)
        self.total += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)

    def settle(self, entry: Entry, outcome: Outcome, now: float) -> None:
        """Give an entry its end. Once: what comes later changes nothing."""
        if entry.outcome != "open":
            return
        entry.outcome = outcome
        entry.took_s = now - entry.at
        if entry.era == self.era:
            self.open -= 1
            self.cost_usd += entry.cost_usd

    def find(self, generation_id: str) -> Entry | None:
        return next((entry for entry in reversed(self.entries) if entry.generation_id == generation_id), None)

    def tagged(self, run: str, call: str, attempt: str) -> list[Entry]:
        """Return the requests that a caller has sent under these names of its own, oldest first."""
        return [one for one in self.entries if one.run == run and one.call == call and one.attempt == attempt]

    @property
    def complete_since(self) -> float:
        """From when on nothing is missing, in seconds since the epoch."""
        return self.entries[0].at if self.total > len(self.entries) else self._began

    def clear(self) -> None:
        """Forget everything. What is still being answered belongs to the time before and is not counted any more."""
        self.era += 1
        self.entries.clear()
        self._began = time.time()
        self.total = self.open = self.most_open = 0
        self.cost_usd = 0.0

    def shown(self, *, last: int | None = None, run: str | None = None) -> dict[str, Any]:
        """Return the ledger as the admin API shows it."""
        chosen = [entry for entry in self.entries if run is None or entry.run == run]
        if last is not None:
            chosen = chosen[-last:] if last > 0 else []
        return {
            "total": self.total,
            "dropped": self.total - len(self.entries),
            "open": self.open,
            "most_open": self.most_open,
            "cost_usd": round(self.cost_usd, 10),
            "entries": [entry.shown() for entry in chosen],
        }
