"""`/templates`: what can be run by name, read and written while the system runs."""

import re
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from pydantic import JsonValue
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.gateway import Gateway, gateway_of
from services.gateway.http.answering import show
from services.gateway.http.bodies import document
from services.gateway.http.errors import JSON, Refusal
from services.gateway.http.identity import who
from services.gateway.http.models import Failure
from services.gateway.http.openapi import takes
from services.gateway.http.template_models import (
    TemplateBody,
    TemplateDeleted,
    TemplatesAnswer,
    TemplateWritten,
    VersionBody,
    VersionsAnswer,
    WholeTemplate,
    fields_of,
    whole,
)
from shared.contracts.ids import is_token
from shared.registry.filling import filled
from shared.registry.templates import BadTemplate, Offered, TooManyTemplates, VersionMismatch, read_template
from shared.workflows.problems import Blueprint, templates_in
from shared.workflows.validation import Catalogue, Invalid, Problem, Valid, templates_named

router = APIRouter(tags=["templates"])

BY = "an API caller"
SHOWN = 60
_VERSION = re.compile(r'(?:W/)?"(\d{1,9}|file)"')
_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Failure}}


def if_match() -> dict[str, Any]:
    """Return the description of the headers that say on top of which version is written."""
    said = (
        ("If-Match", "Only on top of this version: the `ETag` that was read."),
        ("If-None-Match", "`*`: only where the registry has none yet."),
    )
    schema = {"type": "string"}
    return {
        "parameters": [
            {"name": name, "in": "header", "required": False, "schema": schema, "description": text}
            for name, text in said
        ]
    }


@router.get("/templates", summary="Templates", response_model=TemplatesAnswer)
async def templates(request: Request) -> Response:
    """List the templates with their parameters: the configuration's, and those written over or beside them."""
    found = await gateway_of(request).book.all(who(request).tenant)
    return show(TemplatesAnswer(templates=[TemplateBody(**fields_of(one)) for one in found.values()], count=len(found)))


@router.get("/templates/{name}", summary="Read a template", response_model=WholeTemplate, responses=_MISSING)
async def read(request: Request, name: str) -> Response:
    """Return a template whole, as it can be written back; `?version=` an earlier one."""
    gateway, tenant = gateway_of(request), who(request).tenant
    asked = request.query_params.get("version")
    if asked is None:
        offered = await known(gateway, tenant, name)
    else:
        found = None
        if is_token(name) and asked.isascii() and asked.isdigit() and len(asked) < 10:
            found = await gateway.book.get(tenant, name, int(asked))
        if found is None:
            raise Refusal(404, f"template {name[:SHOWN]!r} has no version {asked[:SHOWN]!r} (any more)")
        offered = found
    return Response(whole(offered).to_json(), 200, _etag(offered), JSON)


@router.get(
    "/templates/{name}/versions", summary="Versions of a template", response_model=VersionsAnswer, responses=_MISSING
)
async def versions(request: Request, name: str) -> Response:
    """List what is kept of a template's versions, oldest first."""
    gateway, tenant = gateway_of(request), who(request).tenant
    kept = await gateway.book.versions(tenant, name) if is_token(name) else []
    if not kept:
        await known(gateway, tenant, name)
    listed = [
        VersionBody(version=one.version, deleted=one.document is None, written_at=one.written_at, by=one.by)
        for one in kept
    ]
    return show(VersionsAnswer(name=name, versions=listed))


@router.put(
    "/templates/{name}",
    summary="Write a template",
    response_model=WholeTemplate,
    responses={
        201: {"model": WholeTemplate},
        409: {"model": Failure},
        412: {"model": Failure},
        422: {"model": Failure},
    },
    openapi_extra={**takes(TemplateWritten), **if_match()},
)
async def write(request: Request, name: str) -> Response:
    """Write a template's next version: it counts at once, everywhere. Runs that go on keep the one they began with."""
    gateway, tenant = gateway_of(request), who(request).tenant
    named(name)
    body = {key: value for key, value in (await document(request)).items() if key not in _READ_ONLY}
    catalogue = await catalogue_with(gateway, tenant, body)
    try:
        template = read_template(body, catalogue)
        _knows_itself(name, template, catalogue)
        written = await gateway.book.write(tenant, name, body, expected=expected(request), by=who(request).name)
    except BadTemplate as bad:
        raise Refusal(422, bad.problems) from bad
    except VersionMismatch as mismatch:
        raise Refusal(412, str(mismatch)) from mismatch
    except TooManyTemplates as full:
        raise Refusal(409, str(full)) from full
    return Response(whole(written).to_json(), 201 if written.version == 1 else 200, _etag(written), JSON)


