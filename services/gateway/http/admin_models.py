"""Bodies of `/admin`."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, ConfigDict, Field, NonNegativeFloat, NonNegativeInt

from services.gateway.http.models import Body
from shared.access.accounts import usd
from shared.access.book import Used
from shared.contracts.access import Allowance, ApiKey, Scope, Tenant
from shared.contracts.ids import DEFAULT_TENANT, TOKEN_PATTERN, Priority

Usd = Annotated[NonNegativeFloat, Field(le=1e9)]
Count = Annotated[NonNegativeInt, Field(le=10**12)]


class Asked(Body):
    """A body that is refused with a field that nobody knows: a misspelt limit would limit nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class LimitsBody(Asked):
    """How much may be used; what is absent is not limited."""

    requests_per_minute: Count | None = None
    concurrent_runs: Count | None = Field(default=None, description="At most 5000 are counted.")
    tokens_per_day: Count | None = None
    usd_per_day: Usd | None = Field(default=None, description="Days and months are UTC's.")
    usd_per_month: Usd | None = None
    models: list[str] | None = Field(default=None, max_length=100, description="Roles that may answer; absent: all.")
    priority: Priority | None = Field(default=None, description="The most that may be asked for.")

    def allowance(self) -> Allowance:
        return Allowance.model_validate(self.model_dump())

    @classmethod
    def of(cls, allowance: Allowance) -> "LimitsBody":
        return cls.model_validate(allowance.model_dump(mode="json"))


class KeyWanted(Asked):
    """`POST /admin/keys`"""

    name: str = Field(min_length=1, max_length=80, description="What people call it.")
    tenant: str = Field(default=DEFAULT_TENANT, pattern=TOKEN_PATTERN)
    scopes: list[Scope] = Field(default=[Scope.CHAT, Scope.WORKFLOWS, Scope.READ], min_length=1, max_length=8)
    expires_at: AwareDatetime | None = None
    limits: LimitsBody = Field(default_factory=LimitsBody)


class RotationWanted(Asked):
    """`POST /admin/keys/{id}/rotate`"""

    grace_s: float = Field(default=3_600, ge=0, le=90 * 86_400, description="For how long the old secret still works.")


class UsedBody(Body):
    """What is used, and held for attempts that are on their way. Days and months are UTC's."""

    usd_today: float
    usd_this_month: float
    tokens_today: NonNegativeInt
    held_usd: float
    held_tokens: NonNegativeInt
    concurrent_runs: NonNegativeInt

    @classmethod
    def of(cls, used: Used) -> "UsedBody":
        account = used.account
        return cls(
            usd_today=usd(account.day_nano_usd),
            usd_this_month=usd(account.month_nano_usd),
            tokens_today=account.day_tokens,
            held_usd=usd(sum(one.nano_usd for one in account.held.values())),
            held_tokens=sum(one.tokens for one in account.held.values()),
            concurrent_runs=used.runs,
        )


class KeyBody(Body):
    """A key, without its secret."""

    id: str
    name: str
    tenant: str
    scopes: list[Scope]
    shown_as: str = Field(description="How it begins and ends.")
    state: Literal["active", "expired", "revoked"]
    limits: LimitsBody
    created_at: AwareDatetime
    by: str
    expires_at: AwareDatetime | None
    rotated_at: AwareDatetime | None
    revoked_at: AwareDatetime | None
    earlier_until: AwareDatetime | None = Field(description="Until when the secret before the rotation works.")
    used: UsedBody | None = None

    @classmethod
    def of(cls, key: ApiKey, now: datetime, used: Used | None = None) -> "KeyBody":
        expired = key.expires_at is not None and key.expires_at <= now
        earlier = key.earlier.until if key.earlier is not None and key.earlier.until > now else None
        return cls(
            id=key.id,
            name=key.name,
            tenant=key.tenant,
            scopes=list(key.scopes),
            shown_as=f"sgk_{key.id}_…{key.last4}",
            state="revoked" if key.revoked_at is not None else "expired" if expired else "active",
            limits=LimitsBody.of(key.allowance),
            created_at=key.created_at,
            by=key.by,
            expires_at=key.expires_at,
            rotated_at=key.rotated_at,
            revoked_at=key.revoked_at,
            earlier_until=earlier,
            used=UsedBody.of(used) if used is not None else None,
        )


class NewKeyBody(Body):
    """A key with its secret: it is shown this once."""

    api_key: str = Field(description="Keep it: nobody can show it again.")
    key: KeyBody


class KeysAnswer(Body):
    keys: list[KeyBody]
    count: NonNegativeInt


class KeyDeleted(Body):
    status: Literal["deleted"] = "deleted"
    id: str


class TenantWanted(Asked):
    """`PUT /admin/tenants/{name}`"""

    limits: LimitsBody = Field(default_factory=LimitsBody)
    note: str = Field(default="", max_length=500)


class TenantBody(Body):
    name: str
    limits: LimitsBody
    note: str
    written_at: AwareDatetime
    by: str
    used: UsedBody | None = None

    @classmethod
    def of(cls, tenant: Tenant, used: Used | None = None) -> "TenantBody":
        return cls(
            name=tenant.name,
            limits=LimitsBody.of(tenant.allowance),
            note=tenant.note,
            written_at=tenant.written_at,
            by=tenant.by,
            used=UsedBody.of(used) if used is not None else None,
        )


class TenantsAnswer(Body):
    tenants: list[TenantBody]
    count: NonNegativeInt


class TenantDeleted(Body):
    status: Literal["deleted"] = "deleted"
    name: str
