"""Where each role's calls go: a pure function of the configuration and the environment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from shared.config.configuration import Configuration
from shared.config.environment import Environment
from shared.config.errors import ConfigInvalid
from shared.config.roles import DEFAULT_VARIANT, Model, ModelParameters, Provider
from shared.contracts.ids import Lane

OPENAI_COMPATIBLE: Final = "openai_compatible"
OPENROUTER: Final = "openrouter"
GOOGLE_AI: Final = "google_ai"
SIMULATOR: Final = "simulator"
KEY_VARIABLES: Final = {OPENROUTER: "OPENROUTER_API_KEY", GOOGLE_AI: "GOOGLE_AI_API_KEY"}


@dataclass(frozen=True, slots=True)
class Instance:
    """One server of a provider, and one key for it."""

    base_url: str
    api_key: SecretStr | None


@dataclass(frozen=True, slots=True)
class Route:
    """Where the calls of one role go."""

    role: str
    provider: str
    """`openrouter`, `google_ai`, `openai_compatible`, or a name of `providers`."""
    base_url: str
    api_key: SecretStr | None
    model: str
    parameters: ModelParameters
    lane: Lane
    simulated: bool = False
    """Nothing real answers: every answer has to say so."""
    unavailable: str | None = None
    """Why no call of this role can be made, and what to set; None when one can."""
    paused: bool = False
    """It is unavailable by somebody's word alone: what it has begun is asked after all the same."""
    limit: str | None = None
    """Which entry of `rate_limiting` holds for it; None: no limit."""
    protocol: str = OPENROUTER
    """What is spoken: `openrouter`, `google_ai` or `openai_compatible`."""
    others: tuple[Instance, ...] = ()
    """Further servers and keys of the same provider: attempts go round."""
    variant: str | None = None
    """What it is called among the role's variants; None where the role has none."""
    weight: int = 1
    variants: tuple["Route", ...] = ()
    """Other models that play the role for a share of the runs."""
    expires_on: date | None = None
    """The last day on which the provider serves the model."""

    @property
    def priced_as(self) -> str:
        """Whose prices hold where a provider says none: of whom the protocol is."""
        return self.protocol

    def at(self, turn: int) -> "Route":
        """Return the route by way of one of its servers and keys; each `turn` takes the next."""
        if not self.others:
            return self
        there = (Instance(self.base_url, self.api_key), *self.others)
        chosen = there[turn % len(there)]
        return replace(self, base_url=chosen.base_url, api_key=chosen.api_key)


def lane(configuration: Configuration, role: str) -> Lane:
    """Return what a role makes. Raises KeyError for a role that is not there."""
    return configuration.ai_models[role].makes


def routes(configuration: Configuration, environment: Environment) -> Mapping[str, Route]:
    """Return the route of every role.

    A role whose provider is one of `providers` goes there. Of the others, SEGUE_OPENAI_BASE_URL takes every text role;
    else SEGUE_SIMULATOR_URL takes every role; else each goes to its own provider.
    """
    return {role: route_of(role, model, configuration, environment) for role, model in configuration.ai_models.items()}


def route_of(role: str, model: Model, configuration: Configuration, environment: Environment) -> Route:
    """Return the route of one role, with those of its variants."""
    own = replace(_of_one(role, model, configuration, environment), weight=model.weight, expires_on=model.expires_on)
    if not model.variants:
        return own
    others = []
    for name, variant in model.variants.items():
        config = {**model.config.model_dump(exclude_none=True), **variant.config.model_dump(exclude_none=True)}
        changed = {
            "provider": variant.provider or model.provider,
            "model": variant.model or model.model,
            "config": ModelParameters.model_validate(config),
            "lane": model.makes.value,
        }
        route = _of_one(role, model.model_copy(update=changed), configuration, environment)
        others.append(replace(route, variant=name, weight=variant.weight))
    return replace(own, variant=DEFAULT_VARIANT, variants=tuple(others))


def _of_one(role: str, model: Model, configuration: Configuration, environment: Environment) -> Route:
    route = _there(role, model, configuration, environment)
    own = configuration.providers.get(model.provider)
    if model.disabled is not None:
        return _paused(route, f"role {role!r} is disabled: {model.disabled}")
    if own is not None and own.disabled is not None:
        return _paused(route, f"provider {model.provider!r} of role {role!r} is disabled: {own.disabled}")
    return route


def _paused(route: Route, why: str) -> Route:
    return replace(route, unavailable=why, paused=route.unavailable is None)


def _there(role: str, model: Model, configuration: Configuration, environment: Environment) -> Route:
    if (own := configuration.providers.get(model.provider)) is not None:
        return _own(role, model, own, configuration, environment)
    if environment.openai_base_url is not None:
        if model.makes is Lane.TEXT:
            return _openai_compatible(role, model, configuration, environment, environment.openai_base_url)
        if environment.key(KEY_VARIABLES.get(model.provider, "")) is None and environment.simulator_url is None:
            return _nobody(role, model, configuration, environment, environment.openai_base_url)
    if environment.simulator_url is not None:
        return _simulated(role, model, configuration, environment.simulator_url)
    match model.provider:
        case "openrouter":
            return _openrouter(role, model, configuration, environment)
        case "google_ai":
            return _google(role, model, configuration, environment)
        case _:
            reason = f"role {role!r} has the provider openai_compatible: set SEGUE_OPENAI_BASE_URL to its server"
            return _made(role, model, configuration, OPENAI_COMPATIBLE, [Instance("", None)], unavailable=reason)


