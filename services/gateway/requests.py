"""What outside systems ask over the bus, answered: the same checks, runs and words as over HTTP."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from pydantic_core import from_json

from services.gateway import births
from services.gateway.births import Birth, Identity
from services.gateway.gateway import Gateway
from services.gateway.http.callbacks import callback_of
from services.gateway.http.chat import birth_of
from services.gateway.http.errors import Refusal
from services.gateway.http.identity import LONGEST_KEY
from services.gateway.http.run_models import Wanted
from services.gateway.http.run_view import state_of, waits_for, waits_until
from services.gateway.http.runs import fits, read_run
from services.gateway.http.templates import catalogue_with, filled_by, known
from services.gateway.principal import Principal
from services.gateway.queued import Queued
from shared import subjects
from shared.contracts.answer import answer_of, piece_of
from shared.contracts.commands import ControlRun
from shared.contracts.door import (
    AskChat,
    AskControl,
    AskRead,
    AskTemplate,
    AskWorkflow,
    Begun,
    PieceRead,
    RunRead,
    Steered,
)
from shared.contracts.events import RunEnded
from shared.contracts.ids import TenantId, Verb, is_token, new_run_id, run_id_of_key
from shared.contracts.message import Part
from shared.contracts.workflow import Workflow
from shared.workflows.problems import roles_of
from shared.workflows.validation import Invalid, Problem, validate

KINDS: Final = frozenset({"chat", "workflow", "template", "control", "read"})
KEYS: Final = ("Nats-Msg-Id", "Idempotency-Key")
ANSWER_BYTES: Final = 700_000
"""Of an answer in one message; a server takes a megabyte."""
PIECE_CHARS: Final = 150_000
P = TypeVar("P", bound=Part)


async def answered(
    gateway: Gateway, principal: Principal, said: tuple[str, ...], body: bytes, headers: Mapping[str, str]
) -> Part:
    """Return the answer to a question. Raises `Refusal`, `OverLimit`, `ValidationError`, `BusError`, `KeyReused`."""
    tenant = principal.tenant
    if not is_token(tenant):
        raise Refusal(422, f"{tenant[:80]!r} is no tenant's name")
    match said:
        case ("chat",):
            return await _chat(gateway, principal, _read(body, tenant, AskChat), headers)
        case ("workflow",):
            return await _workflow(gateway, principal, _read(body, tenant, AskWorkflow), headers)
        case ("template", name):
            return await _template(gateway, principal, name, _read(body, tenant, AskTemplate), headers)
        case ("control", run_id, verb):
            return await _control(gateway, tenant, run_id, verb, _read(body or b"{}", tenant, AskControl))
        case ("read", run_id):
            return await _look(gateway, tenant, run_id, _read(body or b"{}", tenant, AskRead))
    raise Refusal(404, f"nothing is asked on {'.'.join(said)[:80]!r}; docs/bus.md lists what is")


def _read(body: bytes, tenant: TenantId, kind: type[P]) -> P:
    """Read a body. One that says whose it is may only say what is so."""
    try:
        document = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Refusal(422, (Problem("$", "json_invalid", f"Invalid JSON: {error}"),)) from error
    if not isinstance(document, dict):
        raise Refusal(422, (Problem("$", "dict_type", "the body must be a JSON object"),))
    run: Any = document.get("run")
    for path, claimed in (
        ("$.tenant", document.get("tenant")),
        ("$.run.tenant", run.get("tenant") if isinstance(run, dict) else None),
    ):
        if claimed is not None and claimed != tenant:
            said = f"this account's tenant is {tenant!r}: leave it out, it follows from the account"
            raise Refusal(403, (Problem(path, "other_tenant", said),))
    if run is not None and kind is not AskRead:
        said = "a run is made for the request, and its id is in the answer: send only what is asked, see docs/bus.md"
        raise Refusal(422, (Problem("$.run", "not_asked", said),))
    return kind.model_validate(document)


def _identity(principal: Principal, headers: Mapping[str, str]) -> Identity:
    """Return which run a request is: a message id makes a repeated one the same run."""
    tenant = principal.tenant
    key = next((headers[name] for name in KEYS if headers.get(name)), None)
    if key is None:
        return Identity(tenant, new_run_id(), keyed=False, principal=principal)
    if len(key) > LONGEST_KEY or not key.isprintable():
        raise Refusal(422, f"a {KEYS[0]} has 1 to {LONGEST_KEY} printable characters")
    return Identity(tenant, run_id_of_key(tenant, key), keyed=True, principal=principal)


async def _chat(gateway: Gateway, principal: Principal, asked: AskChat, headers: Mapping[str, str]) -> Begun:
    return await _begun(gateway, birth_of(_identity(principal, headers), asked, gateway))


async def _workflow(gateway: Gateway, principal: Principal, asked: AskWorkflow, headers: Mapping[str, str]) -> Begun:
    document: dict[str, Any] = {"workflow": asked.workflow, "variables": asked.variables}
    checked = validate(document, await catalogue_with(gateway, principal.tenant, document))
    if isinstance(checked, Invalid):
        raise Refusal(422, checked.problems)
    return await _run(gateway, principal, asked, checked.workflow, headers)


async def _template(
    gateway: Gateway, principal: Principal, name: str, asked: AskTemplate, headers: Mapping[str, str]
) -> Begun:
    offered = await known(gateway, principal.tenant, name)
    checked = await filled_by(gateway, principal.tenant, offered, asked.variables)
    if isinstance(checked, Invalid):
        raise Refusal(422, checked.problems)
    return await _run(gateway, principal, asked, checked.workflow, headers, name=offered.name, version=offered.version)


async def _run(
    gateway: Gateway,
    principal: Principal,
    asked: AskWorkflow | AskTemplate,
    workflow: Workflow,
    headers: Mapping[str, str],
    *,
    name: str | None = None,
    version: int | None = None,
) -> Begun:
    refused = principal.refused(roles_of(workflow.workflow))
    if refused:
        raise Refusal(403, f"{', '.join(refused)} may not be asked by this tenant: use another model")
    birth = births.of_workflow(
        _identity(principal, headers),
        workflow,
        template=name,
        version=version,
        priority=asked.priority,
        now=datetime.now(UTC),
        timeout_s=asked.timeout_s or gateway.listings.timeout_s,
        callback=callback_of(gateway, principal.tenant, asked.callback_url),
    )
    return await _begun(gateway, birth)


async def _begun(gateway: Gateway, birth: Birth) -> Begun:
    """Bear a run, or find it under its key; what is said here is stored."""
    past = await gateway.runs.past(birth)
    run = birth.run if past.accepted is None else past.accepted.run
    if past.accepted is None and past.ended is None:
        run = await gateway.runs.bear(birth)
    return Begun(run_id=run.run_id, session_id=run.session_id, deadline_at=run.deadline_at)


async def _control(gateway: Gateway, tenant: TenantId, run_id: str, word: str, asked: AskControl) -> Steered:
    if word not in set(Verb):
        raise Refusal(422, f"{word[:80]!r} is nothing that can be wanted of a run: {', '.join(Verb)}")
    verb = Verb(word)
    run = await read_run(gateway, tenant, run_id)
    fits(run, verb, Wanted(reason=asked.reason, task=asked.task))
    command = ControlRun(
        run_id=run_id, tenant=tenant, verb=verb, by="an outside system", reason=asked.reason, task=asked.task
    )
    await gateway.bus.log.send(subjects.control(tenant, run_id, verb), command)
    return Steered(run_id=run_id, verb=verb, state="queued" if isinstance(run, Queued) else state_of(run))


async def _look(gateway: Gateway, tenant: TenantId, run_id: str, asked: AskRead) -> RunRead | PieceRead:
    ended = None
    if is_token(run_id):
        ended = await gateway.bus.log.read(subjects.events(tenant, run_id).ended, RunEnded)
    if asked.part is not None:
        return _piece(run_id, ended, asked.part, asked.offset)
    if ended is not None:
        return RunRead(run_id=run_id, state=ended.outcome, answer=answer_of(ended, ANSWER_BYTES))
    run = await read_run(gateway, tenant, run_id)
    if run.ended is not None:  # at this very moment
        return await _look(gateway, tenant, run_id, asked)
    if isinstance(run, Queued):
        return RunRead(run_id=run_id, state="queued", waits_for=run.waits_for, waits_until=run.waits_until)
    state = state_of(run)
    return RunRead(run_id=run_id, state=state, waits_for=waits_for(run, state), waits_until=waits_until(run))


def _piece(run_id: str, ended: RunEnded | None, part: str, offset: int) -> PieceRead:
    whole = piece_of(ended, part) if ended is not None else None
    if whole is None:
        raise Refusal(404, f"run {run_id[:80]!r} has no {part!r} (yet): ask for `response` or `result.<name>`")
    until = offset + PIECE_CHARS
    return PieceRead(
        run_id=run_id,
        part=part,
        text=whole[offset:until],
        offset=offset,
        next_offset=until if until < len(whole) else None,
    )
