"""How a gateway asks who somebody is, as its environment chose."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from services.gateway.bearers import Bearers
from services.gateway.guard import Authenticator
from services.gateway.keys import Keys
from services.gateway.principal import EVERYBODY, Principal
from shared.access.records import Records
from shared.access.settings import auth_of, secrets_of
from shared.config.environment import Environment


@dataclass(frozen=True, slots=True)
class Everybody:
    """Asks nobody, and the bus nothing: all are the one tenant, whose limits the executors keep."""

    async def principal_of(self, credential: str | None) -> Principal:
        return EVERYBODY


@dataclass(frozen=True, slots=True)
class Identification:
    """SEGUE_AUTH and what belongs to it."""

    auth: str = "off"
    secrets: Sequence[bytes] = ()
    """Of keys; the first makes new ones."""
    environment: Environment = field(default_factory=Environment)

    @classmethod
    def read(cls, environment: Environment) -> "Identification":
        """Raises `ConfigInvalid` naming what has to be chosen or is missing."""
        auth = auth_of(environment)
        return cls(auth, secrets_of(environment) if auth == "keys" else (), environment)

    def authenticator(self, records: Records, now: Callable[[], datetime]) -> Authenticator:
        if self.auth == "keys":
            return Keys(records, self.secrets, now)
        if self.auth == "jwt":
            return Bearers.read(self.environment, records)
        return Everybody()
