"""`/admin`: keys and tenants, of everybody. Needs the scope `admin`."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.gateway import gateway_of
from services.gateway.http.admin_models import (
    KeyBody,
    KeyDeleted,
    KeysAnswer,
    KeyWanted,
    LimitsBody,
    NewKeyBody,
    RotationWanted,
    TenantBody,
    TenantDeleted,
    TenantsAnswer,
    TenantWanted,
)
from services.gateway.http.answering import show
from services.gateway.http.bodies import parsed
from services.gateway.http.errors import JSON, Refusal
from services.gateway.http.identity import who
from services.gateway.http.models import Failure
from services.gateway.http.openapi import takes
from shared.access.book import KeyBook, NewKey
from shared.contracts.access import KEY_ID_PATTERN, Tenant
from shared.contracts.ids import is_token
from shared.workflows.validation import Problem

router = APIRouter(tags=["admin"])

_ID: Final = re.compile(KEY_ID_PATTERN.removesuffix("$"))
_DENIED: Final[dict[int | str, dict[str, Any]]] = {status: {"model": Failure} for status in (401, 403, 409)}
_ONE: Final[dict[int | str, dict[str, Any]]] = {**_DENIED, 404: {"model": Failure}, 422: {"model": Failure}}
_SHOWN_ONCE: Final = {"Cache-Control": "no-store"}


@router.get("/admin/keys", summary="Keys", response_model=KeysAnswer, responses=_DENIED)
async def keys(request: Request) -> Response:
    """List every key, without its secret; `?tenant=` those of one."""
    now, tenant = _now(), request.query_params.get("tenant")
    found = [KeyBody.of(key, now) for key in await _book(request).keys() if tenant in (None, key.tenant)]
    return show(KeysAnswer(keys=found, count=len(found)))


@router.post(
    "/admin/keys",
    summary="Make a key",
    status_code=201,
    response_model=NewKeyBody,
    responses={**_DENIED, 422: {"model": Failure}},
    openapi_extra=takes(KeyWanted),
)
async def create(request: Request) -> Response:
    """Make a key. Its text is in this answer and nowhere else."""
    book = _book(request)
    asked = await parsed(request, KeyWanted)
    _known_roles(request, asked.limits)
    if asked.expires_at is not None and asked.expires_at <= _now():
        raise Refusal(422, (Problem("$.expires_at", "in_the_past", "the key would be expired already"),))
    made = await book.create(
        name=asked.name,
        tenant=asked.tenant,
        scopes=asked.scopes,
        allowance=asked.limits.allowance(),
        expires_at=asked.expires_at,
        by=who(request).name,
    )
    return _new(made, 201)


@router.get("/admin/keys/{key_id}", summary="Read a key", response_model=KeyBody, responses=_ONE)
async def read(request: Request, key_id: str) -> Response:
    """Return a key without its secret, and what it has used."""
    book = _book(request)
    key = await book.key(_id(key_id))
    if key is None:
        raise _unknown(key_id)
    return show(KeyBody.of(key, _now(), await book.used(f"key.{key.id}")))


@router.put(
    "/admin/keys/{key_id}/limits",
    summary="Give a key other limits",
    response_model=KeyBody,
    responses=_ONE,
    openapi_extra=takes(LimitsBody),
)
async def limit(request: Request, key_id: str) -> Response:
    """Give a key other limits, in the place of all that it had. They count at once."""
    asked = await parsed(request, LimitsBody)
    _known_roles(request, asked)
    key = await _book(request).change(_id(key_id), asked.allowance())
    if key is None:
        raise _unknown(key_id)
    return show(KeyBody.of(key, _now()))


@router.post(
    "/admin/keys/{key_id}/rotate",
    summary="Give a key a new secret",
    response_model=NewKeyBody,
    responses=_ONE,
    openapi_extra=takes(RotationWanted),
)
async def rotate(request: Request, key_id: str) -> Response:
    """Give a key a new secret, shown in this answer only. The old one works until the grace is over."""
    book = _book(request)
    asked = await parsed(request, RotationWanted)
    key = await book.key(_id(key_id))
    if key is None:
        raise _unknown(key_id)
    made = await book.rotate(key.id, timedelta(seconds=asked.grace_s))
    if made is None:
        raise Refusal(409, "a key that was revoked is not rotated; make another")
    return _new(made, 200)


@router.post("/admin/keys/{key_id}/revoke", summary="Revoke a key", response_model=KeyBody, responses=_ONE)
async def revoke(request: Request, key_id: str) -> Response:
    """Have every gateway refuse a key, within a second. What it began goes on."""
    key = await _book(request).revoke(_id(key_id))
    if key is None:
        raise _unknown(key_id)
    return show(KeyBody.of(key, _now()))


@router.delete("/admin/keys/{key_id}", summary="Delete a key", response_model=KeyDeleted, responses=_ONE)
async def delete(request: Request, key_id: str) -> Response:
    """Refuse a key like `revoke`, and forget it."""
    if not await _book(request).forget(_id(key_id)):
        raise _unknown(key_id)
    return show(KeyDeleted(id=key_id))


@router.get("/admin/tenants", summary="Tenants with limits", response_model=TenantsAnswer, responses=_DENIED)
async def tenants(request: Request) -> Response:
    """List the tenants that have limits. Others have none, and need no record."""
    found = [TenantBody.of(one) for one in await gateway_of(request).keys.tenants()]
    return show(TenantsAnswer(tenants=found, count=len(found)))


@router.get("/admin/tenants/{name}", summary="Read a tenant", response_model=TenantBody, responses=_ONE)
async def read_tenant(request: Request, name: str) -> Response:
    """Return a tenant's limits, and what all its keys and tokens together have used."""
    book = gateway_of(request).keys
    found = await book.tenant(_tenant(name))
    if found is None:
        raise _no_limits(name)
    return show(TenantBody.of(found, await book.used(f"tenant.{name}")))


