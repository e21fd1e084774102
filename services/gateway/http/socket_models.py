"""What travels over `/ws`. Every message is a JSON object with a `type`; an `id` that the client gives comes back."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from services.gateway.http.errors import Refusal, invalid
from services.gateway.http.models import Body, ChatBody
from shared.contracts.ids import RunId
from shared.workflows.validation import Problem

Mark = Annotated[str | int, Field(description="The client's own name for the request; comes back with each answer.")]


class Chat(ChatBody):
    """Ask. The fields of `POST /chat`."""

    type: Literal["chat"]
    id: Mark | None = None
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=255)
    tokens: bool = True
    events: bool = True


class Subscribe(Body):
    """Follow a run, again after a reconnect: from behind the fact with the sequence `after`."""

    type: Literal["subscribe"]
    id: Mark | None = None
    run_id: RunId
    after: Annotated[int, Field(ge=0)] = 0
    tokens: bool = True
    events: bool = True


class Cancel(Body):
    """End a run now."""

    type: Literal["cancel"]
    id: Mark | None = None
    run_id: RunId
    reason: str | None = Field(default=None, max_length=2_000)


class Decide(Body):
    """Let a task that waits for a person go on, or fail."""

    type: Literal["approve", "reject"]
    id: Mark | None = None
    run_id: RunId
    task: str | None = None
    comment: str | None = Field(default=None, max_length=2_000)


class Ping(Body):
    """Are you there? Answered with `pong`."""

    type: Literal["ping"]
    id: Mark | None = None


Asked = Chat | Subscribe | Cancel | Decide | Ping
KINDS: Final[Mapping[str, type[Asked]]] = {
    "chat": Chat,
    "subscribe": Subscribe,
    "cancel": Cancel,
    "approve": Decide,
    "reject": Decide,
    "ping": Ping,
}


def asked_of(document: Any) -> Asked:
    """Read what a client says. Raises `Refusal` with every problem."""
    if not isinstance(document, dict):
        raise Refusal(422, (Problem("$", "dict_type", "a message is a JSON object with a `type`"),))
    kind = KINDS.get(str(document.get("type")))
    if kind is None:
        told = f"`type` is one of {', '.join(KINDS)}"
        raise Refusal(422, (Problem("$.type", "unknown_type", told),))
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise invalid(error) from error


def mark_of(document: Any) -> str | int | None:
    """Return a message's id as far as it has one that can be sent back."""
    found = document.get("id") if isinstance(document, dict) else None
    return found if isinstance(found, str | int) and not isinstance(found, bool) and len(str(found)) <= 128 else None
