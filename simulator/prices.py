"""What a call costs: a dated table in USD per million tokens. Pure.

Prices are data and die within weeks (one rose 5.9 times in three weeks), so each carries the day from which it holds.
"""

from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Final


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens from `since` on. Prompts over `long_from` tokens cost the long prices."""

    since: date
    prompt: float
    completion: float
    context: int
    reasons: bool = False
    long_from: int | None = None
    long_prompt: float = 0.0
    long_completion: float = 0.0


_KNOWN_SINCE: Final = date(2026, 10, 1)

TABLE: Final[dict[str, tuple[Price, ...]]] = {
    "meta-llama/llama-3.1-8b-instruct": (Price(_KNOWN_SINCE, 0.05, 0.08, 131_072),),
    "openai/gpt-oss-safeguard-20b": (Price(_KNOWN_SINCE, 0.075, 0.30, 131_072),),
    "meta-llama/llama-3.3-70b-instruct": (
        Price(_KNOWN_SINCE, 0.10, 0.32, 131_072),
        Price(date(2026, 11, 9), 0.59, 0.79, 131_072),
    ),
    "moonshotai/kimi-k2-thinking": (Price(_KNOWN_SINCE, 0.60, 2.50, 262_144, reasons=True),),
    "google/gemini-2.5-pro": (
        Price(
            _KNOWN_SINCE,
            1.25,
            10.0,
            1_048_576,
            reasons=True,
            long_from=200_000,
            long_prompt=2.50,
            long_completion=15.0,
        ),
    ),
    "gemini-3-pro-image": (Price(_KNOWN_SINCE, 2.0, 12.0, 65_536),),
    "gemini-3.1-flash-image": (Price(_KNOWN_SINCE, 0.5, 3.0, 65_536),),
    "x-ai/grok-4-fast": (Price(_KNOWN_SINCE, 0.20, 0.50, 2_000_000),),
}
"""From the providers' public price lists of November 2026, each model's entries oldest first."""


@dataclass(frozen=True, slots=True)
class MediaPrice:
    """USD an image, a million image tokens, a second of video, a second of it in 4K."""

    image: float = 0.04
    million_tokens: float | None = None
    second: float = 0.40
    fine_second: float = 0.60


MEDIA: Final[dict[str, MediaPrice]] = {
    "imagen-4-ultra": MediaPrice(image=0.06),
    "gemini-3-pro-image": MediaPrice(million_tokens=120.0),
    "gemini-3.1-flash-image": MediaPrice(million_tokens=60.0),
    "veo-3.1": MediaPrice(),
}
"""By how a model's id begins, behind its vendor."""


def media_price_of(model: str) -> MediaPrice:
    """Return what a model's images and videos cost."""
    name = model.rpartition("/")[2]
    return next((price for known, price in MEDIA.items() if name.startswith(known)), MediaPrice())


UNLISTED: Final = Price(_KNOWN_SINCE, 0.50, 1.50, 2_000_000)
"""What a model costs that is not in the table: new ids appear faster than tables are kept."""


@lru_cache(maxsize=512)
def price_of(model: str, on: date) -> Price:
    """Return the price of a model on a day. Variants (`model:nitro`) cost what the model costs.

    Google's own name for a model has no vendor before it.
    """
    entries = TABLE.get(model) or TABLE.get(model.partition(":")[0]) or TABLE.get(f"google/{model}") or (UNLISTED,)
    holding = [entry for entry in entries if entry.since <= on]
    return holding[-1] if holding else entries[0]


def cost_usd(price: Price, prompt_tokens: int, completion_tokens: int) -> tuple[float, float]:
    """Return what a prompt and its completion (reasoning included) cost, in USD."""
    if price.long_from is not None and prompt_tokens > price.long_from:
        return prompt_tokens * price.long_prompt / 1e6, completion_tokens * price.long_completion / 1e6
    return prompt_tokens * price.prompt / 1e6, completion_tokens * price.completion / 1e6
