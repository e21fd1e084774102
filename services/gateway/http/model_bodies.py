"""The bodies of `/models/{name}` and `/providers`."""

from datetime import date
from typing import Any, Literal

from pydantic import Field, JsonValue, NonNegativeInt

from services.gateway.http.models import Body
from services.gateway.listings import OfferedModel
from shared.contracts.ids import Lane
from shared.registry.following import LiveModels


class VariantBody(Body):
    """Another model that plays a role for a share of the runs."""

    weight: NonNegativeInt
    provider: str | None = None
    model: str | None = None
    config: dict[str, JsonValue] = Field(default_factory=dict)


class ModelBody(Body):
    """A role and the model that plays it, as `GET /models` lists them."""

    name: str
    provider: str
    model: str
    purpose: str
    available: bool = Field(description="Somebody can be asked.")
    simulated: bool
    disabled: str | None = Field(default=None, description="Why nobody asks it; null: it is asked.")
    fallbacks: tuple[str, ...] = Field(default=(), description="Roles that stand in, in order.")
    weight: NonNegativeInt = Field(default=100, description="The share of the runs that it keeps among its variants.")
    variants: dict[str, VariantBody] = Field(default_factory=dict, description="Other models that play it, by name.")
    expires_on: date | None = Field(default=None, description="The last day (UTC) on which it is asked.")
    version: int | None = Field(
        default=None, description="Of what was written at run time; null: the configuration file's."
    )


class ModelsAnswer(Body):
    models: list[ModelBody]
    count: NonNegativeInt


class ModelWritten(Body):
    """`PUT /models/{name}`: an entry of `ai_models`, with what else belongs to a role."""

    provider: str = Field(description="openrouter, google_ai, openai_compatible, or one of `GET /providers`.")
    model: str = Field(description="The model's id at its provider.")
    purpose: str = ""
    config: dict[str, JsonValue] = Field(default_factory=dict, description="temperature, max_tokens, top_p, …")
    context_tokens: int = 131_072
    max_concurrency: int | None = None
    lane: Literal["text", "image", "video"] | None = None
    weight: NonNegativeInt = Field(default=100, description="The share of the runs that it keeps among its variants.")
    variants: dict[str, VariantBody] = Field(
        default_factory=dict,
        description="Other models by a name of yours, each with a weight: a conversation stays with one.",
    )
    expires_on: date | None = Field(default=None, description="The last day (UTC) on which it is asked.")
    fallbacks: tuple[str, ...] | None = Field(
        default=None, max_length=16, description="Roles that stand in, in order; null: as the configuration file says."
    )
    system_prompt: str | None = Field(
        default=None, min_length=1, max_length=60_000, description="What it is told first; null: as the file says."
    )


class WholeModel(ModelWritten):
    """Who plays a role, as it is now."""

    name: str
    available: bool = Field(description="Somebody can be asked.")
    simulated: bool
    makes: Lane
    disabled: str | None = Field(description="Why nobody asks it; null: it is asked.")
    source: Literal["file", "registry"]
    version: int | None = Field(description="Of what was written at run time; null: the configuration file's.")


class ProviderWritten(Body):
    """`PUT /providers/{name}`: an entry of `providers`."""

    protocol: Literal["openrouter", "google_ai", "openai_compatible"] = "openai_compatible"
    base_url: str | list[str] = Field(description="Its base URL, or several: attempts go round.")
    api_key_env: str | list[str] = Field(
        default_factory=list, description="Environment variables of the executors with its keys. Never a key."
    )


class WholeProvider(ProviderWritten):
    """A server that models are asked of."""

    name: str
    roles: list[str] = Field(description="Who is asked there.")
    disabled: str | None
    source: Literal["file", "registry"]
    version: int | None


class ProvidersAnswer(Body):
    providers: list[WholeProvider]
    count: NonNegativeInt


class DisableBody(Body):
    """Why something is not asked any more: callers are told."""

    reason: str = Field(min_length=1, max_length=500, examples=["invoices in dispute"])


class EntryDeleted(Body):
    status: Literal["deleted"] = "deleted"
    name: str
    now: Literal["file"] | None = Field(description="`file`: the configuration file's is back.")


def listed_model(offered: OfferedModel, live: LiveModels | None) -> ModelBody:
    """Return a role as the list has it; without `live` only what is offered is known."""
    told = ModelBody(
        name=offered.name,
        provider=offered.provider,
        model=offered.model,
        purpose=offered.purpose,
        available=offered.available,
        simulated=offered.simulated,
    )
    if live is None or offered.name not in live.configuration.ai_models:
        return told
    whole = whole_model(live, offered.name, offered)
    beside = ("disabled", "fallbacks", "weight", "variants", "expires_on", "version")
    return told.model_copy(update={name: getattr(whole, name) for name in beside})


def whole_model(live: LiveModels, name: str, offered: OfferedModel | None) -> WholeModel:
    """Return a role as it is now; it has to be there."""
    now = live.configuration
    model, entry = now.ai_models[name], live.overlay.models.get(name)
    written = entry is not None and not entry.empty
    fields: dict[str, Any] = model.model_dump(mode="json", exclude={"original_model"}, exclude_none=True)
    prompt = entry.system_prompt if entry is not None else None
    fields |= {
        "name": name,
        "available": offered is not None and offered.available,
        "simulated": offered is not None and offered.simulated,
        "makes": model.makes,
        "disabled": model.disabled,
        "fallbacks": now.model_fallbacks.get(name, ()),
        "system_prompt": prompt,
        "source": "registry" if written else "file",
        "version": entry.version if written and entry is not None else None,
    }
    return WholeModel.model_validate(fields)


def whole_provider(live: LiveModels, name: str) -> WholeProvider:
    """Return a provider as it is now; it has to be there."""
    now = live.configuration
    provider, entry = now.providers[name], live.overlay.providers.get(name)
    written = entry is not None and not entry.empty
    return WholeProvider(
        name=name,
        protocol=provider.protocol,
        base_url=list(provider.base_url),
        api_key_env=list(provider.api_key_env),
        roles=sorted(role for role, model in now.ai_models.items() if model.provider == name),
        disabled=provider.disabled,
        source="registry" if written else "file",
        version=entry.version if written and entry is not None else None,
    )


def whole_providers(live: LiveModels) -> list[WholeProvider]:
    """Return every provider beside the built-in ones."""
    return [whole_provider(live, name) for name in sorted(live.configuration.providers)]