@router.delete(
    "/templates/{name}",
    summary="Delete a template",
    response_model=TemplateDeleted,
    responses={**_MISSING, 409: {"model": Failure}, 412: {"model": Failure}},
    openapi_extra=if_match(),
)
async def delete(request: Request, name: str) -> Response:
    """Delete a template that was written at run time; one of the configuration that it stood over is back then."""
    gateway, tenant = gateway_of(request), who(request).tenant
    offered = await known(gateway, tenant, name)
    if offered.source == "file":
        raise Refusal(409, f"template {name!r} is the configuration file's: take it out there, or write over it")
    if name not in gateway.book.shipped:
        users = [one.name for one, _ in await gateway.schedules.all(tenant) if one.template == name]
        if users:
            raise Refusal(
                409, f"template {name!r} is started by schedules: {', '.join(users[:10])}; delete those first"
            )
    try:
        now = await gateway.book.delete(tenant, name, expected=expected(request), by=who(request).name)
    except VersionMismatch as mismatch:
        raise Refusal(412, str(mismatch)) from mismatch
    return show(TemplateDeleted(name=name, now="file" if now is not None else None))


_READ_ONLY = TemplateBody.model_fields.keys() - {"description"}
"""What `GET` says besides what `PUT` takes, so that the one's answer can be the other's body."""


async def known(gateway: Gateway, tenant: str, name: str) -> Offered:
    """Return a template, or refuse with those that there are."""
    offered = await gateway.book.get(tenant, name)
    if offered is None:
        there = ", ".join(await gateway.book.all(tenant)) or "none"
        raise Refusal(404, f"there is no template {name[:SHOWN]!r}; known: {there}")
    return offered


async def filled_by(gateway: Gateway, tenant: str, offered: Offered, given: Mapping[str, JsonValue]) -> Valid | Invalid:
    """Return a template's workflow with what somebody gives for its parameters."""
    inner = await gateway.book.closure(tenant, templates_in(offered.template.workflow))
    return filled(offered.template, given, gateway.catalogue, inner)


async def catalogue_with(gateway: Gateway, tenant: str, body: object) -> Catalogue:
    """Return what a document may name, with the templates that it does name."""
    inner = templates_named(body)
    return gateway.catalogue_with(await gateway.book.closure(tenant, inner) if inner else {})


def _knows_itself(name: str, template: Blueprint, catalogue: Catalogue) -> None:
    """Refuse a template that stands for itself, be it by way of others."""
    waiting, seen = [template], set[str]()
    while waiting:
        inner = templates_in(waiting.pop().workflow)
        if name in inner:
            raise BadTemplate((Problem("$.workflow", "circular_template", f"{name!r} would stand for itself"),))
        waiting += [catalogue.templates[one] for one in inner - seen if one in catalogue.templates]
        seen |= inner


def named(name: str) -> None:
    """Refuse a name that could not stand in a subject."""
    if not is_token(name):
        raise Refusal(422, (Problem("$", "bad_name", "a name has 1 to 64 of A-Z, a-z, 0-9, - and _"),))


def expected(request: Request) -> int | None:
    """Return on top of which version is written; None: whichever there is."""
    if request.headers.get("if-none-match", "").strip() == "*":
        return 0
    said = request.headers.get("if-match", "").strip()
    if not said or said == "*":
        return None
    match = _VERSION.fullmatch(said)
    if match is None:
        raise Refusal(422, (Problem("If-Match", "bad_version", f'{said[:SHOWN]} is no ETag of ours, such as "3"'),))
    return 0 if match[1] == "file" else int(match[1])


def _etag(offered: Offered) -> dict[str, str]:
    return {"ETag": f'"{offered.version or "file"}"'}
