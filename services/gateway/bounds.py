"""What one gateway process takes at most, by the environment."""

from collections.abc import Mapping
from dataclasses import dataclass

from shared.config.errors import ConfigInvalid, Problem

MOST_BODY_BYTES = 16 * 1024 * 1024
MOST_WAITING = 4_000
MOST_CONNECTIONS = 10_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """Beyond these a caller is told so at once."""

    body_bytes: int = MOST_BODY_BYTES
    """SEGUE_MAX_BODY_BYTES"""
    waiting: int = MOST_WAITING
    """SEGUE_MAX_WAITING: requests that wait for their answer."""
    connections: int = MOST_CONNECTIONS
    """SEGUE_MAX_CONNECTIONS: open connections, those that nobody says anything on among them."""

    @property
    def waiting_of_one(self) -> int:
        """Of one tenant, where there may be several: a quarter is left to the others."""
        return max(1, self.waiting - self.waiting // 4)

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> "Bounds":
        """Read the variables. Raises `ConfigInvalid` naming every one whose value cannot be used."""
        problems: list[Problem] = []

        def positive(name: str, default: int) -> int:
            text = variables.get(name, "").strip()
            if not text:
                return default
            if not text.isascii() or not text.isdigit() or int(text) < 1:
                problems.append(Problem(name, repr(text), "a whole number of at least 1"))
                return default
            return int(text)

        found = cls(
            body_bytes=positive("SEGUE_MAX_BODY_BYTES", MOST_BODY_BYTES),
            waiting=positive("SEGUE_MAX_WAITING", MOST_WAITING),
            connections=positive("SEGUE_MAX_CONNECTIONS", MOST_CONNECTIONS),
        )
        if problems:
            raise ConfigInvalid("environment", problems)
        return found
