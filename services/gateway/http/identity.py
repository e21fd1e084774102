"""Who asks, and which run a request is."""

from dataclasses import dataclass

from starlette.requests import HTTPConnection, Request

from services.gateway.births import Identity
from services.gateway.http.errors import Refusal
from shared.contracts.ids import DEFAULT_TENANT, TenantId, new_run_id, run_id_of_key

LONGEST_KEY = 255


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a request is from."""

    tenant: TenantId


_EVERYONE = Principal(DEFAULT_TENANT)


def who(request: HTTPConnection) -> Principal:
    """Return whom a request, or a WebSocket, is from. There is one tenant."""
    return _EVERYONE


def identity_of(request: Request) -> Identity:
    """Return which run a request is: its idempotency key's, or a new one. The answer's head will say it."""
    identity = identity_by(request, request.headers.get("idempotency-key"))
    request.scope["state"]["run_id"] = identity.run_id
    return identity


def identity_by(request: HTTPConnection, key: str | None) -> Identity:
    """Return which run is meant by a caller's idempotency key; a new one without a key."""
    tenant = who(request).tenant
    if key is None:
        return Identity(tenant, new_run_id(), keyed=False)
    if not 1 <= len(key) <= LONGEST_KEY or not key.isprintable():
        raise Refusal(422, f"an Idempotency-Key has 1 to {LONGEST_KEY} printable characters")
    return Identity(tenant, run_id_of_key(tenant, key), keyed=True)
