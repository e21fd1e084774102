"""The server's accounts: Segue's own, with a user for each service, and one for every outside system. Pure. (ADR 0023)

An outside system publishes in its own account. What it asks is imported by subjects that carry its tenant, so that it
cannot ask for another; where its own reply subjects lead stays in its account.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from shared import permissions
from shared.contracts.ids import is_token
from shared.outside import FEEDS, SERVICES
from shared.permissions import Permissions
from shared.topology import Limits

OWN: Final = "SEGUE"
OPERATOR: Final = "operator"
"""The user that may do everything in Segue's account: it provisions, and looks after dead letters."""
USERS: Final = (OPERATOR, *permissions.SERVICES)
ANSWERED_WITHIN_S: Final = 30

_PASSWORD: Final = re.compile(r"[!-~]{8,200}")
_NKEY: Final = re.compile(r"U[A-Z2-7]{55}")


def _is_public_key(text: str) -> bool:
    """Whether a text is a user's public key: its last two bytes are the sum of the others (CRC-16/XMODEM)."""
    if _NKEY.fullmatch(text) is None:
        return False
    raw = base64.b32decode(text)
    return binascii.crc_hqx(raw[:-2], 0) == int.from_bytes(raw[-2:], "little")


class BadPublisher(ValueError):
    """A publisher cannot be let in, and why."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A value that the server takes from its own environment."""

    name: str


@dataclass(frozen=True, slots=True)
class Publisher:
    """An outside system: whose its requests are, and how it says who it is."""

    tenant: str
    user: str | None = None
    password: str | None = None
    """In clear, or as bcrypt made it (`$2a$…`), which is better."""
    nkey: str | None = None
    """Instead of both: the public key of a user."""

    @property
    def account(self) -> str:
        return f"SEGUE-{self.tenant}"

    def check(self) -> None:
        """Raises `BadPublisher`."""
        if not is_token(self.tenant):
            raise BadPublisher(f"{self.tenant!r} is no tenant: letters, digits, _ and -, 64 at the most")
        if self.nkey is not None:
            if self.user is not None or self.password is not None or not _is_public_key(self.nkey):
                raise BadPublisher(f"tenant {self.tenant!r}: an nkey is a user's public key (U…), and stands alone")
            return
        if not self.user or self.password is None or _PASSWORD.fullmatch(self.password) is None:
            raise BadPublisher(
                f"tenant {self.tenant!r}: a user, and a password of 8 to 200 characters without spaces (better: what "
                "bcrypt makes of it), or an nkey"
            )
        if self.user in USERS:
            raise BadPublisher(f"tenant {self.tenant!r}: the user {self.user!r} is Segue's own; choose another name")


def settings(
    publishers: Sequence[Publisher], passwords: Mapping[str, str | Variable], limits: Limits
) -> dict[str, Any]:
    """Return the server's `accounts` and `system_account`; `passwords` of Segue's own users. Raises `BadPublisher`."""
    _check(publishers)
    tenants = {one.tenant: one.account for one in publishers}
    own = {
        "jetstream": "enabled",
        "users": [_own(user, passwords[user], limits) for user in USERS],
        "exports": [one for tenant, account in tenants.items() for one in _exports(tenant, account)],
    }
    others = {
        account: {
            "users": [_user(one) for one in publishers if one.tenant == tenant],
            "imports": list(_imports(tenant)),
        }
        for tenant, account in tenants.items()
    }
    return {"accounts": {OWN: own, **others, "SYS": {"users": []}}, "system_account": "SYS"}


def _check(publishers: Sequence[Publisher]) -> None:
    for one in publishers:
        one.check()
    names = [one.user or one.nkey for one in publishers]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise BadPublisher(f"each user is there once; there are several {', '.join(sorted(map(str, twice)))}")


def _own(user: str, password: str | Variable, limits: Limits) -> dict[str, Any]:
    if user == OPERATOR:
        return {"user": user, "password": password}
    return {"user": user, "password": password, "permissions": _permissions(permissions.of(user, limits))}


def _permissions(allowed: Permissions) -> dict[str, Any]:
    found: dict[str, Any] = {
        "publish": {"allow": list(allowed.publish)},
        "subscribe": {"allow": list(allowed.subscribe)},
    }
    if allowed.responds:
        found["allow_responses"] = {"max": 1, "expires": f"{ANSWERED_WITHIN_S}s"}
    return found


def _user(publisher: Publisher) -> dict[str, Any]:
    if publisher.nkey is not None:
        return {"nkey": publisher.nkey}
    return {"user": publisher.user, "password": publisher.password}


def _exports(tenant: str, account: str) -> Iterator[dict[str, Any]]:
    for service in SERVICES:
        yield {"service": service.here(tenant), "accounts": [account]}
    for feed in FEEDS:
        yield {"stream": feed.here(tenant), "accounts": [account]}


def _imports(tenant: str) -> Iterator[dict[str, Any]]:
    for service in SERVICES:
        yield {"service": {"account": OWN, "subject": service.here(tenant)}, "to": service.there}
    for feed in FEEDS:
        yield {"stream": {"account": OWN, "subject": feed.here(tenant)}, "to": feed.there}


def rendered(value: object, indent: int = 0) -> str:
    """Return settings as a part of nats-server's configuration file, to be included."""
    pad = "  " * (indent + 1)
    match value:
        case dict():
            inside = "".join(f"{pad}{_name(name)}: {rendered(one, indent + 1)}\n" for name, one in value.items())
            return f"{{\n{inside}{'  ' * indent}}}" if value else "{}"
        case list():
            inside = "".join(f"{pad}{rendered(one, indent + 1)}\n" for one in value)
            return f"[\n{inside}{'  ' * indent}]" if value else "[]"
        case Variable():
            return f"${value.name}"
        case int():
            return str(value)
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _name(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_]+", name) else f'"{name}"'


def document(publishers: Sequence[Publisher], limits: Limits) -> str:
    """Return the file that `nats-server` includes. Segue's own passwords come from the server's environment."""
    passwords = {user: Variable(variable_of(user)) for user in USERS}
    made = settings(publishers, passwords, limits)
    lines = [f"{name}: {rendered(value)}" for name, value in made.items()]
    return (
        "# Made by `segue bus accounts`. Include it from the server's configuration file.\n" + "\n".join(lines) + "\n"
    )


def variable_of(user: str) -> str:
    """Return the environment variable of the nats-server that has the password of a user of Segue's own."""
    return f"SEGUE_NATS_PASSWORD_{user.upper()}"
