"""Keys straight on the bus: how the first one is made, before anybody could ask the gateway for it."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import typer

from cli.talking import NOT_REACHABLE, stand_in
from shared.contracts.access import Allowance, ApiKey, Scope

if TYPE_CHECKING:  # commands load slowly enough
    from shared.config.environment import Environment

T = TypeVar("T")
BY = "the command line"


def create(body: dict[str, Any]) -> dict[str, Any]:
    """Make a key as `POST /admin/keys` would."""
    from pydantic import TypeAdapter, ValidationError

    from shared.contracts.ids import TenantId

    try:
        scopes = tuple(Scope(name) for name in body["scopes"])
        allowance = Allowance.model_validate(body["limits"])
        tenant = TypeAdapter[str](TenantId).validate_python(body["tenant"])
    except (ValueError, ValidationError) as error:
        raise typer.BadParameter(str(error)) from None
    expires = datetime.fromisoformat(body["expires_at"]) if "expires_at" in body else None

    async def make(book: Any) -> Any:
        return await book.create(
            name=body["name"], tenant=tenant, scopes=scopes, allowance=allowance, expires_at=expires, by=BY
        )

    made = _with_book(make)
    return {"api_key": made.text, "key": _shown(made.key)}


def every(tenant: str | None) -> dict[str, Any]:
    async def read(book: Any) -> Any:
        return await book.keys()

    found = [_shown(key) for key in _with_book(read) if tenant in (None, key.tenant)]
    return {"keys": found, "count": len(found)}


def rotate(key_id: str, grace_s: float) -> dict[str, Any]:
    async def change(book: Any) -> Any:
        return await book.rotate(key_id, timedelta(seconds=grace_s))

    made = _with_book(change)
    if made is None:
        _fail(f"there is no key {key_id!r}, or it was revoked")
    return {"api_key": made.text, "key": _shown(made.key)}


def revoke(key_id: str) -> dict[str, Any]:
    async def change(book: Any) -> Any:
        return await book.revoke(key_id)

    key = _with_book(change)
    if key is None:
        _fail(f"there is no key {key_id!r}")
    return _shown(key)


def _shown(key: ApiKey) -> dict[str, Any]:
    expired = key.expires_at is not None and key.expires_at <= datetime.now(UTC)
    state = "revoked" if key.revoked_at is not None else "expired" if expired else "active"
    told = key.model_dump(mode="json", exclude={"v", "digest", "last4", "earlier", "allowance"})
    limits = key.allowance.model_dump(mode="json")
    return {**told, "shown_as": f"sgk_{key.id}_…{key.last4}", "state": state, "limits": limits}


def _with_book(work: Callable[[Any], Awaitable[T]]) -> T:
    """Return what `work` does with the keys of the server that the environment names, or say why not and exit."""
    from nats.errors import Error

    from cli.bus_client import NoBus, connected
    from shared.access.settings import secrets_of
    from shared.bus.errors import BusError
    from shared.config import ConfigInvalid
    from shared.config.environment import Environment

    stand_in()
    try:
        environment = Environment.read(os.environ)
    except ConfigInvalid as invalid:
        _fail(str(invalid))

    async def run() -> T:
        from shared.access.book import KeyBook
        from shared.bus.connection import open_bus

        client = await connected(environment, "segue-keys")
        try:
            if _is_elsewhere(environment):
                _fail(
                    f"no Segue has its data in {environment.data_dir}, so the secret that keys are stored under is not "
                    "known here: say SEGUE_DATA_DIR as the Segue that runs has it, or SEGUE_KEY_SECRET"
                )
            bus = await open_bus(client)
            return await work(KeyBook(bus, secrets_of(environment), lambda: datetime.now(UTC)))
        finally:
            await client.close()

    try:
        return asyncio.run(run())
    except NoBus as error:
        _fail(str(error), NOT_REACHABLE)
    except ConfigInvalid as invalid:
        _fail(str(invalid))
    except (Error, OSError) as error:
        _fail(f"the NATS server went away: {error}", NOT_REACHABLE)
    except BusError as error:
        _fail(str(error))


def _is_elsewhere(environment: "Environment") -> bool:
    """Whether a secret that were made now would be another one than the running gateway's."""
    given = environment.key_secret is not None or environment.nats_url_given
    return not given and not (environment.data_dir / "nats").is_dir()


def _fail(message: str, code: int = 1) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code)
