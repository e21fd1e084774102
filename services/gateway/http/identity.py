"""Who asks, and which run a request is."""

from collections.abc import Iterable

from starlette.requests import HTTPConnection, Request

from services.gateway.births import Identity
from services.gateway.http.errors import Refusal
from services.gateway.principal import EVERYBODY, Principal
from services.gateway.tenure import Asker
from shared.contracts.ids import new_run_id, run_id_of_key

LONGEST_KEY = 255


def who(request: HTTPConnection) -> Principal:
    """Return whom a request, or a WebSocket, is from: by its credential, never by what it says of itself."""
    found: Principal = request.scope.get("state", {}).get("principal", EVERYBODY)
    return found


async def who_now(connection: HTTPConnection) -> Principal:
    """Return whom a WebSocket is from at this moment: its credential may have been taken away, or given other limits.

    Raises what `Authenticator.principal_of` does.
    """
    asker = asker_of(connection)
    if asker is not None:
        connection.scope["state"]["principal"] = await asker.again()
    return who(connection)


def asker_of(connection: HTTPConnection) -> Asker | None:
    """Return how to ask again whom a connection is from; None where nobody is asked."""
    found: Asker | None = connection.scope.get("state", {}).get("asker")
    return found


def may_ask(request: HTTPConnection, roles: Iterable[str]) -> None:
    """Refuse roles that a credential, or its tenant, may not have asked."""
    refused = who(request).refused(roles)
    if refused:
        told = f"{', '.join(refused)} may not be asked with this key, or by this tenant: use another model"
        raise Refusal(403, told, code="model_not_allowed")


def identity_of(request: Request) -> Identity:
    """Return which run a request is: its idempotency key's, or a new one. The answer's head will say it."""
    identity = identity_by(request, request.headers.get("idempotency-key"))
    request.scope["state"]["run_id"] = identity.run_id
    return identity


def identity_by(request: HTTPConnection, key: str | None) -> Identity:
    """Return which run is meant by a caller's idempotency key; a new one without a key."""
    principal = who(request)
    tenant = principal.tenant
    if key is None:
        return Identity(tenant, new_run_id(), keyed=False, principal=principal)
    if not 1 <= len(key) <= LONGEST_KEY or not key.isprintable():
        raise Refusal(422, f"an Idempotency-Key has 1 to {LONGEST_KEY} printable characters")
    return Identity(tenant, run_id_of_key(tenant, key), keyed=True, principal=principal)
