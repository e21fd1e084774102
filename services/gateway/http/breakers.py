"""`/breakers`: models that are left alone because they failed again and again."""

from typing import Literal

from fastapi import APIRouter
from pydantic import AwareDatetime, Field, NonNegativeInt
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.gateway import gateway_of
from services.gateway.http.answering import show
from services.gateway.http.bodies import parsed
from services.gateway.http.errors import Refusal
from services.gateway.http.models import Body, Failure
from services.gateway.http.openapi import takes
from shared.contracts.health import BreakerState

router = APIRouter(tags=["models"])


class BreakerBody(Body):
    """A model with failures in a row. One that is not listed has none."""

    provider: str
    model: str
    state: Literal["closed", "open", "half_open"] = Field(
        description="open: nobody asks; half_open: a few calls try it."
    )
    failures: NonNegativeInt = Field(description="In a row, over all executors.")
    until: AwareDatetime | None
    reason: str = Field(description="The latest failure.")
    opened: NonNegativeInt = Field(description="How often since it was last closed.")


class BreakersAnswer(Body):
    breakers: list[BreakerBody]
    count: NonNegativeInt


class ResetBody(Body):
    """`POST /breakers/reset`"""

    provider: str = Field(min_length=1, max_length=64)
    model: str = Field(min_length=1, max_length=256)


@router.get("/breakers", summary="Models with failures", response_model=BreakersAnswer)
async def breakers(request: Request) -> Response:
    """List the models that failed last time they were asked, and whether they are left alone."""
    found = (await gateway_of(request).bus.breakers.every("", BreakerState)).values()
    listed = [
        BreakerBody(
            provider=one.provider,
            model=one.model,
            state=one.state,
            failures=one.failures,
            until=one.until,
            reason=one.reason,
            opened=one.opened,
        )
        for one in sorted(found, key=lambda one: (one.state == "closed", one.provider, one.model))
    ]
    return show(BreakersAnswer(breakers=listed, count=len(listed)))


@router.post(
    "/breakers/reset",
    summary="Ask a model again",
    response_model=BreakerBody,
    responses={404: {"model": Failure}, 422: {"model": Failure}},
    openapi_extra=takes(ResetBody),
)
async def reset(request: Request) -> Response:
    """Have every executor ask a model again at once, as if it had never failed."""
    asked = await parsed(request, ResetBody)
    bus = gateway_of(request).bus
    for key, one in (await bus.breakers.every("", BreakerState)).items():
        if (one.provider, one.model) == (asked.provider, asked.model):
            await bus.breakers.delete(key)
            return show(
                BreakerBody(
                    provider=one.provider, model=one.model, state="closed", failures=0, until=None, reason="", opened=0
                )
            )
    raise Refusal(404, f"nothing is known against {asked.provider} ({asked.model}): it is asked already")
