"""What an attempt costs: the provider's word first, then the price book's. Pure but for the price table's date."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from pydantic_core import to_json

from services.executor.providers import Answered, Failed
from services.executor.providers.durations import seconds_of
from shared.config.providers import Route
from shared.contracts.commands import ExecuteCall, MediaJob
from shared.contracts.ids import Lane
from shared.contracts.message import ChatMessage, Usage
from shared.conversation import MESSAGE_TOKENS, estimated_tokens, tokens_of
from shared.prices import IMAGE_TOKENS, PriceBook

ANSWER_TOKENS: Final = 4_096
"""Of an answer that nothing bounds: what providers stop at where they are told nothing."""

MOST_IMAGES: Final = 64
MOST_RATIO: Final = 6.0
FORGETS: Final = 0.02


def priced(
    outcome: Answered | Failed, route: Route, prices: PriceBook, settings: Mapping[str, object] | None = None
) -> Answered | Failed:
    """Return an outcome with what it cost, where the provider says what was used but not what it charges.

    Without a word about tokens, or with a model that nobody has a price for, it stays unknown: it is never free.
    """
    if outcome.cost_usd is not None:
        return replace(outcome, priced_by="provider") if isinstance(outcome, Answered) else outcome
    used = outcome.usage
    if not (used.total_tokens or used.images or used.video_s):
        return outcome
    resolution = {**route.parameters.extra, **(settings or {})}.get("resolution")
    names = [route.model, *([outcome.model] if isinstance(outcome, Answered) and outcome.model else [])]
    asked = (prices.cost(route.priced_as, name, used, resolution=str(resolution)) for name in names)
    found = next((one for one in asked if one is not None), None)
    if found is None:
        return outcome
    cost_usd, source = found
    if isinstance(outcome, Answered):
        return replace(outcome, cost_usd=cost_usd, priced_by=source)
    return replace(outcome, cost_usd=cost_usd)


def most_tokens(call: ExecuteCall, route: Route) -> tuple[int, int]:
    """Return about how many tokens a call tells, and the most that its answer may have."""
    answer = call.max_tokens or route.parameters.max_tokens or ANSWER_TOKENS
    if call.embed is not None:
        return sum(estimated_tokens(one) if isinstance(one, str) else len(one) for one in call.embed), 0
    told = sum(tokens_of(message) for message in call.messages)
    if call.parameters is not None and call.parameters.tools:
        told += estimated_tokens(to_json(call.parameters.tools).decode())
    return told, answer


def learned(ratio: float, estimated: int, told: int) -> float:
    """Return how many tokens a model counts where we estimate one, after another prompt of which it has told.

    Up at once and down slowly: a text in another language than English has more, and the next may be one too. Never
    under 1, and bounded.
    """
    if not estimated or not told:
        return ratio
    seen = told / estimated
    return min(MOST_RATIO, max(1.0, seen, ratio + (seen - ratio) * FORGETS))


def tokens_taken(outcome: Answered | Failed | MediaJob) -> int | None:
    """Return the tokens that a provider counts for an attempt; None: it may have counted some and does not say.

    A request that was refused, or never arrived, takes none.
    """
    if isinstance(outcome, MediaJob):
        return 0
    if outcome.usage.total_tokens:
        return outcome.usage.total_tokens
    if isinstance(outcome, Answered):
        return None
    refused = outcome.status is not None and 400 <= outcome.status < 500
    return 0 if refused or (outcome.status is None and outcome.cost_usd == 0.0) else None


def at_most_tokens(call: ExecuteCall, route: Route) -> tuple[int, int]:
    """Return how many tokens a call can tell at the most, and its answer have.

    No vocabulary makes more tokens of a text than it has bytes.
    """
    asked, answer = most_tokens(call, route)
    told = sum(MESSAGE_TOKENS + _bytes_of(message) for message in call.messages)
    if call.embed is not None:
        told += sum(_size(one) for one in call.embed)
    if call.parameters is not None and call.parameters.tools:
        told += len(to_json(call.parameters.tools))
    shape = call.parameters.response_format if call.parameters is not None else None
    told += sum(len(to_json(one)) for one in (shape, call.response_schema) if one)
    return max(asked, told), answer


BOUNDED: Final = frozenset(
    {
        "user", "metadata", "store", "safety_identifier", "prompt_cache_key", "stream_options", "encoding_format",
        "dimensions", "logprobs", "top_logprobs", "logit_bias", "reasoning", "reasoning_effort", "verbosity", "min_p",
        "top_k", "top_a", "repetition_penalty",
    }
)  # fmt: skip
"""Settings of OpenAI-compatible servers with which no other model answers and no answer costs more than it may."""


def unbounded(call: ExecuteCall) -> list[str]:
    """Return the settings of a call that are handed on as they are and may change who answers, or what it costs."""
    extra = call.parameters.extra if call.parameters is not None else None
    return sorted(set(extra or ()) - BOUNDED)


def _size(given: str | Sequence[int]) -> int:
    """Return the most tokens of what is to be embedded: a text, or tokens."""
    return len(given.encode(errors="surrogatepass")) if isinstance(given, str) else len(given)


def _bytes_of(message: ChatMessage) -> int:
    asked = sum(len(to_json(one)) for one in message.tool_calls or ())
    return asked + _bytes_of_content(message)


def _bytes_of_content(message: ChatMessage) -> int:
    if isinstance(message.content, str):
        return len(message.content.encode(errors="surrogatepass"))
    texts = (str(part["text"]) for part in message.content if isinstance(part.get("text"), str))
    images = tokens_of(message.model_copy(update={"content": [p for p in message.content if "image_url" in p]}))
    return images + sum(len(text.encode(errors="surrogatepass")) for text in texts)


def reserved_usd(call: ExecuteCall, route: Route, prices: PriceBook) -> float:
    """Return the most that an attempt can cost, by about how much it takes; 0 where the price is unknown."""
    asked, answer = most_tokens(call, route)
    if route.lane is Lane.TEXT:
        return prices.most(route.priced_as, route.model, prompt_tokens=asked, answer_tokens=answer) or 0.0
    settings = {**route.parameters.extra, **call.settings}
    if route.lane is Lane.VIDEO:
        used = Usage(video_s=seconds_of(settings))
    else:
        count = settings.get("num_images")
        images = count if isinstance(count, int) and 1 <= count <= MOST_IMAGES else 1
        each = images * IMAGE_TOKENS
        used = Usage(prompt_tokens=asked, completion_tokens=each, image_tokens=each, images=images)
    found = prices.cost(route.priced_as, route.model, used, resolution=str(settings.get("resolution")))
    return 0.0 if found is None else found[0]
