"""What a request becomes on the bus: its run and the command that begins it. Pure.

An `Idempotency-Key` is the run's id, so a repeated request is the same run, whichever gateway takes it.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from pydantic_core import to_jsonable_python

from services.gateway.principal import EVERYBODY, Account, Principal, at_most
from shared.contracts.callbacks import Callback
from shared.contracts.commands import ChatRequest, Lineage, PlanRun, SubmitRequest, Taker, WorkflowRequest
from shared.contracts.conversation import Conversation
from shared.contracts.events import RunAccepted
from shared.contracts.ids import Priority, RunId, SessionId, TenantId
from shared.contracts.message import Run
from shared.contracts.workflow import Workflow


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose run it is, and by which name it goes."""

    tenant: TenantId
    run_id: RunId
    keyed: bool
    """The id stands for the caller's idempotency key: others may be bearing the same run at this moment."""
    principal: Principal = EVERYBODY


@dataclass(frozen=True, slots=True)
class Birth:
    """A run that is about to be."""

    command: SubmitRequest | PlanRun
    keyed: bool
    accounts: tuple[Account, ...] = ()
    """Whose limits it is looked at for before it begins."""

    @property
    def run(self) -> Run:
        return self.command.run

    @property
    def by(self) -> Taker:
        """Who is to take it up."""
        return "categorizer" if isinstance(self.command, SubmitRequest) else "planner"

    def digest(self) -> str:
        """Return what tells requests apart by which `is_repetition` does, as far as it was asked and not looked up."""
        asked = _as_the_bus_has_it(self)
        request = asked.request
        what: object = request
        if isinstance(request, WorkflowRequest) and request.template is not None:
            what = (request.template, request.workflow.variables)
        parts = (what, asked.run.session_id, asked.run.priority, asked.callback, asked.lineage)
        written = json.dumps(to_jsonable_python(parts), sort_keys=True)
        return hashlib.sha256(written.encode()).hexdigest()[:32]

    def timed(self, run: Run) -> "Birth":
        """Return it with the times of a run that others bear under its key: it is the same run."""
        times = {"born_at": run.born_at, "deadline_at": run.deadline_at}
        command = self.command.model_copy(update={"run": self.run.model_copy(update=times)})
        return replace(self, command=command)


def session_of(run_id: RunId) -> SessionId:
    """Return the session that a keyed request without one begins: the same at every repetition."""
    return f"s{hashlib.sha256(f'session of {run_id}'.encode()).hexdigest()[:31]}"


def of_chat(
    identity: Identity,
    request: ChatRequest,
    *,
    session_id: SessionId | None,
    priority: Priority,
    now: datetime,
    timeout_s: float,
    callback: Callback | None = None,
) -> Birth:
    """Return the birth of a chat request."""
    run = _run(identity, priority, session_id, now, timeout_s)
    command = SubmitRequest(run=run, request=request, source=_source(identity), callback=callback)
    return Birth(command, identity.keyed, _limited(identity))


def of_workflow(
    identity: Identity,
    workflow: Workflow,
    *,
    template: str | None,
    version: int | None = None,
    conversation: Conversation | None = None,
    priority: Priority,
    now: datetime,
    timeout_s: float,
    callback: Callback | None = None,
) -> Birth:
    """Return the birth of a workflow that is ready to run."""
    run = _run(identity, priority, None, now, timeout_s)
    request = WorkflowRequest(workflow=workflow, template=template, template_version=version, conversation=conversation)
    command = PlanRun(run=run, request=request, source=_source(identity), callback=callback)
    return Birth(command, identity.keyed, _limited(identity))


def of_plan(identity: Identity, request: ChatRequest, *, priority: Priority, now: datetime, timeout_s: float) -> Birth:
    """Return the birth of a run that is only to be planned."""
    run = _run(identity, priority, None, now, timeout_s)
    return Birth(
        PlanRun(run=run, request=request, source=_source(identity), plan_only=True), identity.keyed, _limited(identity)
    )


def of_lineage(
    identity: Identity,
    parent: RunAccepted,
    lineage: Lineage,
    *,
    planned: bool,
    now: datetime,
    timeout_s: float,
    callback: Callback | None,
) -> Birth:
    """Return the birth of a run that comes from another: by the planner where that one had a plan."""
    run = _run(identity, parent.run.priority, parent.run.session_id, now, timeout_s)
    request, source = parent.request, _source(identity)
    if isinstance(request, ChatRequest) and not planned:
        asked = request.model_copy(update={"new_session": False})
        submit = SubmitRequest(run=run, request=asked, source=source, lineage=lineage, callback=callback)
        return Birth(submit, identity.keyed, _limited(identity))
    plan = PlanRun(run=run, request=request, source=source, lineage=lineage, callback=callback)
    return Birth(plan, identity.keyed, _limited(identity))


def _source(identity: Identity) -> Literal["gateway", "bus"]:
    """Return whose request it is for whoever accepts it: a keyed one's timer is kept there, as for one from the bus.

    Several gateways may bear a keyed run at once, each with a timer: that of the request which is accepted counts.
    """
    return "bus" if identity.keyed else "gateway"


def _limited(identity: Identity) -> tuple[Account, ...]:
    return tuple(one for one in identity.principal.accounts if one.allowance.is_door)


def _run(identity: Identity, priority: Priority, session_id: SessionId | None, now: datetime, timeout_s: float) -> Run:
    principal = identity.principal
    counted = (one for one in principal.accounts if one.allowance.concurrent_runs is not None)
    places = tuple(one.name for one in counted)
    return Run(
        run_id=identity.run_id,
        tenant=identity.tenant,
        priority=at_most(priority, principal.most_priority) if principal.accounts else priority,
        session_id=session_id,
        born_at=now,
        deadline_at=now + timedelta(seconds=timeout_s),
        key=principal.key,
        places=places or None,
    )


def is_repetition(birth: Birth, accepted: RunAccepted) -> bool:
    """Whether a request is what was accepted under its key: the same question, origin, session, priority, callback."""
    asked = _as_the_bus_has_it(birth)
    there = accepted.run
    return (
        _same(asked.request, accepted.request)
        and asked.run.session_id == there.session_id
        and asked.run.priority == there.priority
        and asked.callback == accepted.callback
        and asked.lineage == accepted.lineage
    )


def _as_the_bus_has_it(birth: Birth) -> SubmitRequest | PlanRun:
    """Return the command with its defaults and numbers normalised."""
    return type(birth.command).decode(birth.command.encode())


def _same(asked: ChatRequest | WorkflowRequest, there: ChatRequest | WorkflowRequest) -> bool:
    """Whether two requests ask for the same. A template that was changed in between is still the same template."""
    if isinstance(asked, WorkflowRequest) and isinstance(there, WorkflowRequest):
        changed = asked.template_version != there.template_version
        if changed and asked.template is not None and asked.template == there.template:
            return asked.workflow.variables == there.workflow.variables
    return asked == there
