"""Make, list, rotate and revoke keys; write tenants: for the admin API, and for the command line on the bus."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.access import letters
from shared.access.accounts import today
from shared.bus.connection import Bus
from shared.contracts.access import Account, Allowance, ApiKey, EarlierSecret, Places, Scope, Tenant
from shared.contracts.ids import TenantId


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key, and its text, which is nowhere else."""

    key: ApiKey
    text: str


@dataclass(frozen=True, slots=True)
class Used:
    """What an account has used and holds."""

    account: Account
    runs: int


@dataclass(frozen=True, slots=True)
class KeyBook:
    """Every key and tenant. `secrets`: the server's; the first makes new keys."""

    bus: Bus
    secrets: Sequence[bytes]
    now: Callable[[], datetime]

    async def create(
        self,
        *,
        name: str,
        tenant: TenantId,
        scopes: Sequence[Scope],
        allowance: Allowance,
        expires_at: datetime | None,
        by: str,
    ) -> NewKey:
        """Make a key."""
        made = letters.make(secrets.token_bytes(letters.CHANCE_BYTES), self.secrets[0])
        key = ApiKey(
            id=made.id,
            name=name,
            tenant=tenant,
            scopes=tuple(dict.fromkeys(scopes)),
            allowance=allowance,
            digest=made.digest,
            last4=made.last4,
            created_at=self.now(),
            by=by,
            expires_at=expires_at,
        )
        await self.bus.keys.update(f"key.{made.id}", ApiKey, lambda _: key, fresh=True)
        return NewKey(key, made.text)

    async def rotate(self, id: str, grace: timedelta) -> NewKey | None:
        """Give a key a new secret; the old one works until the grace is over. None: there is no such key."""
        made = letters.make(secrets.token_bytes(letters.CHANCE_BYTES), self.secrets[0], id=id)
        now = self.now()

        def changed(key: ApiKey | None) -> ApiKey | None:
            if key is None or key.revoked_at is not None or key.digest == made.digest:
                return None
            earlier = EarlierSecret(digest=key.digest, last4=key.last4, until=now + grace)
            fresh = {"digest": made.digest, "last4": made.last4, "earlier": earlier, "rotated_at": now}
            return key.model_copy(update=fresh)

        key = await self.bus.keys.update(f"key.{id}", ApiKey, changed)
        return NewKey(key, made.text) if key is not None and key.digest == made.digest else None

    async def revoke(self, id: str) -> ApiKey | None:
        """Have a key refused from now on. Idempotent. None: there is no such key."""

        def changed(key: ApiKey | None) -> ApiKey | None:
            return None if key is None or key.revoked_at else key.model_copy(update={"revoked_at": self.now()})

        return await self.bus.keys.update(f"key.{id}", ApiKey, changed)

    async def change(self, id: str, allowance: Allowance) -> ApiKey | None:
        """Give a key other limits. None: there is no such key."""
        return await self.bus.keys.update(
            f"key.{id}", ApiKey, lambda key: None if key is None else key.model_copy(update={"allowance": allowance})
        )

    async def forget(self, id: str) -> bool:
        """Remove a key's record; whether it was there."""
        return await self.bus.keys.delete(f"key.{id}")

    async def key(self, id: str) -> ApiKey | None:
        return (await self.bus.keys.get(f"key.{id}", ApiKey))[0]

    async def keys(self) -> list[ApiKey]:
        """Return every key, by tenant and age."""
        found = (await self.bus.keys.every("key", ApiKey)).values()
        return sorted(found, key=lambda one: (one.tenant, one.created_at))

    async def write_tenant(self, tenant: Tenant) -> Tenant:
        """Write what a tenant may use, in the place of what was there."""
        written = await self.bus.keys.update(f"tenant.{tenant.name}", Tenant, lambda _: tenant)
        assert written is not None
        return written

    async def forget_tenant(self, name: str) -> bool:
        """Remove a tenant's limits; whether there were any."""
        return await self.bus.keys.delete(f"tenant.{name}")

    async def tenant(self, name: str) -> Tenant | None:
        return (await self.bus.keys.get(f"tenant.{name}", Tenant))[0]

    async def tenants(self) -> list[Tenant]:
        found = (await self.bus.keys.every("tenant", Tenant)).values()
        return sorted(found, key=lambda one: one.name)

    async def used(self, account: str) -> Used:
        """Return what `key.<id>` or `tenant.<name>` has used; as its leader has it."""

        money, _ = await self.bus.budgets.get(f"money.{account}", Account)
        places, _ = await self.bus.budgets.get(f"runs.{account}", Places)
        now = self.now()
        going_on = [one for one in (places.runs.values() if places is not None else ()) if one > now]
        return Used(today(money, now), len(going_on))
