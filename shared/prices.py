"""What models cost, in US dollars. None: nobody knows, which is said loudly and is never taken for nothing.

An override file comes first (`SEGUE_PRICES`), then the dated table of the package `genai-prices`, which prices by the
day, by cached tokens and by the length of the prompt, where a provider does.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from shared.config.errors import ConfigInvalid, Problem, json_path
from shared.contracts.message import Usage

_PROVIDERS: Final = {"openrouter": "openrouter", "google_ai": "google"}
_MILLION: Final = 1_000_000
SHORT_TOKENS: Final = 100_000
"""Longer prompts may have another price a token."""

Source = Literal["override", "table"]


class Override(BaseModel):
    """One model's prices, by an operator. Of tokens: US dollars a million."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: float | None = Field(default=None, ge=0, description="Of what the model is told.")
    output: float | None = Field(default=None, ge=0, description="Of what it says, reasoning included.")
    cached_input: float | None = Field(default=None, ge=0, description="Of what it was told before; absent: as input.")
    image: float | None = Field(default=None, ge=0, description="US dollars an image.")
    second: float | None = Field(default=None, ge=0, description="US dollars a second of video.")
    note: str = Field(default="", description="Where it comes from, and of which day.")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if (self.input is None) != (self.output is None):
            raise ValueError("input and output belong together")
        if self.input is None and self.image is None and self.second is None:
            raise ValueError("a price: input and output, image, or second")
        return self


FINE: Final = frozenset({"4k", "2160p"})
IMAGE_TOKENS: Final = 2_000
"""Of one image, where a model is paid by tokens: what a large one takes."""


@dataclass(frozen=True, slots=True)
class Media:
    """What an image or a second of video costs; `fine_second_usd`: in 4K. Google's price list of November 2026."""

    image_usd: float | None = None
    second_usd: float | None = None
    fine_second_usd: float | None = None


_MEDIA: Final = {
    "imagen-4-ultra": Media(image_usd=0.06),
    "veo-3.1": Media(second_usd=0.40, fine_second_usd=0.60),
}
"""By how a model's id begins, behind its vendor."""

_FILE: Final = TypeAdapter(dict[str, Override])


@dataclass(frozen=True, slots=True)
class Price:
    """Of one token, as it is for a short prompt."""

    input_usd: float
    output_usd: float


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Prices by model; an override holds whoever serves the model."""

    overrides: Mapping[str, Override] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path | None) -> "PriceBook":
        """Read an override file: `{"<model id>": {"input": …, "output": …}}`. Raises `ConfigInvalid`."""
        if path is None:
            return cls()
        expected = "a JSON file with model ids and their prices; see docs/operations.md"
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigInvalid(
                "prices", [Problem("SEGUE_PRICES", f"{str(path)!r}: {error.strerror}", expected)]
            ) from error
        try:
            return cls(_FILE.validate_python(json.loads(text)))
        except ValidationError as error:
            found = [Problem(json_path(one["loc"]), repr(one["input"])[:80], one["msg"]) for one in error.errors()]
            raise ConfigInvalid(str(path), found) from error
        except ValueError as error:
            raise ConfigInvalid(str(path), [Problem("$", str(error), expected)]) from error

    def price(self, provider: str, model: str) -> Price | None:
        """Return a model's price of a token."""
        override = self.overrides.get(model)
        if override is not None:
            if override.input is None or override.output is None:
                return None
            return Price(override.input / _MILLION, override.output / _MILLION)
        return price_of(provider, model)

    def cost(
        self, provider: str, model: str, usage: Usage, *, resolution: str | None = None
    ) -> tuple[float, Source] | None:
        """Return what was used costs, and by whose word. `resolution`: of a video."""
        override = self.overrides.get(model)
        if override is not None:
            found = _overridden(override, usage)
            return None if found is None else (found, "override")
        listed = next((price for name, price in _MEDIA.items() if model.rpartition("/")[2].startswith(name)), None)
        if listed is not None:
            found = _listed(listed, usage, fine=str(resolution).lower() in FINE)
        elif usage.video_s or (usage.images and not usage.total_tokens):
            found = None
        else:
            found = _by_table(provider, model, usage)
        return None if found is None else (found, "table")

    def most(self, provider: str, model: str, *, prompt_tokens: int, answer_tokens: int) -> float | None:
        """Return the most that a call can cost with so many tokens, none of them cached."""
        if prompt_tokens < SHORT_TOKENS:
            each = self.price(provider, model)
            return None if each is None else prompt_tokens * each.input_usd + answer_tokens * each.output_usd
        found = self.cost(provider, model, Usage(prompt_tokens=prompt_tokens, completion_tokens=answer_tokens))
        return None if found is None else found[0]


