"""How the API is guarded, by the environment; and the secret that keys are stored under."""

import ipaddress
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from shared.config.environment import LEAST_SECRET, Environment
from shared.config.errors import ConfigInvalid, Problem

SECRET_FILE: Final = "key-secret"


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only."""
    if host.lower() == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return False


def auth_of(environment: Environment) -> str:
    """Return `off`, `keys` or `jwt`. Raises `ConfigInvalid` where nobody chose and it matters, or a part is missing."""
    if environment.auth is None and not is_loopback(environment.host):
        raise ConfigInvalid(
            "environment",
            [
                Problem(
                    "SEGUE_AUTH",
                    f"nothing, and SEGUE_HOST={environment.host} can be reached from other machines",
                    "a choice: one of the lines\n"
                    "    SEGUE_AUTH=keys   # API keys; the first one: segue keys create admin --scope admin --bus\n"
                    "    SEGUE_AUTH=jwt    # tokens of an identity provider (SEGUE_JWT_JWKS, …)\n"
                    "    SEGUE_AUTH=off    # no authentication, because something in front of it has one\n"
                    "  in the environment or in .env; docs/security.md says more",
                )
            ],
        )
    auth = environment.auth or "off"
    if auth == "jwt":
        wanted = {
            "SEGUE_JWT_JWKS": (environment.jwt_jwks, "https://id.example.com/.well-known/jwks.json, or a file"),
            "SEGUE_JWT_ISSUER": (environment.jwt_issuer, "who issues the tokens, as `iss` has it"),
            "SEGUE_JWT_AUDIENCE": (environment.jwt_audience, "for whom they are, as `aud` has it"),
        }
        missing = [Problem(name, "nothing", what) for name, (value, what) in wanted.items() if not value]
        if missing:
            raise ConfigInvalid("environment", missing)
    return auth


def secrets_of(environment: Environment) -> Sequence[bytes]:
    """Return what keys are stored under, the newest first; with NATS on this machine it is made when it is not there.

    Raises `ConfigInvalid`.
    """
    if environment.key_secret is not None:
        return [part.strip().encode() for part in environment.key_secret.get_secret_value().split(",")]
    hosts = [
        urlsplit(part.strip() if "://" in part else f"nats://{part.strip()}").hostname or ""
        for part in environment.nats_url.split(",")
    ]
    if all(map(is_loopback, hosts)):
        return [_kept(environment.data_dir / SECRET_FILE)]
    raise ConfigInvalid(
        "environment",
        [
            Problem(
                "SEGUE_KEY_SECRET",
                "nothing",
                "the secret that API keys are stored under, the same for every gateway. A line to copy:\n"
                f"    SEGUE_KEY_SECRET={secrets.token_hex(32)}",
            )
        ],
    )


def _kept(path: Path) -> bytes:
    """Return the secret of a file that its owner alone can read; made when it is not there, by whoever is first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        found = path.read_bytes().strip()
    except FileNotFoundError:
        handle = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_hex(32).encode())
        with suppress(FileExistsError):
            os.link(made, path)
        made.unlink()
        found = path.read_bytes().strip()
    except OSError as error:
        raise ConfigInvalid(
            "environment", [Problem(str(path), error.strerror or str(error), "a file that can be read")]
        ) from error
    if len(found) < LEAST_SECRET:
        raise ConfigInvalid("environment", [Problem(str(path), "a short value that is not shown", "a longer one")])
    return found