@router.put(
    "/admin/tenants/{name}",
    summary="Limit a tenant",
    response_model=TenantBody,
    responses={**_DENIED, 422: {"model": Failure}},
    openapi_extra=takes(TenantWanted),
)
async def write_tenant(request: Request, name: str) -> Response:
    """Write what a tenant may use, in the place of all that was there. It counts at once."""
    asked = await parsed(request, TenantWanted)
    if not is_token(name):
        raise Refusal(422, f"{name[:80]!r} is no name of a tenant: 1 to 64 of A-Z a-z 0-9 _ -")
    _known_roles(request, asked.limits)
    tenant = Tenant(
        name=name, allowance=asked.limits.allowance(), note=asked.note, written_at=_now(), by=who(request).name
    )
    return show(TenantBody.of(await gateway_of(request).keys.write_tenant(tenant)))


@router.delete("/admin/tenants/{name}", summary="Free a tenant", response_model=TenantDeleted, responses=_ONE)
async def delete_tenant(request: Request, name: str) -> Response:
    """Take a tenant's limits away. Its keys keep their own."""
    if not await gateway_of(request).keys.forget_tenant(_tenant(name)):
        raise _no_limits(name)
    return show(TenantDeleted(name=name))


def _book(request: Request) -> KeyBook:
    book = gateway_of(request).keys
    if not book.secrets:
        raise Refusal(409, "this gateway does not use API keys; start it with SEGUE_AUTH=keys")
    return book


def _known_roles(request: Request, limits: LimitsBody) -> None:
    there = [model.name for model in gateway_of(request).listings.models]
    unknown = [name for name in limits.models or () if name not in there]
    if unknown:
        told = f"there is no role {unknown[0]!r}; known roles: {', '.join(there)}"
        raise Refusal(422, (Problem("$.models", "unknown_model", told),))


def _new(made: NewKey, status: int) -> Response:
    body = NewKeyBody(api_key=made.text, key=KeyBody.of(made.key, _now()))
    return Response(body.to_json(), status, _SHOWN_ONCE, JSON)


def _id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise _unknown(text)
    return text


def _tenant(name: str) -> str:
    if not is_token(name):
        raise _no_limits(name)
    return name


def _unknown(key_id: str) -> Refusal:
    return Refusal(404, f"there is no key {key_id[:64]!r}: an id has 16 letters, between `sgk_` and the next `_`")


def _no_limits(name: str) -> Refusal:
    return Refusal(404, f"tenant {name[:64]!r} has no limits")


def _now() -> datetime:
    return datetime.now(UTC)
