"""Who may do what, how much, and what of it is used: records in the buckets `keys` and `budgets`."""

from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, Field, NonNegativeInt, StringConstraints

from shared.contracts.ids import Priority, TenantId
from shared.contracts.message import Message, Part, Usd

KEY_ID_PATTERN = r"^[a-z2-7]{16}$"
KeyId = Annotated[str, StringConstraints(pattern=KEY_ID_PATTERN)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
NanoUsd = Annotated[NonNegativeInt, Field(description="US dollars times 10^9: whole, so that sums are exact")]


class Scope(StrEnum):
    """What a credential may do. None of them includes another."""

    CHAT = "chat"
    """Ask: `POST /chat`, `/v1/…`, `/ws`; forget a conversation."""
    WORKFLOWS = "workflows"
    """Run, plan and steer workflows; write templates and schedules."""
    READ = "read"
    """Look: everything that is asked for with GET."""
    ADMIN = "admin"
    """Keys, tenants, breakers, models and providers, of everybody."""


class Allowance(Part):
    """How much a key or a tenant may use. What is absent is not limited."""

    requests_per_minute: NonNegativeInt | None = None
    """Runs begun in any 60 seconds."""
    concurrent_runs: NonNegativeInt | None = None
    tokens_per_day: NonNegativeInt | None = None
    usd_per_day: Usd | None = None
    usd_per_month: Usd | None = None
    """Days and months are UTC's."""
    models: tuple[str, ...] | None = None
    """Roles that may answer; absent: all."""
    priority: Priority | None = None
    """The most that may be asked for; more is served as this."""

    @property
    def is_budget(self) -> bool:
        """Whether what calls cost is held and counted."""
        return (self.tokens_per_day, self.usd_per_day, self.usd_per_month) != (None, None, None)

    @property
    def is_door(self) -> bool:
        """Whether a run is looked at before it begins."""
        return self.is_budget or self.requests_per_minute is not None or self.concurrent_runs is not None


class EarlierSecret(Part):
    """A key's secret before it was rotated, while it still works."""

    digest: Digest
    last4: str
    until: AwareDatetime


class ApiKey(Message):
    """A key, without its secret. In the bucket `keys` under `key.<id>`; by the gateways and `segue keys --bus`."""

    id: KeyId
    name: str = Field(max_length=80)
    """What people call it."""
    tenant: TenantId
    scopes: tuple[Scope, ...]
    allowance: Allowance = Field(default_factory=Allowance)
    digest: Digest
    """HMAC-SHA256 of the whole key under a server secret."""
    last4: str
    earlier: EarlierSecret | None = None
    created_at: AwareDatetime
    by: str
    """Who made it: a key's id, or `the command line`."""
    expires_at: AwareDatetime | None = None
    rotated_at: AwareDatetime | None = None
    revoked_at: AwareDatetime | None = None


class Tenant(Message):
    """What a tenant may use, all its keys and tokens together. In the bucket `keys` under `tenant.<name>`."""

    name: TenantId
    allowance: Allowance = Field(default_factory=Allowance)
    note: str = Field(default="", max_length=500)
    written_at: AwareDatetime
    by: str


class Hold(Part):
    """What an attempt may cost at the most, before it is known."""

    nano_usd: NanoUsd = 0
    tokens: NonNegativeInt = 0
    until: AwareDatetime
    """Its executor has settled it by then, or is dead."""


class Guess(Part):
    """What an attempt was counted at because nobody knew what it took: put right when that is found out."""

    nano_usd: NanoUsd = 0
    tokens: NonNegativeInt = 0
    day: str
    month: str


class Account(Message):
    """What a key or a tenant has used. In the bucket `budgets` under `money.<key|tenant>.<name>`; by the executors."""

    day: str = ""
    """Of the sums, `2026-11-29`, UTC."""
    month: str = ""
    day_nano_usd: NanoUsd = 0
    day_tokens: NonNegativeInt = 0
    month_nano_usd: NanoUsd = 0
    held: dict[str, Hold] = Field(default_factory=dict)
    """By attempt and claim: `<run>.<purpose>.<call>.<attempt>.<claim>`."""
    guessed: dict[str, Guess] = Field(default_factory=dict)
    """By attempt, what was counted whole and may be put right yet."""


class Places(Message):
    """Runs that go on. In the bucket `budgets` under `runs.<key|tenant>.<name>`; by the gateways and the finisher."""

    runs: dict[str, AwareDatetime] = Field(default_factory=dict)
    """By run: until when it is over at the latest."""
