"""Where each role's calls go: a pure function of the configuration and the environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import SecretStr

from shared.config.configuration import Configuration
from shared.config.environment import Environment
from shared.config.roles import Model, ModelParameters
from shared.contracts.ids import Lane

OPENAI_COMPATIBLE: Final = "openai_compatible"
OPENROUTER: Final = "openrouter"
GOOGLE_AI: Final = "google_ai"
SIMULATOR: Final = "simulator"


@dataclass(frozen=True, slots=True)
class Route:
    """Where the calls of one role go."""

    role: str
    provider: str
    """`openrouter`, `google_ai` or `openai_compatible`: whose protocol is spoken. A simulator speaks OpenRouter's."""
    base_url: str
    api_key: SecretStr | None
    model: str
    parameters: ModelParameters
    lane: Lane
    simulated: bool = False
    """Nothing real answers: every answer has to say so."""
    unavailable: str | None = None
    """Why no call of this role can be made, and what to set; None when one can."""
    limit: str | None = None
    """Which entry of `rate_limiting` holds for it; None: no limit."""


def lane(configuration: Configuration, role: str) -> Lane:
    """Return what a role makes. Raises KeyError for a role that is not there."""
    return configuration.ai_models[role].makes


def routes(configuration: Configuration, environment: Environment) -> Mapping[str, Route]:
    """Return the route of every role.

    SEGUE_OPENAI_BASE_URL takes every text role; else SEGUE_SIMULATOR_URL does; else each goes to its own provider.
    """
    return {role: _route(role, model, configuration, environment) for role, model in configuration.ai_models.items()}


def _route(role: str, model: Model, configuration: Configuration, environment: Environment) -> Route:
    if environment.openai_base_url is not None:
        return _openai_compatible(role, model, configuration, environment, environment.openai_base_url)
    if environment.simulator_url is not None:
        return _simulated(role, model, configuration, environment.simulator_url)
    match model.provider:
        case "openrouter":
            return _openrouter(role, model, configuration, environment)
        case "google_ai":
            return _google(role, model, configuration, environment)
        case "openai_compatible":
            reason = f"role {role!r} has the provider openai_compatible: set SEGUE_OPENAI_BASE_URL to its server"
            return _made(role, model, OPENAI_COMPATIBLE, "", None, unavailable=reason)


def _openai_compatible(
    role: str, model: Model, configuration: Configuration, environment: Environment, base_url: str
) -> Route:
    reason = None
    if model.makes is not Lane.TEXT:
        reason = (
            f"role {role!r} makes {_plural(model.makes)} and has no provider: SEGUE_OPENAI_BASE_URL serves text only; "
            f"unset it and set {_key_variable(model)}"
        )
    return Route(
        role=role,
        provider=OPENAI_COMPATIBLE,
        base_url=base_url,
        api_key=environment.openai_api_key,
        model=environment.openai_model or model.model,
        parameters=model.config,
        lane=model.makes,
        unavailable=reason,
        limit=OPENAI_COMPATIBLE if OPENAI_COMPATIBLE in configuration.rate_limiting else None,
    )


def _simulated(role: str, model: Model, configuration: Configuration, base_url: str) -> Route:
    reason = None
    if model.makes is not Lane.TEXT:
        reason = (
            f"role {role!r} makes {_plural(model.makes)} and has no provider: the simulator plays text models only; "
            f"set {_key_variable(model)}"
        )
    return Route(
        role=role,
        provider=OPENROUTER,
        base_url=base_url,
        api_key=None,
        model=model.model,
        parameters=model.config,
        lane=model.makes,
        simulated=True,
        unavailable=reason,
        limit=SIMULATOR if SIMULATOR in configuration.rate_limiting else None,
    )


def _openrouter(role: str, model: Model, configuration: Configuration, environment: Environment) -> Route:
    key = environment.openrouter_api_key or configuration.api_keys.openrouter
    base_url = configuration.api_endpoints.openrouter.rstrip("/").removesuffix("/chat/completions")
    reason = None
    if key is None:
        reason = (
            f"role {role!r} needs OpenRouter and there is no key: set OPENROUTER_API_KEY, or SEGUE_OPENAI_BASE_URL "
            "to any OpenAI-compatible server"
        )
    elif model.makes is not Lane.TEXT:
        reason = f"role {role!r} makes {_plural(model.makes)}, which this version does not ask of OpenRouter yet"
    return _made(role, model, OPENROUTER, base_url, key, unavailable=reason, limits=configuration)


def _google(role: str, model: Model, configuration: Configuration, environment: Environment) -> Route:
    key = environment.google_ai_api_key or configuration.api_keys.google_ai
    endpoints = configuration.api_endpoints
    endpoint = endpoints.google_veo if model.makes is Lane.VIDEO else endpoints.google_imagen
    base_url = endpoint.partition("/models")[0].rstrip("/")
    if key is None:
        reason = f"role {role!r} needs Google's API and there is no key: set GOOGLE_AI_API_KEY"
    else:
        reason = f"role {role!r} needs Google's API, which is not executed by this version yet"
    return _made(role, model, GOOGLE_AI, base_url, key, unavailable=reason, limits=configuration)


def _made(
    role: str,
    model: Model,
    provider: str,
    base_url: str,
    key: SecretStr | None,
    *,
    unavailable: str | None,
    limits: Configuration | None = None,
) -> Route:
    return Route(
        role=role,
        provider=provider,
        base_url=base_url,
        api_key=key,
        model=model.model,
        parameters=model.config,
        lane=model.makes,
        unavailable=unavailable,
        limit=provider if limits is not None and provider in limits.rate_limiting else None,
    )


def _plural(makes: Lane) -> str:
    return "images" if makes is Lane.IMAGE else f"{makes}s"


def _key_variable(model: Model) -> str:
    return "GOOGLE_AI_API_KEY" if model.provider == "google_ai" else "OPENROUTER_API_KEY"
