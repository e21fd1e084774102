"""Sections about models: which serves each role, with which settings, and what each is told to be."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, StringConstraints

from shared.config.section import HttpUrl, Section
from shared.contracts.ids import Lane

BUILT_IN: Final = ("openrouter", "google_ai", "openai_compatible")
Protocol = Literal["openrouter", "google_ai", "openai_compatible"]

VIDEO_SETTINGS = frozenset({"duration", "duration_seconds", "generate_audio", "fps"})
IMAGE_SETTINGS = frozenset({"num_images", "aspect_ratio", "enhance_prompt", "image_size"})


DEFAULT_VARIANT: Final = "default"
"""What a role's own model is called among its variants."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]


def _day(value: Any) -> Any:
    """Take an ISO day for a date: JSON has no dates."""
    return date.fromisoformat(value) if isinstance(value, str) else value


class ModelParameters(Section):
    """How a model is asked. What is not named here (image and video settings, `top_k`, …) is kept and passed on."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    temperature: float | None = Field(
        default=None, ge=0, le=2, description="Randomness; absent: the provider's default."
    )
    max_tokens: int | None = Field(default=None, ge=1, le=10_000_000, description="Most tokens of an answer.")
    top_p: float | None = Field(default=None, gt=0, le=1, description="Share of probability mass that is sampled from.")

    @property
    def extra(self) -> Mapping[str, JsonValue]:
        """Settings other than the three, as they stand in the file."""
        return self.__pydantic_extra__ or {}


class Provider(Section):
    """A server, or several alike, that models are asked of."""

    protocol: Protocol = Field(default="openai_compatible", description="What it speaks.")
    base_url: tuple[HttpUrl, ...] = Field(
        min_length=1, description="Its base URL, such as http://10.0.0.7:8000/v1, or several: attempts go round."
    )
    api_key_env: tuple[Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")], ...] = Field(
        default=(), description="The environment variable with its key, or several: attempts go round. Never the key."
    )
    disabled: str | None = Field(
        default=None, min_length=1, max_length=500, description="Why nothing is asked of it for now; absent: it is."
    )

    @classmethod
    def shaped(cls, value: JsonValue) -> JsonValue:
        if not isinstance(value, dict):
            return value
        alone = {name: [value[name]] for name in ("base_url", "api_key_env") if isinstance(value.get(name), str)}
        return {**value, **alone}


class Variant(Section):
    """Another model that plays a role for a share of the runs, to be compared with the role's own."""

    weight: int = Field(ge=0, le=1_000_000, description="Its share, against `weight` of the role and of the others.")
    provider: str | None = Field(default=None, min_length=1, description="Who serves it; absent: as the role's own.")
    model: str | None = Field(
        default=None, min_length=1, max_length=200, description="The model's id; absent: the role's own."
    )
    config: ModelParameters = Field(default_factory=ModelParameters, description="Over the role's own config.")


class Model(Section):
    """Who plays a role."""

    provider: str = Field(
        min_length=1, description="Who serves the model: openrouter, google_ai, openai_compatible, or one of providers."
    )
    model: str = Field(min_length=1, max_length=200, description="The model's id at its provider.")
    purpose: str = Field(default="", description="What the role is for, in words; the planning model reads it too.")
    config: ModelParameters = Field(default_factory=ModelParameters, description="How the model is asked.")
    original_model: str | None = Field(
        default=None,
        description="The id that stood here before its provider stopped serving it. A record; never called.",
    )
    context_tokens: int = Field(
        default=131_072,
        ge=512,
        le=100_000_000,
        description="Tokens the model can read and write in one call, together.",
    )
    max_concurrency: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Calls to this role at the same time, over all executors; absent: no own limit.",
    )
    lane: Literal["text", "image", "video"] | None = Field(
        default=None,
        description=(
            "What the model makes, which decides whose places its calls take; absent: told by its settings "
            "(duration or generate_audio: video; aspect_ratio or num_images: image; else text)."
        ),
    )

    weight: int = Field(
        default=100, ge=0, le=1_000_000, description="The share of the runs that it keeps when there are variants."
    )
    variants: Mapping[Name, Variant] = Field(
        default_factory=dict,
        max_length=16,
        description="Other models, by a name of yours, that play the role for a share of the runs.",
    )
    expires_on: Annotated[date, BeforeValidator(_day)] | None = Field(
        default=None,
        description="The last day (UTC, such as 2026-12-31) on which its provider serves it; from then on the "
        "role's fallbacks are asked.",
    )
    disabled: str | None = Field(
        default=None, min_length=1, max_length=500, description="Why nobody asks it for now; absent: it is asked."
    )

    @property
    def makes(self) -> Lane:
        """What the model makes: text, image or video."""
        if self.lane is not None:
            return Lane(self.lane)
        settings = self.config.extra.keys()
        if settings & VIDEO_SETTINGS:
            return Lane.VIDEO
        if settings & IMAGE_SETTINGS and self.config.max_tokens is None:
            return Lane.IMAGE
        return Lane.TEXT


class Example(Section):
    """A question and the answer that the model should give, shown to it as earlier turns."""

    user: str = Field(min_length=1, description="What a person says.")
    assistant: str = Field(min_length=1, description="What the model should answer.")


_PAIRS: Final = (
    ("user", "assistant"),
    ("input", "output"),
    ("question", "answer"),
    ("prompt", "response"),
    ("prompt", "completion"),
    ("request", "category"),
    ("query", "category"),
    ("message", "category"),
)


def read_examples(value: JsonValue) -> JsonValue:
    """Return examples in our own shape; what cannot be understood stays as it is, for validation to name.

    Understood: a list of {user, assistant} or another usual pair of keys, of [question, answer], of chat messages
    {role, content} in turn; and {answer: [questions]}.
    """
    if isinstance(value, dict):
        return [
            {"user": text, "assistant": answer}
            for answer, texts in value.items()
            for text in (texts if isinstance(texts, list) else [texts])
        ]
    if not isinstance(value, list):
        return value
    read: list[JsonValue] = []
    asked: JsonValue = None
    for one in value:
        if isinstance(one, dict) and one.keys() == {"role", "content"}:
            if one["role"] == "assistant" and asked is not None:
                read.append({"user": asked, "assistant": one["content"]})
            asked = one["content"] if one["role"] == "user" else None
            continue
        pair = next(_pairs(one), None)
        read.append(one if pair is None else {"user": pair[0], "assistant": pair[1]})
    return read


def _pairs(value: JsonValue) -> Iterator[tuple[JsonValue, JsonValue]]:
    if isinstance(value, dict):
        for asked, answered in _PAIRS:
            if asked in value and answered in value:
                yield value[asked], value[answered]
    elif isinstance(value, list) and len(value) == 2:
        yield value[0], value[1]


class BasePrompt(Section):
    """What a role is told before anything else."""

    system_prompt: str = Field(min_length=1, description="The system prompt.")
    examples: tuple[Example, ...] = Field(
        default=(), description="Few-shot examples, put before the question as turns."
    )

    @classmethod
    def shaped(cls, value: JsonValue) -> JsonValue:
        """Take a bare text for a prompt without examples, and examples of other usual shapes."""
        if isinstance(value, str):
            return {"system_prompt": value}
        if isinstance(value, dict) and value.get("examples") is not None:
            return {**value, "examples": read_examples(value["examples"])}
        return value
