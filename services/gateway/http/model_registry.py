"""`/models/{name}`, `/providers`: who plays a role, read and changed while the system runs. (ADR 0017)"""

from collections.abc import Awaitable
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.gateway import Gateway, gateway_of
from services.gateway.http.answering import show
from services.gateway.http.bodies import document, parsed, read_as
from services.gateway.http.errors import JSON, Refusal
from services.gateway.http.model_bodies import (
    DisableBody,
    EntryDeleted,
    ModelWritten,
    ProvidersAnswer,
    ProviderWritten,
    WholeModel,
    WholeProvider,
    whole_model,
    whole_provider,
    whole_providers,
)
from services.gateway.http.models import Failure
from services.gateway.http.openapi import takes
from services.gateway.http.templates import BY, SHOWN, expected, if_match, named
from shared.config.roles import Model, Provider
from shared.contracts.registry import ModelEntry, ProviderEntry
from shared.registry.following import LiveModels
from shared.registry.models import MODELS, PROVIDERS, BadModel, TooManyEntries, read_model, read_provider
from shared.registry.templates import VersionMismatch

router = APIRouter(tags=["models"])

_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Failure}}
_WRITTEN: dict[int | str, dict[str, Any]] = {
    409: {"model": Failure}, 412: {"model": Failure}, 422: {"model": Failure},
}  # fmt: skip
_READ_ONLY = WholeModel.model_fields.keys() - ModelWritten.model_fields.keys()
_READ_ONLY_PROVIDER = WholeProvider.model_fields.keys() - ProviderWritten.model_fields.keys()
_BESIDE = ("fallbacks", "system_prompt")
"""What a role's body says besides its entry of `ai_models`."""


@router.get("/models/{name}", summary="Read a role", response_model=WholeModel, responses=_MISSING)
async def read(request: Request, name: str) -> Response:
    """Return who plays a role, with its variants and those that stand in, as it can be written back."""
    return _told(gateway_of(request), name)


@router.put(
    "/models/{name}",
    summary="Write a role",
    response_model=WholeModel,
    responses={201: {"model": WholeModel}, **_WRITTEN},
    openapi_extra={**takes(ModelWritten), **if_match()},
)
async def write(request: Request, name: str) -> Response:
    """Add a role, or have another model play it: every service follows within a second. Calls that are asked stay."""
    gateway = gateway_of(request)
    live = _live(gateway)
    named(name)
    body = {key: value for key, value in (await document(request)).items() if key not in _READ_ONLY}
    beside = read_as(
        {key: body.pop(key) for key in _BESIDE if key in body} | {"provider": "-", "model": "-"}, ModelWritten
    )
    try:
        kept = read_model(name, body, beside.fallbacks or (), live.configuration)
    except BadModel as bad:
        raise Refusal(422, bad.problems) from bad
    fresh = name not in live.configuration.ai_models
    changes = {"document": kept, "fallbacks": beside.fallbacks, "system_prompt": beside.system_prompt}
    await _written(live, gateway.models.write_model(name, changes, expected=expected(request), by=BY))
    return _told(gateway, name, 201 if fresh else 200)


@router.delete(
    "/models/{name}",
    summary="Take back what was written of a role",
    response_model=EntryDeleted,
    responses={**_MISSING, **_WRITTEN},
    openapi_extra=if_match(),
)
async def delete(request: Request, name: str) -> Response:
    """Take back what was written of a role: the configuration file's is back, or there is no such role any more."""
    gateway = gateway_of(request)
    live = _live(gateway)
    if not live.leaves_out(MODELS, name):
        _known_role(live, name)
        _written_over(f"role {name!r}", live.overlay.models.get(name))
    in_file = name in live.file.ai_models
    if not in_file:
        users = sorted(role for role, others in live.configuration.model_fallbacks.items() if name in others)
        if users:
            raise Refusal(409, f"role {name!r} stands in for {', '.join(users[:10])}: change their fallbacks first")
    nothing = dict.fromkeys(("document", "fallbacks", "system_prompt", "disabled"))
    await _written(live, gateway.models.write_model(name, nothing, expected=expected(request), by=BY))
    return show(EntryDeleted(name=name, now="file" if in_file else None))


@router.post(
    "/models/{name}/disable",
    summary="Ask a role no more",
    response_model=WholeModel,
    responses={**_MISSING, **_WRITTEN},
    openapi_extra=takes(DisableBody),
)
async def disable(request: Request, name: str) -> Response:
    """Have nobody ask a role's model from now on: its fallbacks answer, or a failure says why."""
    gateway = gateway_of(request)
    live = _live(gateway)
    _known_role(live, name)
    named(name)
    reason = (await parsed(request, DisableBody)).reason
    await _written(live, gateway.models.write_model(name, {"disabled": reason}, expected=None, by=BY))
    return _told(gateway, name)


@router.post(
    "/models/{name}/enable", summary="Ask a role again", response_model=WholeModel, responses={**_MISSING, **_WRITTEN}
)
async def enable(request: Request, name: str) -> Response:
    """Have a role asked again that was disabled here."""
    gateway = gateway_of(request)
    live = _live(gateway)
    _known_role(live, name)
    _asked_by_file(f"role {name!r}", live.file.ai_models.get(name))
    await _written(live, gateway.models.write_model(name, {"disabled": None}, expected=None, by=BY))
    return _told(gateway, name)


@router.get("/providers", summary="Providers", response_model=ProvidersAnswer)
async def providers(request: Request) -> Response:
    """List the servers that models are asked of, beside the built-in ones. Keys are named, never shown."""
    found = whole_providers(_live(gateway_of(request)))
    return show(ProvidersAnswer(providers=found, count=len(found)))


