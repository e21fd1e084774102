"""Who are you: every way to say so."""

from dataclasses import dataclass
from typing import Protocol

from services.gateway.principal import Principal


class NotKnown(Exception):
    """The credential is none that counts; the message says what to do."""


class TooManyTries(Exception):
    """So many unknown credentials come in that this one is not looked up now."""


class Authenticator(Protocol):
    """Knows one kind of credential."""

    async def principal_of(self, credential: str | None) -> Principal:
        """Return whom a credential stands for. Raises `NotKnown`, `TooManyTries`, `BusError`."""
        ...


@dataclass(slots=True)
class Guard:
    """The authenticator of a process: there once the bus is."""

    authenticator: Authenticator | None = None
