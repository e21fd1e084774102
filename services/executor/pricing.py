"""What an attempt costs: the provider's word first, then the price book's. Pure but for the price table's date."""

from dataclasses import replace
from typing import Final

from services.executor.providers import Answered, Failed
from shared.config.providers import Route
from shared.contracts.commands import ExecuteCall
from shared.conversation import tokens_of
from shared.prices import PriceBook

ANSWER_TOKENS: Final = 4_096
"""Of an answer that nothing bounds: what providers stop at where they are told nothing."""


def priced(outcome: Answered | Failed, route: Route, prices: PriceBook) -> Answered | Failed:
    """Return an outcome with what it cost, where the provider says what was used but not what it charges.

    Without a word about tokens, or with a model that nobody has a price for, it stays unknown: it is never free.
    """
    if outcome.cost_usd is not None:
        return replace(outcome, priced_by="provider") if isinstance(outcome, Answered) else outcome
    if not outcome.usage.total_tokens:
        return outcome
    model = outcome.model if isinstance(outcome, Answered) else None
    found = prices.cost(route.provider, route.model, outcome.usage)
    if found is None and model is not None:
        found = prices.cost(route.provider, model, outcome.usage)
    if found is None:
        return outcome
    cost_usd, source = found
    if isinstance(outcome, Answered):
        return replace(outcome, cost_usd=cost_usd, priced_by=source)
    return replace(outcome, cost_usd=cost_usd)


def most_tokens(call: ExecuteCall, route: Route) -> tuple[int, int]:
    """Return about how many tokens a call tells, and the most that its answer may have."""
    answer = call.max_tokens or route.parameters.max_tokens or ANSWER_TOKENS
    return sum(tokens_of(message) for message in call.messages), answer


def reserved_usd(call: ExecuteCall, route: Route, prices: PriceBook) -> float:
    """Return the most that an attempt can cost, by about how many tokens it takes; 0 where the price is unknown."""
    asked, answer = most_tokens(call, route)
    return prices.most(route.provider, route.model, prompt_tokens=asked, answer_tokens=answer) or 0.0