@router.put(
    "/providers/{name}",
    summary="Write a provider",
    response_model=WholeProvider,
    responses={201: {"model": WholeProvider}, **_WRITTEN},
    openapi_extra={**takes(ProviderWritten), **if_match()},
)
async def write_provider(request: Request, name: str) -> Response:
    """Add a provider, or change one. The variables with its keys have to be in the executors' environment."""
    gateway = gateway_of(request)
    live = _live(gateway)
    named(name)
    body = {key: value for key, value in (await document(request)).items() if key not in _READ_ONLY_PROVIDER}
    try:
        kept = read_provider(name, body)
    except BadModel as bad:
        raise Refusal(422, bad.problems) from bad
    fresh = name not in live.configuration.providers
    await _written(live, gateway.models.write_provider(name, {"document": kept}, expected=expected(request), by=BY))
    return _told_provider(live, name, 201 if fresh else 200)


@router.delete(
    "/providers/{name}",
    summary="Take back what was written of a provider",
    response_model=EntryDeleted,
    responses={**_MISSING, **_WRITTEN},
    openapi_extra=if_match(),
)
async def delete_provider(request: Request, name: str) -> Response:
    """Take back what was written of a provider: the configuration file's is back, or there is none of this name."""
    gateway = gateway_of(request)
    live = _live(gateway)
    if not live.leaves_out(PROVIDERS, name):
        _known_provider(live, name)
        _written_over(f"provider {name!r}", live.overlay.providers.get(name))
    in_file = name in live.file.providers
    users = sorted(
        role
        for role, model in live.configuration.ai_models.items()
        if name in (model.provider, *(variant.provider for variant in model.variants.values()))
    )
    if users and not in_file:
        raise Refusal(409, f"provider {name!r} serves {', '.join(users[:10])}: point those at another one first")
    await _written(
        live,
        gateway.models.write_provider(name, {"document": None, "disabled": None}, expected=expected(request), by=BY),
    )
    return show(EntryDeleted(name=name, now="file" if in_file else None))


@router.post(
    "/providers/{name}/disable",
    summary="Ask a provider no more",
    response_model=WholeProvider,
    responses={**_MISSING, **_WRITTEN},
    openapi_extra=takes(DisableBody),
)
async def disable_provider(request: Request, name: str) -> Response:
    """Have nothing asked of a provider from now on: the fallbacks of its roles answer."""
    gateway = gateway_of(request)
    live = _live(gateway)
    _known_provider(live, name)
    reason = (await parsed(request, DisableBody)).reason
    await _written(live, gateway.models.write_provider(name, {"disabled": reason}, expected=None, by=BY))
    return _told_provider(live, name)


@router.post(
    "/providers/{name}/enable",
    summary="Ask a provider again",
    response_model=WholeProvider,
    responses={**_MISSING, **_WRITTEN},
)
async def enable_provider(request: Request, name: str) -> Response:
    """Have a provider asked again that was disabled here."""
    gateway = gateway_of(request)
    live = _live(gateway)
    _known_provider(live, name)
    _asked_by_file(f"provider {name!r}", live.file.providers.get(name))
    await _written(live, gateway.models.write_provider(name, {"disabled": None}, expected=None, by=BY))
    return _told_provider(live, name)


def _live(gateway: Gateway) -> LiveModels:
    if gateway.live is None:
        raise Refusal(503, "this gateway follows no configuration, so that models cannot be looked at or changed")
    return gateway.live


def _known_role(live: LiveModels, name: str) -> None:
    if name not in live.configuration.ai_models:
        known = ", ".join(sorted(live.configuration.ai_models))
        raise Refusal(404, f"there is no role {name[:SHOWN]!r}; known: {known}")


def _known_provider(live: LiveModels, name: str) -> None:
    if name not in live.configuration.providers:
        known = ", ".join(sorted(live.configuration.providers)) or "none but the built-in ones"
        raise Refusal(404, f"there is no provider {name[:SHOWN]!r} that could be changed; known: {known}")


def _written_over(what: str, entry: ModelEntry | ProviderEntry | None) -> None:
    """Refuse to take back what nobody wrote."""
    if entry is None or entry.empty:
        raise Refusal(409, f"{what} is as the configuration file has it: change it there, or write over it")


def _asked_by_file(what: str, in_file: Model | Provider | None) -> None:
    """Refuse to enable what the configuration file has disabled."""
    if in_file is not None and in_file.disabled is not None:
        raise Refusal(409, f"{what} is disabled in the configuration file: enable it there")


def _told(gateway: Gateway, name: str, status: int = 200) -> Response:
    live = _live(gateway)
    _known_role(live, name)
    offered = next((one for one in gateway.listings.models if one.name == name), None)
    body = whole_model(live, name, offered)
    return Response(body.to_json(), status, {"ETag": f'"{body.version or "file"}"'}, JSON)


def _told_provider(live: LiveModels, name: str, status: int = 200) -> Response:
    body = whole_provider(live, name)
    return Response(body.to_json(), status, {"ETag": f'"{body.version or "file"}"'}, JSON)


async def _written(live: LiveModels, writing: Awaitable[ModelEntry | ProviderEntry]) -> None:
    """Write an entry, and know of it here at once."""
    try:
        entry = await writing
    except VersionMismatch as mismatch:
        raise Refusal(412, str(mismatch)) from mismatch
    except TooManyEntries as full:
        raise Refusal(409, str(full)) from full
    live.take(entry)
