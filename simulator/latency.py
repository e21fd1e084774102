"""How long an answer takes. Pure: chance comes in as a number."""

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

Distribution = Literal["constant", "uniform", "normal", "lognormal", "exponential"]


class Profile(BaseModel):
    """How long answers take.

    `first_token_ms` and then `per_token_ms` for each completion token; `total_ms`, where given, is the whole time
    whatever the length. `jitter` is the spread relative to the mean (0.3: a standard deviation of 30 %; `uniform`: plus
    or minus 30 %); one draw a request scales its every time. `exponential` ignores it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    first_token_ms: float = Field(default=0.0, ge=0, le=600_000)
    per_token_ms: float = Field(default=0.0, ge=0, le=60_000)
    total_ms: float | None = Field(default=None, ge=0, le=600_000)
    jitter: float = Field(default=0.0, ge=0, le=5)
    distribution: Distribution = "constant"
    tokens_per_chunk: int = Field(default=8, ge=1, le=10_000)
    image_ms: float = Field(default=0.0, ge=0, le=600_000)
    """An image."""
    video_ms: float = Field(default=0.0, ge=0, le=3_600_000)
    """A video, from its submission until it is done."""

    @cached_property
    def waits(self) -> bool:
        """Whether anything takes time at all."""
        return bool(self.first_token_ms or self.per_token_ms or self.total_ms)


PROFILES: Final[dict[str, Profile]] = {
    "zero": Profile(tokens_per_chunk=24),
    "fast": Profile(
        first_token_ms=20,
        per_token_ms=0.2,
        jitter=0.2,
        distribution="uniform",
        tokens_per_chunk=12,
        image_ms=200,
        video_ms=1_500,
    ),
    "realistic": Profile(
        first_token_ms=450,
        per_token_ms=12,
        jitter=0.4,
        distribution="lognormal",
        tokens_per_chunk=4,
        image_ms=8_000,
        video_ms=60_000,
    ),
}


@dataclass(frozen=True, slots=True)
class Delays:
    """Seconds before the first token, and for each completion token after it."""

    first_s: float
    per_token_s: float

    def total_s(self, tokens: int) -> float:
        return self.first_s + self.per_token_s * tokens


NONE: Final = Delays(0.0, 0.0)


def delays(profile: Profile, tokens: int, chance: float) -> Delays:
    """Return one request's delays; `chance` lies in [0, 1)."""
    scale = scale_of(profile, chance) / 1000
    if profile.total_ms is not None:
        first_ms = min(profile.first_token_ms, profile.total_ms)
        return Delays(first_ms * scale, (profile.total_ms - first_ms) * scale / max(1, tokens))
    return Delays(profile.first_token_ms * scale, profile.per_token_ms * scale)


def scale_of(profile: Profile, chance: float) -> float:
    """Return the factor of one draw: 1 on average, never negative."""
    quantile = min(max(chance, 1e-6), 1 - 1e-6)
    match profile.distribution:
        case "constant":
            return 1.0
        case "uniform":
            return max(0.0, 1 + profile.jitter * (2 * quantile - 1))
        case "normal":
            return max(0.0, 1 + profile.jitter * NormalDist().inv_cdf(quantile))
        case "lognormal":
            sigma = math.sqrt(math.log1p(profile.jitter**2))
            return math.exp(sigma * NormalDist().inv_cdf(quantile) - sigma**2 / 2)
        case "exponential":
            return -math.log1p(-quantile)
