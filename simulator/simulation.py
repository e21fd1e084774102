"""The state of one simulator: seed, latency profile, scripted faults, ledger, and the ids that it gives out."""

import os
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Final

from simulator.faults import Script
from simulator.latency import PROFILES, Profile
from simulator.ledger import Ledger

_NUMBERS: Final = 1 << 32


MOST_JOBS: Final = 10_000


@dataclass(slots=True)
class Job:
    """A video that is being made."""

    name: str
    ready_at: float
    """Seconds since the epoch."""
    prompt: str
    seconds: float
    chance: int
    cost_usd: float
    fails: str | None = None
    """`error`, `filtered` or `lost` instead of a video."""


@dataclass(slots=True)
class Simulation:
    """Everything that changes; the protocols share it."""

    seed: int
    profile: Profile
    profile_name: str
    ledger: Ledger = field(default_factory=Ledger)
    script: Script = field(default_factory=Script)
    jobs: dict[str, "Job"] = field(default_factory=dict)
    """Videos by the name that their provider gave them; the latest few."""
    _boot: str = field(default_factory=lambda: os.urandom(4).hex())
    _number: int = 0
    _today: date = date.min
    _tomorrow: float = 0.0

    def next_number(self) -> int:
        self._number = (self._number + 1) % _NUMBERS
        return self._number

    def generation_id(self, number: int, created: int) -> str:
        """Return an id that no other request has, of this or of another start."""
        return f"gen-{created}-{self._boot}{number:08x}"

    def keep(self, job: "Job") -> None:
        """Remember a job; the oldest is forgotten for it."""
        if len(self.jobs) >= MOST_JOBS:
            del self.jobs[next(iter(self.jobs))]
        self.jobs[job.name] = job

    def day(self, now: float) -> date:
        """Return the day of a time in seconds since the epoch; made anew only when the last one is over."""
        if now >= self._tomorrow:
            self._today = datetime.fromtimestamp(now, UTC).date()
            self._tomorrow = (now // 86_400 + 1) * 86_400
        return self._today

    def use(self, profile: Profile, name: str = "custom") -> None:
        self.profile, self.profile_name = profile, name

    def reset(self, profile: str) -> None:
        """Go back to the beginning: no faults, no ledger, the profile of the start."""
        self.script.clear()
        self.ledger.clear()
        self.jobs.clear()
        self.use(PROFILES[profile], profile)
