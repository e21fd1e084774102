"""What the history keeps: rows about runs, calls and questions to people. Values, made by `projection`."""

from dataclasses import dataclass, field
from typing import Literal

Base = Literal["accepted", "planning", "waiting", "running", "paused", "completed", "failed", "denied", "cancelled"]


@dataclass(slots=True)
class RunRow:
    """What a stretch of the log says about one run; None: it says nothing about that. Times in µs since 1970."""

    tenant: str
    run_id: str
    priority: str
    session_id: str | None
    born_us: int
    deadline_us: int
    seq: int = 0
    """Of the latest fact that is taken in."""
    kind: str | None = None
    state: Base | None = None
    title: str | None = None
    template: str | None = None
    schedule: str | None = None
    parent: str | None = None
    lineage: str | None = None
    category: str | None = None
    source: str | None = None
    role: str | None = None
    model: str | None = None
    ended_us: int | None = None
    baseline_usd: float | None = None
    code: str | None = None
    """The fault's code of a run that did not succeed."""


@dataclass(slots=True)
class CallRow:
    """A settled call, what a call cost after somebody else had settled it (`late`), or an attempt whose cost its call
    leaves open: `unknown`, then `reconciled`."""

    tenant: str
    run_id: str
    call: str
    """`<purpose>.<call>`, with `.late` behind it where it came late, `.attempt.<n>` of an attempt."""
    purpose: str
    day: str
    """The day in UTC on which it was settled, `2026-11-27`."""
    at_us: int
    role: str
    provider: str
    model: str
    outcome: str
    simulated: bool
    attempts: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost_usd: float
    cost_known: bool
    saved_usd: float
    took_s: float
    variant: str | None = None
    """Which of the role's models, where it has several."""
    reserved_usd: float = 0.0
    """Of an attempt of unknown cost: the most that it can be."""
    code: str | None = None
    """Of an attempt: how it ended, as far as that is known."""
    asked: bool = False
    """Of an attempt of unknown cost: its provider is asked about it."""


@dataclass(slots=True)
class QuestionRow:
    """A task that waits for a person; with `approved` once somebody has said a word."""

    tenant: str
    run_id: str
    task: str
    output: str | None = None
    message: str | None = None
    until_us: int | None = None
    approved: bool | None = None
    by: str | None = None


@dataclass(slots=True)
class Rows:
    """What a stretch of the log comes to."""

    runs: dict[tuple[str, str], RunRow] = field(default_factory=dict)
    calls: dict[tuple[str, str, str], CallRow] = field(default_factory=dict)
    questions: dict[tuple[str, str, str], QuestionRow] = field(default_factory=dict)
    started: dict[tuple[str, str], int] = field(default_factory=dict)
    """Runs of which a task was begun, with the fact's sequence; perhaps their plan is in an earlier stretch."""
    skipped: int = 0
    """Facts that cannot be read."""
