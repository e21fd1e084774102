"""Read the log, decide, write the log, send on, ack: one request at a time."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from services.categorizer import calls
from services.categorizer.calls import Persona
from services.categorizer.routing import (
    AskModel,
    Denied,
    Direct,
    Orchestrated,
    Route,
    Rules,
    by_letter,
    by_rules,
    without_model,
)
from shared import subjects
from shared.bus.connection import Bus
from shared.bus.delivery import Delivery, Done, Poison, Verdict
from shared.contracts.commands import ChatRequest, FinishRun, PlanRun, Spent, SubmitRequest
from shared.contracts.events import CallSettled, RunAccepted, RunCategorized, Session
from shared.contracts.ids import Category, Purpose
from shared.contracts.message import ChatMessage, Run, Unreadable
from shared.conversation import IMAGE_TOKENS, before, estimated_tokens, history_of, tokens_of
from shared.faults import point
from shared.observe import metrics
from shared.observe.logs import bound
from shared.overtaken import overtaken
from shared.unreadable import end_run_of

log = logging.getLogger("segue.categorizer")


@dataclass(slots=True)
class Categorizer:
    """What the handler needs; made in `app.py`."""

    bus: Bus
    rules: Rules
    personas: Mapping[str, Persona]
    categorizer_role: str
    now: Callable[[], datetime]

    async def submitted(self, delivery: Delivery) -> Verdict:
        """Take a request from acceptance to the command that follows from its category."""
        body = await self.bus.payloads.unpack(delivery.data, delivery.headers)
        try:
            command = SubmitRequest.decode(body)
        except Unreadable as error:
            await end_run_of(self.bus, body, str(error), outcome="denied")
            raise Poison(str(error)) from error
        with bound(run_id=command.run.run_id, tenant=command.run.tenant):
            return await self._submitted(command)

    async def _submitted(self, command: SubmitRequest) -> Verdict:
        bus, run = self.bus, command.run
        facts = subjects.facts(run)
        point("categorizer.taken")
        accepted = await bus.log.write(facts.accepted, _accepted(command))
        point("categorizer.accepted")
        run, request = accepted.fact.run, accepted.fact.request
        if not isinstance(request, ChatRequest):
            return Done()  # the run's id is a workflow's, which the planner has accepted: nothing to categorise
        if accepted.mine:
            metrics.RUNS_ACCEPTED.labels(command.source).inc()
        if await overtaken(bus, accepted, self.now()):
            return Done()
        if command.source == "bus":
            await bus.log.keep_timer(run)
            point("categorizer.timer_set")
        history = await self._history(run, request)
        category = None if accepted.mine else await bus.log.read(facts.category, RunCategorized)
        if category is None and command.lineage is not None:
            category = await self._inherited(run, command.lineage.parent)
        if category is None:
            category = await self._categorize(run, request, history)
            point("categorizer.categorized")
        await self._send_on(category, request, history)
        point("categorizer.sent")
        return Done()

    async def _inherited(self, run: Run, parent: str) -> RunCategorized | None:
        """Take the category over that the run had which this one is a retry of: it is not paid for again."""
        theirs = await self.bus.log.read(subjects.events(run.tenant, parent).category, RunCategorized)
        if theirs is None or theirs.category is None:
            return None
        saved = theirs.spent
        spent = Spent(
            calls=saved.calls, reused=saved.calls, saved_usd=saved.cost_usd + saved.saved_usd, simulated=saved.simulated
        )
        fact = theirs.model_copy(update={"run": run, "spent": spent})
        return (await self.bus.log.write(subjects.facts(run).category, fact)).fact

    async def _history(self, run: Run, request: ChatRequest) -> tuple[ChatMessage, ...]:
        if request.conversation is not None:
            return before(request.conversation)
        if run.session_id is None or request.new_session:
            return ()
        session, _ = await self.bus.sessions.get(subjects.session_key(run.tenant, run.session_id), Session)
        return history_of(session)

    async def _categorize(self, run: Run, request: ChatRequest, history: tuple[ChatMessage, ...]) -> RunCategorized:
        tokens = request.context_tokens
        if request.conversation is not None:
            tokens += sum(tokens_of(message) for message in request.conversation.told)
        else:
            tokens += sum(tokens_of(message) for message in history)
            tokens += estimated_tokens(request.message) + IMAGE_TOKENS * len(request.images)
        route = by_rules(request, tokens, self.rules)
        spent, by = Spent(), "rules"
        if isinstance(route, AskModel):
            settled = await self._ask(run, request, history)
            by = "model"
            if settled is None or settled.outcome == "failed":
                log.warning(
                    "categorizer.unavailable",
                    extra={"fault": settled.fault.message if settled and settled.fault else None},
                )
                route = without_model(settled.fault if settled else None, self.rules)
                by = "fallback"
            else:
                carried = request.conversation
                one_call = carried is not None and carried.parameters.needs_one_call
                route = by_letter(settled.text, self.rules, one_call=one_call)
            if settled is not None:
                spent = settled.as_spent()
        fact = _fact(run, route, tokens, spent)
        written = await self.bus.log.write(subjects.facts(run).category, fact)
        if written.mine:
            metrics.RUNS_CATEGORIZED.labels(written.fact.category or "denied", by).inc()
        return written.fact

    async def _ask(self, run: Run, request: ChatRequest, history: tuple[ChatMessage, ...]) -> CallSettled | None:
        """Have the Categorizer AI asked, and wait for its word on the log: until the run's deadline at most."""
        call = calls.categorize(run, request, history, self.personas[self.categorizer_role])
        name, purpose = call.call, Purpose.DECISION
        loop = asyncio.get_running_loop()
        return await self.bus.live.expect(
            subjects.live(run.tenant, run.run_id).settled(purpose, name),
            subjects.facts(run).settled(purpose, name),
            CallSettled,
            ask=lambda: self.bus.log.send(subjects.call(run, call.lane, purpose, name), call),
            until=loop.time() + max(0.0, run.left_s(self.now())),
        )

    async def _send_on(self, fact: RunCategorized, request: ChatRequest, history: tuple[ChatMessage, ...]) -> None:
        run = fact.run
        if fact.category is None:
            command = FinishRun(run=run, outcome="denied", fault=fact.fault)
            await self.bus.log.send(subjects.finish(run), command)
        elif fact.category is Category.H:
            if request.conversation is not None:
                history = ()  # it is in the request
            plan = PlanRun(run=run, request=request, history=history, spent=fact.spent, source="categorizer")
            await self.bus.log.send(subjects.workflow(run), plan)
        else:
            role = fact.role or ""
            persona = self.personas.get(role) or calls.stranger(role)
            call = calls.answer(fact, request, history, persona)
            await self.bus.log.send(subjects.call(run, call.lane, call.purpose, call.call), call)


def _accepted(command: SubmitRequest) -> RunAccepted:
    return RunAccepted(
        run=command.run,
        request=command.request,
        by="categorizer",
        lineage=command.lineage,
        callback=command.callback,
    )


def _fact(run: Run, route: Route, tokens: int, spent: Spent) -> RunCategorized:
    category, role, reason, fault = None, None, "", None
    match route:
        case Denied():
            reason, fault = route.fault.code, route.fault
        case Direct():
            category, role, reason = route.category, route.role, route.reason
        case Orchestrated():
            category, reason = Category.H, route.reason
    return RunCategorized(
        run=run, category=category, role=role, reason=reason, context_tokens=tokens, spent=spent, fault=fault
    )
