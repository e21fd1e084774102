"""From a request of an OpenAI client to the run that it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from pydantic import JsonValue, ValidationError
from starlette.requests import Request

from services.gateway import births
from services.gateway.births import Birth
from services.gateway.gateway import Gateway, gateway_of
from services.gateway.http.callbacks import callback_of
from services.gateway.http.errors import Refusal, invalid
from services.gateway.http.identity import identity_of, may_ask, who
from services.gateway.http.openai import filling, offer
from services.gateway.http.openai.bodies import Asking
from services.gateway.http.openai.described import CALLBACK
from services.gateway.http.openai.messages import Wrong, question
from services.gateway.http.openai.offer import Auto, Named, Role
from services.gateway.http.openai.outcome import Asked
from services.gateway.http.templates import filled_by
from shared.contracts.callbacks import Callback
from shared.contracts.commands import ChatRequest, PlanRun, SubmitRequest
from shared.contracts.conversation import Conversation
from shared.contracts.message import Run
from shared.workflows.problems import roles_of
from shared.workflows.validation import Invalid, Problem


@contextmanager
def understood() -> Iterator[None]:
    """Refuse, with its place, what cannot be read or could not be handed on."""
    try:
        yield
    except Wrong as wrong:
        raise Refusal(422, (wrong.problem,)) from wrong
    except ValidationError as error:
        raise invalid(error) from error


async def birth_of(request: Request, gateway: Gateway, body: Asking, conversation: Conversation) -> Birth:
    """Return the run that a request is. Raises `Refusal` for a model that there is not, and for an empty question."""
    chosen = offer.wanted(body.model, gateway.listings)
    match chosen:
        case Named():
            return await _of_template(request, gateway, body, conversation, chosen.template)
        case Role():
            may_ask(request, [chosen.model.name])
            conversation = conversation.model_copy(update={"role": chosen.model.name})
        case Auto():
            pass
        case None:
            raise unknown(body.model, request)
    callback = _callback(request, gateway)
    with understood():
        text, images = question(conversation.messages)
    return births.of_chat(
        identity_of(request),
        ChatRequest(message=text, images=images, conversation=conversation),
        session_id=None,
        priority=body.priority,
        now=datetime.now(UTC),
        timeout_s=body.timeout_s or gateway.listings.timeout_s,
        callback=callback,
    )


def _callback(request: Request, gateway: Gateway) -> Callback | None:
    """Return what is called back: said by a header, as OpenAI's bodies have no field for it."""
    return callback_of(gateway, who(request).tenant, request.headers.get(CALLBACK), named=CALLBACK)


def unknown(model: str, request: Request) -> Refusal:
    """Return the refusal of a model that there is not, with those that its caller may ask."""
    listings, asks = gateway_of(request).listings, who(request)
    there = [offer.AUTO] if offer.may_write(listings, asks) else []
    there += [one.name for one in offer.allowed(listings, asks)]
    if there:
        said = f"the model {model[:80]!r} does not exist; there are {', '.join(there)}, and {offer.TEMPLATE}… as listed"
    else:
        said = f"the model {model[:80]!r} is not there for this key, which may ask none: its limits name no model"
    return Refusal(404, (Problem("$.model", "model_not_found", said),))


async def _of_template(
    request: Request, gateway: Gateway, body: Asking, conversation: Conversation, name: str
) -> Birth:
    tenant = who(request).tenant
    offered = await gateway.book.get(tenant, name)
    if offered is None:
        raise unknown(body.model, request)
    parameters = {name: (one.type, one.required) for name, one in offered.template.variables.items()}
    said = next((one for one in reversed(conversation.messages) if one.role == "user"), None)
    text = said.content if said is not None and isinstance(said.content, str) else ""
    values: dict[str, JsonValue] = filling.given(parameters, body.metadata or {}, text)
    checked = await filled_by(gateway, tenant, offered, values)
    if isinstance(checked, Invalid):
        raise Refusal(
            422, tuple(Problem(f"$.metadata{one.path[1:]}", one.code, one.message) for one in checked.problems)
        )
    may_ask(request, roles_of(checked.workflow.workflow))
    return births.of_workflow(
        identity_of(request),
        checked.workflow,
        template=offered.name,
        version=offered.version,
        conversation=conversation.model_copy(update={"messages": ()}),
        priority=body.priority,
        now=datetime.now(UTC),
        timeout_s=body.timeout_s or gateway.listings.timeout_s,
        callback=_callback(request, gateway),
    )


def asked_of(birth: Birth, run: Run, gateway: Gateway) -> Asked:
    """Return what is asked, for saying what comes of it. `run`: the one that a key stands for may be older."""
    version = gateway.listings.version
    match birth.command:
        case SubmitRequest(request=request):
            assert request.conversation is not None
            return Asked(run, request.conversation.model, request.conversation, None, version)
        case PlanRun(request=request):
            assert not isinstance(request, ChatRequest)
            assert request.conversation is not None
            return Asked(run, request.conversation.model, request.conversation, request.workflow, version)
