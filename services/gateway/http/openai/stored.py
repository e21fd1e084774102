"""Responses that are stored, as their callers refer to them: by their ids, and by those of their items."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic_core import to_json
from starlette.requests import Request

from services.gateway.bounds import MOST_BODY_BYTES
from services.gateway.gateway import Gateway
from services.gateway.http.errors import Refusal
from services.gateway.http.identity import who
from services.gateway.http.openai.outcome import Asked
from services.gateway.http.openai.response import gone_on, id_of, item_run, items_by_id, run_id_of
from services.gateway.queued import Queued, whereabouts
from services.gateway.runs import ACCEPTED_WITHIN_S
from shared import subjects
from shared.contracts.events import RunAccepted, RunEnded
from shared.contracts.ids import is_token
from shared.contracts.message import ChatMessage
from shared.workflows.validation import Problem

MOST_REFERRED: Final = 200
"""Responses whose items one request may refer to; each is read from the log."""
MOST_READ_BYTES: Final = 4 * MOST_BODY_BYTES
"""To find the items: every response has the turns before it too."""
_LOOK_S: Final = 0.05
_NO_ITEM: Final = (
    "there is no item {!r}: its response never was, was not stored, has not been completed, or has aged away"
)

Item = Mapping[str, Any]
_REASONED: Final[Item] = {"type": "reasoning"}
"""Stands where reasoning is referred to, which nobody goes on from."""


async def find(request: Request, gateway: Gateway, response_id: str, *, waits: bool = True) -> Asked | Queued:
    """Return what a response was asked; only its run while it waits to be taken up. Raises `Refusal` (404).

    `waits`: for a moment, so that one that was just begun is taken up.
    """
    tenant, run_id = who(request).tenant, run_id_of(response_id)
    missing = Refusal(404, f"there is no response {response_id[:80]!r}: it never was, was not stored, or has aged away")
    if run_id is None or not is_token(run_id):
        raise missing
    facts, log = subjects.events(tenant, run_id), gateway.bus.log
    if await log.exists(facts.deleted):
        raise missing
    loop = asyncio.get_running_loop()
    until = loop.time() + (ACCEPTED_WITHIN_S if waits else 0.0)
    while True:
        found = await whereabouts(gateway.bus, tenant, run_id, lambda: log.read(facts.accepted, RunAccepted))
        if found is None:
            raise missing
        if isinstance(found, RunAccepted):
            break
        if found.ended is not None or loop.time() >= until:
            return found
        await asyncio.sleep(_LOOK_S)
    asked = Asked.of(found, gateway.listings.version)
    if asked is None or not asked.conversation.store:
        raise missing
    return asked


async def before(request: Request, gateway: Gateway, response_id: str) -> tuple[ChatMessage, ...]:
    """Return the conversation up to and with a response's answer. Raises `Refusal`."""
    asked = await find(request, gateway, response_id)
    ended = asked.ended if isinstance(asked, Queued) else await _end(gateway, asked)
    if ended is None or isinstance(asked, Queued) or ended.outcome != "completed":
        state = "has not ended yet" if ended is None else f"was {ended.outcome}"
        said = f"{response_id[:80]!r} {state}: only a completed response can be gone on from"
        raise Refusal(422, (Problem("$.previous_response_id", "previous_response_not_completed", said),))
    return gone_on(asked.conversation, asked, ended)


async def with_items(request: Request, gateway: Gateway, given: str | Sequence[Item]) -> str | Sequence[Item]:
    """Return an input with the items that it only refers to in their places. Raises `Refusal`.

    Some clients say of what a response put out nothing but its id, as long as responses are stored.
    """
    if isinstance(given, str) or not any(_refers(item) for item in given):
        return given
    found, read, total = list(given), 0, 0
    for run_id, places in _referred(given).items():
        items = {} if run_id is None else await _items(request, gateway, run_id)
        sizes = {name: len(to_json(item)) for name, item in items.items()}
        for place in places:
            item_id = str(given[place].get("id"))
            if item_id not in items:
                raise Refusal(404, (Problem(f"$.input[{place}].id", "item_not_found", _NO_ITEM.format(item_id[:80])),))
            found[place], total = items[item_id], total + sizes[item_id]
        read += sum(sizes.values())
        if total > MOST_BODY_BYTES or read > MOST_READ_BYTES:
            said = f"what is referred to is too much: together with its responses {read:,} bytes; send items whole"
            raise Refusal(413, (Problem("$.input", "too_large", said),))
    return [_REASONED if _refers(item) else item for item in found]


def _referred(given: Sequence[Item]) -> dict[str | None, list[int]]:
    """Return the places of the references by the runs of their items; None: of none of ours."""
    places = dict[str | None, list[int]]()
    for place, item in enumerate(given):
        item_id = str(item.get("id"))
        if _refers(item) and not item_id.startswith("rs_"):
            places.setdefault(item_run(item_id), []).append(place)
    if len(places) > MOST_REFERRED:
        said = f"items of at most {MOST_REFERRED} responses can be referred to; send the others whole"
        raise Refusal(422, (Problem("$.input", "too_many_references", said),))
    return places


def _refers(item: Item) -> bool:
    return item.get("type") == "item_reference" or (item.get("type") is None and "id" in item and "role" not in item)


async def _items(request: Request, gateway: Gateway, run_id: str) -> Mapping[str, Item]:
    """Return a stored response's items by id; none where there is no such response, or no end of it yet."""
    try:
        asked = await find(request, gateway, id_of(run_id), waits=False)  # what has items was taken up
    except Refusal:
        return {}
    if isinstance(asked, Queued) or (ended := await _end(gateway, asked)) is None:
        return {}
    return items_by_id(asked, ended)


async def _end(gateway: Gateway, asked: Asked) -> RunEnded | None:
    return await gateway.bus.log.read(subjects.facts(asked.run).ended, RunEnded)
