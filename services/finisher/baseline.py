"""What a run's answer would have cost as one call to one premium model: what its own cost is compared with. Pure.

One call that reads the request and writes what the caller got; not the run's own tokens at another price, which would
make every intermediate step look like money saved. So a workflow of many calls can well have cost more.
"""

from pydantic import JsonValue

from shared.contracts.commands import ChatRequest
from shared.contracts.events import RunAccepted, RunEnded
from shared.conversation import estimated_tokens, tokens_of
from shared.prices import Price


def baseline_usd(ended: RunEnded, accepted: RunAccepted | None, price: Price | None) -> float | None:
    """Return the baseline of a run that was answered; None without an answer, or without a price."""
    if ended.outcome != "completed" or accepted is None or price is None:
        return None
    request = accepted.request
    if isinstance(request, ChatRequest):
        told = estimated_tokens(request.message) + request.context_tokens
        if request.conversation is not None:
            told = sum(map(tokens_of, request.conversation.told))
        said = estimated_tokens(ended.text or "")
    else:
        given = request.workflow.variables
        prompts = [task.prompt for queue in request.workflow.workflow for task in queue.tasks]
        told = sum(map(estimated_tokens, prompts)) + sum(_tokens(value) for value in given.values())
        said = sum(_tokens(value) for name, value in (ended.result or {}).items() if name not in given)
    return told * price.input_usd + said * price.output_usd


def _tokens(value: JsonValue) -> int:
    """Return about how many tokens a value is; one that is only named says how long it is."""
    if isinstance(value, dict) and isinstance(value.get("chars"), int) and "href" in value:
        return int(str(value["chars"])) // 4
    return estimated_tokens(value if isinstance(value, str) else str(value))
