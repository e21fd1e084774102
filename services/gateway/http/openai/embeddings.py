"""`POST /v1/embeddings`: a run like any other, whose answer is vectors. They are read from its one call."""

import base64
from array import array
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import Field
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from services.gateway import births
from services.gateway.gateway import gateway_of
from services.gateway.http.answering import REPLAYED
from services.gateway.http.bodies import parsed
from services.gateway.http.errors import JSON, Refusal
from services.gateway.http.identity import identity_of, may_ask
from services.gateway.http.models import Body
from services.gateway.http.openai import offer
from services.gateway.http.openai.asking import unknown
from services.gateway.http.openai.chat import failing
from services.gateway.http.openai.described import ASKED
from services.gateway.http.openai.failures import of_run
from services.gateway.http.openai.offer import Role
from services.gateway.http.openai.outcome import SIMULATED
from services.gateway.http.openapi import takes
from services.gateway.http.routing import routes
from shared import subjects
from shared.contracts.commands import ChatRequest
from shared.contracts.conversation import Conversation, Parameters
from shared.contracts.events import CallSettled, RunEnded
from shared.contracts.ids import Lane, Priority, Purpose
from shared.conversation import estimated_tokens
from shared.workflows.validation import Problem

router = routes("openai")

MOST_INPUTS: Final = 2_048
SHOWN_CHARS: Final = 200
ANSWER: Final = "answer"
Text = Annotated[str, Field(min_length=1)]
Tokens = Annotated[tuple[int, ...], Field(min_length=1)]


class EmbeddingsBody(Body):
    """`POST /v1/embeddings`"""

    model: Annotated[str, Field(min_length=1, max_length=200)]
    input: Text | Tokens | Annotated[tuple[Text | Tokens, ...], Field(min_length=1, max_length=MOST_INPUTS)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    user: str | None = None
    priority: Priority = Field(default=Priority.MEDIUM, description="Ours: how it is served under load.")
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] | None = Field(
        default=None, description="Ours: seconds until the run's deadline."
    )

    @property
    def inputs(self) -> tuple[str | tuple[int, ...], ...]:
        """What is to be embedded, each for itself."""
        if isinstance(self.input, str):
            return (self.input,)
        if all(isinstance(one, int) for one in self.input):
            return (tuple(one for one in self.input if isinstance(one, int)),)
        return tuple(one for one in self.input if not isinstance(one, int))


@router.post(
    "/v1/embeddings", summary="Embed texts, for OpenAI's clients", responses=ASKED, openapi_extra=takes(EmbeddingsBody)
)
async def embed(request: Request) -> Response:
    """Return a vector for each input, by a role whose server makes them. Nobody stands in: theirs would not fit."""
    gateway = gateway_of(request)
    body = await parsed(request, EmbeddingsBody)
    chosen = offer.wanted(body.model, gateway.listings)
    if chosen is None:
        raise unknown(body.model, request)
    if not isinstance(chosen, Role) or chosen.model.lane is not Lane.TEXT:
        said = f"{body.model[:80]!r} makes no embeddings: name a role whose server does"
        raise Refusal(422, (Problem("$.model", "unsupported_value", said),))
    inputs = body.inputs
    extra = {name: value for name in ("dimensions", "user") if (value := getattr(body, name)) is not None}
    conversation = Conversation(
        api="embeddings",
        model=body.model,
        role=chosen.model.name,
        embed=inputs,
        parameters=Parameters(extra=extra or None),
        store=False,
    )
    first = inputs[0] if isinstance(inputs[0], str) else f"{len(inputs[0])} tokens"
    more = f" (and {len(inputs) - 1} more)" if len(inputs) > 1 else ""
    may_ask(request, [chosen.model.name])
    birth = births.of_chat(
        identity_of(request),
        ChatRequest(
            message=f"Embed: {first[:SHOWN_CHARS]}{more}",
            context_tokens=sum(estimated_tokens(one) if isinstance(one, str) else len(one) for one in inputs),
            conversation=conversation,
        ),
        session_id=None,
        priority=body.priority,
        now=datetime.now(UTC),
        timeout_s=body.timeout_s or gateway.listings.timeout_s,
    )
    heard = await gateway.answered(birth)
    ended = heard.ended
    if ended.outcome != "completed":
        return failing(of_run(ended))
    facts = subjects.facts(ended.run)
    settled = await gateway.bus.log.read(facts.settled(Purpose.ANSWER, ANSWER), CallSettled)
    vectors = (settled.embeddings if settled is not None else None) or ()
    answer = listed(body.model, vectors, ended, plain=body.encoding_format == "float")
    headers = {SIMULATED: "true"} if ended.spent.simulated else {}
    return Response(to_json(answer), 200, {**headers, **(REPLAYED if heard.replayed else {})}, JSON)


def listed(model: str, vectors: tuple[str, ...], ended: RunEnded, *, plain: bool) -> dict[str, Any]:
    """Return the answer; `plain`: as numbers."""
    spent = ended.spent
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": place, "embedding": numbers(one) if plain else one}
            for place, one in enumerate(vectors)
        ],
        "model": model,
        "usage": {"prompt_tokens": spent.usage.prompt_tokens, "total_tokens": spent.usage.total_tokens},
        "segue": {
            "run_id": ended.run.run_id,
            "role": ended.role,
            "model": ended.model,
            "simulated": spent.simulated,
            "cost_usd": spent.cost_usd,
            "cost_known": spent.cost_known,
        },
    }


def numbers(packed: str) -> list[float]:
    """Return a vector's numbers."""
    return array("f", base64.b64decode(packed)).tolist()
