"""What a call of each role probably takes: by this system's own calls where there are enough, else assumed. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

from services.gateway.listings import OfferedModel
from shared.contracts.ids import Lane
from shared.history.queries import Typical
from shared.prices import Price
from shared.workflows.estimate import Figures

ENOUGH: Final = 5
"""Calls of a role, for their average to count."""
TOKENS_A_SECOND: Final = 50.0
FIRST_TOKEN_S: Final = 0.8
ANSWER_TOKENS: Final = 800
"""Of an answer whose model has no bound that is lower."""
MEDIA_S: Final = {Lane.IMAGE: 10.0, Lane.VIDEO: 90.0}


def figures(
    models: Sequence[OfferedModel], typical: Mapping[str, Typical], prices: Mapping[str, Price | None]
) -> dict[str, Figures]:
    """Return the figures of every role that is offered."""
    return {model.name: _of(model, typical.get(model.name), prices.get(model.name)) for model in models}


def _of(model: OfferedModel, seen: Typical | None, price: Price | None) -> Figures:
    measured = seen is not None and seen.count >= ENOUGH
    if seen is not None and measured:
        tokens, seconds = round(seen.answer_tokens), seen.seconds
        if price is None and seen.cost_usd and seen.tokens:
            each = seen.cost_usd / seen.tokens  # nobody's table has it, but what was paid is known
            price = Price(each, each)
    elif model.lane in MEDIA_S:
        tokens, seconds = 0, MEDIA_S[model.lane]
    else:
        tokens = min(ANSWER_TOKENS, model.max_tokens or ANSWER_TOKENS)
        seconds = FIRST_TOKEN_S + tokens / TOKENS_A_SECOND
    if model.lane in MEDIA_S and not measured:
        price = None  # media are paid by the piece
    return Figures(
        model=model.model,
        seconds=seconds,
        answer_tokens=tokens,
        instruction_tokens=model.instruction_tokens,
        usd_per_input_token=price.input_usd if price is not None else None,
        usd_per_output_token=price.output_usd if price is not None else None,
        basis="measured" if measured else "assumed",
    )
