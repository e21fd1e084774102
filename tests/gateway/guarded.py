"""A gateway that asks who you are, and ways to say so."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from services.gateway.identification import Identification
from services.gateway.keeping import Keeping
from shared.access.book import KeyBook, NewKey
from shared.bus.server import NatsServer
from shared.contracts.access import Allowance, Scope
from shared.history.store import History
from shared.topology import Limits
from tests.gateway.backstage import Backstage
from tests.gateway.serving import serving

SECRET = b"a-secret-of-a-test-long-enough-to-count"
ALL = (Scope.CHAT, Scope.WORKFLOWS, Scope.READ, Scope.ADMIN)


def keys_of(backstage: Backstage, *secrets: bytes) -> KeyBook:
    return KeyBook(backstage.bus, secrets or (SECRET,), lambda: datetime.now(UTC))


async def make(backstage: Backstage, tenant: str = "acme", *scopes: Scope, **given: Any) -> NewKey:
    """Make a key, with every scope unless some are named; `given`: `expires_at`, and limits."""
    expires_at = given.pop("expires_at", None)
    return await keys_of(backstage).create(
        name="a test's",
        tenant=tenant,
        scopes=scopes or ALL,
        allowance=Allowance(**given),
        expires_at=expires_at,
        by="a test",
    )


def bearing(key: NewKey | str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key if isinstance(key, str) else key.text}"}


@asynccontextmanager
async def guarded(
    server: NatsServer, folder: Path | None = None, *, identification: Identification | None = None, **given: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, Backstage]]:
    """Serve a gateway that wants keys; with a folder it keeps a history there."""
    keeping = Keeping(History(f"sqlite:///{folder / 'history.db'}"), 30, 30) if folder is not None else None
    async with (
        Backstage(server.url, Limits(), takes=given.pop("takes", True)) as backstage,
        serving(
            server.url, identification=identification or Identification("keys", (SECRET,)), keeping=keeping, **given
        ) as http,
    ):
        yield http, backstage
    assert not backstage.broken
