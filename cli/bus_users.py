"""The embedded nats-server with accounts: Segue's own users, their passwords, and whose the files are."""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from shared.bus.accounts import OPERATOR, OWN, USERS, Publisher, settings
from shared.config.environment import Environment
from shared.topology import Limits

NOBODYS: Final = "$G"
"""The account of a server that has no accounts."""


def publishers(environment: Environment) -> tuple[Publisher, ...]:
    """Return the outside systems of SEGUE_BUS_TENANTS; each one's user is called like its tenant."""
    return tuple(Publisher(tenant, tenant, password) for tenant, password in environment.bus_tenants.items())


def guarded(environment: Environment, limits: Limits) -> dict[str, Any] | None:
    """Return the server's settings of accounts; None where there are none to be. Raises `BadPublisher`."""
    there = publishers(environment)
    return settings(there, passwords(environment.data_dir), limits) if there else None


def passwords(data_dir: Path) -> dict[str, str]:
    """Return the passwords of Segue's own users: made once, readable by their owner alone."""
    path = _users(data_dir)
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    missing = [user for user in USERS if user not in found]
    if missing:
        found |= {user: secrets.token_urlsafe(24) for user in missing}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def url_of(environment: Environment, user: str = OPERATOR) -> str:
    """Return where a user of Segue's own finds the bus.

    Passwords that are there are said also where this environment names no tenants: Segue may have been started with
    another one, and a server without accounts lets everybody in.
    """
    there = bool(environment.bus_tenants) or _users(environment.data_dir).exists()
    if environment.nats_url_given or not there:
        return environment.nats_url
    return _signed_in(environment.nats_url, user, passwords(environment.data_dir))


def urls(url: str, data_dir: Path) -> dict[str, str]:
    """Return the embedded server's address for each user of Segue's own."""
    known = passwords(data_dir)
    return {user: _signed_in(url, user, known) for user in USERS}


def _users(data_dir: Path) -> Path:
    return data_dir / "nats" / "users.json"


def _signed_in(url: str, user: str, known: Mapping[str, str]) -> str:
    return url.replace("://", f"://{user}:{known[user]}@", 1)


def move(data_dir: Path, *, guarded: bool) -> None:
    """Give what is stored to the account that Segue is in now. Before the server is started.

    A server without accounts keeps everything in one of its own; what was there stays there when accounts are turned
    on or off.
    """
    stores = data_dir / "nats" / "jetstream"
    before, after = (NOBODYS, OWN) if guarded else (OWN, NOBODYS)
    if (stores / before / "streams").is_dir() and not (stores / after / "streams").exists():
        if (stores / after).is_dir():
            (stores / after).rmdir()
        os.replace(stores / before, stores / after)