def price_of(provider: str, model: str) -> Price | None:
    """Return the price of a model at a provider of the configuration; None where the table does not have it."""
    return _on(provider, model, datetime.now(UTC).date())


@lru_cache(maxsize=512)
def _on(provider: str, model: str, day: date) -> Price | None:
    """Return the price on a day, in calls of the size that most are."""
    priced = _asked(provider, model, input_tokens=1_000, output_tokens=1_000)
    return None if priced is None else Price(float(priced.input_price) / 1_000, float(priced.output_price) / 1_000)


def _by_table(provider: str, model: str, usage: Usage) -> float | None:
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    priced = _asked(
        provider,
        model,
        input_tokens=usage.prompt_tokens,
        output_tokens=_said(usage),
        **({"cache_read_tokens": cached} if cached else {}),
        **({"output_image_tokens": usage.image_tokens} if usage.image_tokens else {}),
    )
    return None if priced is None else float(priced.total_price)


def _overridden(override: Override, usage: Usage) -> float | None:
    """Return what was used costs by an operator's prices; None where they leave out what it needs."""
    cost_usd = 0.0
    of_images = usage.image_tokens if override.image is not None else 0
    if usage.images and override.image is None and not usage.total_tokens:
        return None
    if usage.video_s and override.second is None:
        return None
    cost_usd += usage.images * (override.image or 0.0) + usage.video_s * (override.second or 0.0)
    if override.input is not None and override.output is not None:
        cached = min(usage.cached_tokens, usage.prompt_tokens)
        again = override.cached_input if override.cached_input is not None else override.input
        fresh = (usage.prompt_tokens - cached) * override.input
        cost_usd += (fresh + cached * again + (_said(usage) - of_images) * override.output) / _MILLION
    elif not (usage.images or usage.video_s):
        return None
    return cost_usd


def _said(usage: Usage) -> int:
    """Return the tokens of an answer: those of its images are among them, whatever a provider's sum says."""
    return max(usage.completion_tokens, usage.image_tokens)


def _listed(price: Media, usage: Usage, *, fine: bool) -> float | None:
    second_usd = price.fine_second_usd if fine else price.second_usd
    if (usage.images and price.image_usd is None) or (usage.video_s and second_usd is None):
        return None
    if not (usage.images or usage.video_s):
        return None
    return usage.images * (price.image_usd or 0.0) + usage.video_s * (second_usd or 0.0)


@lru_cache(maxsize=512)
def _unknown(provider: str, model: str) -> bool:
    """Whether the table does not have a model: asked once, since looking for it takes long."""
    from genai_prices import Usage as Tokens  # some 13 MB, for whoever asks for prices only
    from genai_prices import calc_price

    try:
        calc_price(Tokens(input_tokens=1, output_tokens=1), model_ref=model, provider_id=_PROVIDERS[provider])
    except LookupError:
        return True
    return False


def _asked(provider: str, model: str, **tokens: int) -> Any:
    if provider not in _PROVIDERS or _unknown(provider, model):
        return None
    from genai_prices import Usage as Tokens
    from genai_prices import calc_price

    return calc_price(Tokens(**tokens), model_ref=model, provider_id=_PROVIDERS[provider])