def _own(role: str, model: Model, own: Provider, configuration: Configuration, environment: Environment) -> Route:
    """Return a route by way of an entry of `providers`."""
    reason = None
    try:
        keys = [key for name in own.api_key_env if (key := environment.secret(name)) is not None]
    except ConfigInvalid as invalid:  # of one provider that was added: it is no reason to follow no change any more
        said = "; ".join(map(str, invalid.problems))
        keys, reason = [], f"role {role!r} needs the provider {model.provider!r}, whose key cannot be used: {said}"
    if reason is None and own.api_key_env and not keys:
        reason = f"role {role!r} needs the provider {model.provider!r} and there is no key: set {own.api_key_env[0]}"
    elif own.protocol == OPENAI_COMPATIBLE and model.makes is Lane.VIDEO:
        reason = f"role {role!r} makes videos, which OpenAI-compatible servers are not asked for"
    there = [Instance(url.rstrip("/"), key) for key in (*keys, *(() if keys else (None,))) for url in own.base_url]
    return _made(role, model, configuration, model.provider, there, protocol=own.protocol, unavailable=reason)


def _openai_compatible(
    role: str, model: Model, configuration: Configuration, environment: Environment, base_url: str
) -> Route:
    there = [Instance(base_url, environment.openai_api_key)]
    route = _made(role, model, configuration, OPENAI_COMPATIBLE, there)
    return replace(route, model=environment.openai_model or model.model)


def _nobody(role: str, model: Model, configuration: Configuration, environment: Environment, base_url: str) -> Route:
    """Return the route of a role that makes images or videos, where only a text server is given."""
    reason = (
        f"role {role!r} makes {_plural(model.makes)} and has no provider: SEGUE_OPENAI_BASE_URL serves text only; "
        f"set {_key_variable(model)}"
    )
    there = [Instance(base_url, environment.openai_api_key)]
    return _made(role, model, configuration, OPENAI_COMPATIBLE, there, unavailable=reason)


def _simulated(role: str, model: Model, configuration: Configuration, base_url: str) -> Route:
    """A simulator speaks every protocol; of a role without one of its own, OpenRouter's. It never gets a real key."""
    protocol = GOOGLE_AI if model.provider == GOOGLE_AI else OPENROUTER
    if protocol == GOOGLE_AI:
        parts = urlsplit(base_url)
        base_url = f"{parts.scheme}://{parts.netloc}/v1beta"
    limit = SIMULATOR if SIMULATOR in configuration.rate_limiting else None
    route = _made(role, model, configuration, protocol, [Instance(base_url, None)])
    return replace(route, simulated=True, limit=limit)


def _openrouter(role: str, model: Model, configuration: Configuration, environment: Environment) -> Route:
    key = environment.openrouter_api_key or configuration.api_keys.openrouter
    base_url = configuration.api_endpoints.openrouter.rstrip("/").removesuffix("/chat/completions")
    reason = None
    if key is None:
        reason = (
            f"role {role!r} needs OpenRouter and there is no key: set OPENROUTER_API_KEY, or SEGUE_OPENAI_BASE_URL "
            "to any OpenAI-compatible server"
        )
    return _made(role, model, configuration, OPENROUTER, _instances(base_url, key), unavailable=reason)


def _google(role: str, model: Model, configuration: Configuration, environment: Environment) -> Route:
    key = environment.google_ai_api_key or configuration.api_keys.google_ai
    endpoints = configuration.api_endpoints
    endpoint = endpoints.google_veo if model.makes is Lane.VIDEO else endpoints.google_imagen
    base_url = endpoint.partition("/models")[0].rstrip("/")
    reason = None
    if key is None:
        reason = f"role {role!r} needs Google's API and there is no key: set GOOGLE_AI_API_KEY"
    return _made(role, model, configuration, GOOGLE_AI, _instances(base_url, key), unavailable=reason)


def _instances(base_url: str, keys: SecretStr | None) -> list[Instance]:
    """Return a server once for each of its keys, which stand in one variable with commas between."""
    if keys is None:
        return [Instance(base_url, None)]
    return [Instance(base_url, SecretStr(key)) for key in keys.get_secret_value().split(",") if key]


def _made(
    role: str,
    model: Model,
    configuration: Configuration,
    provider: str,
    there: Sequence[Instance],
    *,
    protocol: str | None = None,
    unavailable: str | None = None,
) -> Route:
    return Route(
        role=role,
        provider=provider,
        base_url=there[0].base_url,
        api_key=there[0].api_key,
        model=model.model,
        parameters=model.config,
        lane=model.makes,
        unavailable=unavailable,
        limit=provider if provider in configuration.rate_limiting else None,
        protocol=protocol or provider,
        others=tuple(there[1:]),
    )


def _plural(makes: Lane) -> str:
    return "images" if makes is Lane.IMAGE else f"{makes}s"


def _key_variable(model: Model) -> str:
    return KEY_VARIABLES.get(model.provider, KEY_VARIABLES[OPENROUTER])
