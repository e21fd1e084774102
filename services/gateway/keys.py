"""API keys: `Authorization: Bearer sgk_…` or `x-api-key: sgk_…`."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from services.gateway.guard import NotKnown, TooManyTries
from services.gateway.principal import Account, Principal
from shared.access import letters
from shared.access.records import Records
from shared.contracts.access import Allowance, ApiKey

MISSES_A_SECOND: Final = 20.0
MISSES_AT_ONCE: Final = 100.0
"""Ids that nobody made here, or under a secret that was given up, are looked up only so often."""
FOREVER: Final = datetime.max.replace(tzinfo=UTC)
HOW: Final = "send it as `Authorization: Bearer sgk_…` or `x-api-key: sgk_…`; `segue keys create` makes one"


@dataclass(slots=True)
class Keys:
    """Knows keys. Everything about them is in `records`, so a wrong key costs the bus nothing beyond the bound."""

    records: Records
    secrets: Sequence[bytes]
    now: Callable[[], datetime]
    _left: float = MISSES_AT_ONCE
    _at: float = field(default_factory=time.monotonic)

    async def principal_of(self, credential: str | None) -> Principal:
        """Return whom a key stands for."""
        if credential is None:
            raise NotKnown(f"an API key is missing: {HOW}")
        id_ = letters.id_of(credential)
        if id_ is None:
            raise NotKnown(f"this is no API key, or it was not copied whole (its checksum is wrong): {HOW}")
        if not letters.is_ours(id_, self.secrets) and not self.records.has_key(id_) and not self._may_look():
            raise TooManyTries
        key = await self.records.key(id_)
        until = self._proven(credential, key) if key is not None else None
        if key is None or until is None:
            raise NotKnown("this API key is not known: it was deleted, or rotated and its grace is over")
        if key.revoked_at is not None:
            raise NotKnown(f"this API key was revoked at {key.revoked_at:%Y-%m-%d %H:%M} UTC: use another")
        if key.expires_at is not None and key.expires_at <= self.now():
            raise NotKnown(f"this API key expired at {key.expires_at:%Y-%m-%d %H:%M} UTC: have another made")
        return Principal(
            key.tenant,
            key.id,
            frozenset(key.scopes),
            await accounts(self.records, key.tenant, f"key.{key.id}", key.allowance),
            f"key {key.id}",
            None if until == FOREVER else until,
        )

    def _proven(self, credential: str, key: ApiKey) -> datetime | None:
        """Return until when a credential proves a key; None: it does not, or does no more."""
        ends = [key.expires_at or FOREVER]
        if not letters.matches(credential, key.digest, self.secrets):
            earlier = key.earlier
            if earlier is None or not letters.matches(credential, earlier.digest, self.secrets):
                return None
            if earlier.until <= self.now():
                return None
            ends.append(earlier.until)
        return min(ends)

    def _may_look(self) -> bool:
        now = time.monotonic()
        self._left = min(MISSES_AT_ONCE, self._left + (now - self._at) * MISSES_A_SECOND)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


async def accounts(
    records: Records, tenant: str, own: str | None = None, allowance: Allowance | None = None
) -> tuple[Account, ...]:
    """Return the accounts with limits that a credential draws on: its own and its tenant's."""
    found = []
    if own is not None and allowance is not None and allowance != Allowance():
        found.append(Account(own, allowance))
    record = await records.tenant(tenant)
    if record is not None and record.allowance != Allowance():
        found.append(Account(f"tenant.{tenant}", record.allowance))
    return tuple(found)
