"""Whom a request is from, what that credential may do, and how much. Values."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shared.contracts.access import Allowance, Scope
from shared.contracts.ids import DEFAULT_TENANT, Priority, TenantId

_RANK: Final = {Priority.LOW: 0, Priority.MEDIUM: 1, Priority.HIGH: 2}


@dataclass(frozen=True, slots=True)
class Account:
    """A key or a tenant that has limits: `key.<id>` or `tenant.<name>`."""

    name: str
    allowance: Allowance


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a request is from."""

    tenant: TenantId
    key: str | None = None
    """The API key's id, where it is one."""
    scopes: frozenset[Scope] = frozenset(Scope)
    accounts: tuple[Account, ...] = ()
    """Those of its key and its tenant that have limits."""
    name: str = "an API caller"
    """For the log of who did what."""
    until: datetime | None = None
    """When the credential ends by itself."""

    @property
    def most_priority(self) -> Priority:
        given = [one.allowance.priority for one in self.accounts if one.allowance.priority is not None]
        return min(given, key=_RANK.__getitem__, default=Priority.HIGH)

    def refused(self, roles: Iterable[str]) -> list[str]:
        """Return the roles that may not be asked for."""
        lists = [one.allowance.models for one in self.accounts if one.allowance.models is not None]
        return sorted({role for role in roles if any(role not in allowed for allowed in lists)})


EVERYBODY: Final = Principal(DEFAULT_TENANT)
"""Where nobody is asked who they are."""


def at_most(asked: Priority, most: Priority) -> Priority:
    """Return what is asked for, or the most that may be."""
    return asked if _RANK[asked] <= _RANK[most] else most
