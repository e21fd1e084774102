"""What models cost by the dated price table of `genai-prices`, in US dollars a token. None: nobody knows."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_PROVIDERS: Final = {"openrouter": "openrouter", "google_ai": "google"}
_MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """Of one token."""

    input_usd: float
    output_usd: float


@lru_cache(maxsize=512)
def price_of(provider: str, model: str) -> Price | None:
    """Return the price of a model at a provider of the configuration; None where the table does not have it."""
    at = _PROVIDERS.get(provider)
    if at is None:
        return None
    from genai_prices import Usage, calc_price  # some 30 MB, for whoever asks for prices only

    try:
        found = calc_price(Usage(input_tokens=_MILLION, output_tokens=_MILLION), model_ref=model, provider_id=at)
    except LookupError:
        return None
    return Price(float(found.input_price) / _MILLION, float(found.output_price) / _MILLION)
