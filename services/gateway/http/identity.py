"""Who asks, and which run a request is."""

from dataclasses import dataclass

from starlette.requests import Request

from services.gateway.births import Identity
from services.gateway.http.errors import Refusal
from shared.contracts.ids import DEFAULT_TENANT, TenantId, new_run_id, run_id_of_key

LONGEST_KEY = 255


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a request is from."""

    tenant: TenantId


_EVERYONE = Principal(DEFAULT_TENANT)


def who(request: Request) -> Principal:
    """Return whom a request is from. There is one tenant."""
    return _EVERYONE


def identity_of(request: Request) -> Identity:
    """Return which run a request is: its idempotency key's, or a new one. The answer's head will say it."""
    tenant = who(request).tenant
    key = request.headers.get("idempotency-key")
    if key is None:
        identity = Identity(tenant, new_run_id(), keyed=False)
    else:
        if not 1 <= len(key) <= LONGEST_KEY or not key.isprintable():
            raise Refusal(422, f"an Idempotency-Key has 1 to {LONGEST_KEY} printable characters")
        identity = Identity(tenant, run_id_of_key(tenant, key), keyed=True)
    request.scope["state"]["run_id"] = identity.run_id
    return identity
