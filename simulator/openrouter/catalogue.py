"""OpenRouter's documents to read: models with their prices, one generation, the key. Pure."""

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any

from simulator.ledger import Entry
from simulator.openrouter.wire import PROVIDER
from simulator.prices import TABLE, Price, price_of


@lru_cache(maxsize=2)
def models(on: date) -> bytes:
    """Return the list of models with the prices of a day, in USD per token, as strings."""
    return json.dumps({"data": [_model(model, price_of(model, on)) for model in TABLE]}).encode()


def _model(model: str, price: Price) -> dict[str, Any]:
    overrides = []
    if price.long_from is not None:
        long = {"prompt": _per_token(price.long_prompt), "completion": _per_token(price.long_completion)}
        overrides = [{"min_prompt_tokens": price.long_from, **long}]
    return {
        "id": model,
        "name": f"{model} (simulated)",
        "created": int(datetime.combine(price.since, datetime.min.time(), UTC).timestamp()),
        "description": "Simulated: nothing of this model is here.",
        "context_length": price.context,
        "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
        "pricing": {
            "prompt": _per_token(price.prompt),
            "completion": _per_token(price.completion),
            "request": "0",
            "image": "0",
            "internal_reasoning": "0",
            "input_cache_read": _per_token(price.prompt),
            "input_cache_write": "0",
            "overrides": overrides,
        },
        "supported_parameters": ["max_tokens", "temperature", "top_p", "response_format", "structured_outputs"],
        "expiration_date": None,
    }


def _per_token(per_million: float) -> str:
    return f"{per_million / 1e6:.12f}".rstrip("0").rstrip(".")


def generation(entry: Entry) -> bytes:
    """Return what can be asked about a request afterwards."""
    return json.dumps({"data": _generation(entry)}).encode()


def generations(entries: Sequence[Entry], complete_since: float) -> bytes:
    """Return the same of an attempt's requests, whether each goes on, and from when on none is missing here."""
    found = [{**_generation(entry), "running": entry.outcome == "open"} for entry in entries]
    return json.dumps({"data": found, "complete_since": complete_since}).encode()


def _generation(entry: Entry) -> dict[str, Any]:
    latency_ms = None if entry.took_s is None else round(entry.took_s * 1000)
    billed = entry.cost_usd > 0
    return {
        "id": entry.generation_id,
        "upstream_id": None,
        "total_cost": entry.cost_usd,
        "usage": entry.cost_usd,
        "upstream_inference_cost": entry.cost_usd,
        "cache_discount": None,
        "created_at": datetime.fromtimestamp(entry.at, UTC).isoformat(),
        "model": entry.model,
        "provider_name": PROVIDER,
        "streamed": entry.stream,
        "cancelled": entry.disconnected,
        "latency": latency_ms,
        "generation_time": latency_ms,
        "finish_reason": entry.finish_reason,
        "native_finish_reason": entry.finish_reason,
        "tokens_prompt": entry.prompt_tokens,
        "tokens_completion": entry.completion_tokens,
        "native_tokens_prompt": entry.prompt_tokens if billed else 0,
        "native_tokens_completion": entry.completion_tokens,
        "native_tokens_reasoning": entry.reasoning_tokens,
        "native_tokens_cached": 0,
        "is_byok": False,
        "api_type": "completions",
    }


def key(used_usd: float) -> bytes:
    """Return what the key may spend: everything."""
    data = {"label": "simulated", "limit": None, "limit_remaining": None, "usage": used_usd, "is_free_tier": False}
    return json.dumps({"data": data}).encode()
