"""How the history is kept, by the environment."""

from dataclasses import dataclass

from shared.bus.connection import Bus
from shared.config.environment import Environment
from shared.config.errors import ConfigInvalid, Problem
from shared.history.projector import Projector
from shared.history.store import History, WrongHistoryUrl


@dataclass(frozen=True, slots=True)
class Keeping:
    """A database, and for how many days it keeps runs and what calls cost."""

    history: History
    runs_days: float
    calls_days: float

    @classmethod
    def read(cls, environment: Environment, retention_days: float) -> "Keeping | None":
        """Return how it is kept; None where it is off. Raises `ConfigInvalid` for a URL that names no database."""
        if environment.history_url == "off":
            return None
        try:
            history = History(environment.history_url)
        except WrongHistoryUrl as wrong:
            raise ConfigInvalid(
                "environment", [Problem("SEGUE_HISTORY_URL", "a value that is not shown", str(wrong))]
            ) from wrong
        return cls(history, retention_days, max(environment.history_days, retention_days))

    def projector(self, bus: Bus) -> Projector:
        return Projector(bus, self.history, runs_days=self.runs_days, calls_days=self.calls_days)
