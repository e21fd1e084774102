"""Plan a run and begin it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from services.planner import lineage, planning
from services.planner.decoding import decoded
from services.planner.planning import Offer
from services.planner.runner import Runner
from shared import subjects
from shared.bus.connection import Bus
from shared.bus.delivery import Delivery, Done, Verdict
from shared.contracts.commands import (
    BeginRun,
    ChatRequest,
    ExecuteCall,
    FinishRun,
    PlanRun,
    Spent,
    WorkflowRequest,
)
from shared.contracts.events import (
    CallSettled,
    RunAccepted,
    RunPlanned,
)
from shared.contracts.ids import Category, Lane, Purpose
from shared.contracts.message import ChatMessage, Fault, Run
from shared.conversation import before, carried, conversation, question_of, user_message
from shared.faults import point
from shared.observe import metrics
from shared.observe.logs import bound
from shared.overtaken import overtaken
from shared.workflows.problems import templates_in
from shared.workflows.validation import Catalogue, Invalid, Problem, checked

log = logging.getLogger("segue.planner")

LOOK_FOR_PLACE_S = 0.05


@dataclass(frozen=True, slots=True)
class Flow:
    """What the configuration says of orchestrated requests."""

    master_role: str
    master_prompt: str
    acknowledge_role: str
    acknowledge_prompt: str
    answer_role: str
    answer_prompt: str
    answer_window_tokens: int
    answer_tokens: int
    offer: Offer


@dataclass(slots=True)
class Planner:
    """What the handlers need; made in `app.py`."""

    bus: Bus
    flow: Flow
    runner: Runner
    catalogue_for: Callable[[str, frozenset[str]], Awaitable[Catalogue]]
    """What a tenant's workflow may name, with these templates."""
    now: Callable[[], datetime]
    waiting: int = 0
    """Runs in this process's hands that wait for a place."""
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def asked(self, delivery: Delivery) -> Verdict:
        """Take a plan request from acceptance to the first calls."""
        command = await decoded(self.bus, delivery, PlanRun)
        with bound(run_id=command.run.run_id, tenant=command.run.tenant):
            return await self._asked(command, again=delivery.delivered > 1)

    async def _asked(self, command: PlanRun, *, again: bool) -> Verdict:
        bus, run = self.bus, command.run
        facts = subjects.facts(run)
        point("planner.taken")
        if command.source != "categorizer":
            fact = RunAccepted(
                run=run, request=command.request, by="planner", lineage=command.lineage, callback=command.callback
            )
            accepted = await bus.log.write(facts.accepted, fact)
            run = accepted.fact.run
            point("planner.accepted")
            if accepted.mine:
                metrics.RUNS_ACCEPTED.labels(command.source).inc()
            if await overtaken(bus, accepted, self.now()):
                return Done()
            if command.source == "bus":
                await bus.log.keep_timer(run)
                point("planner.timer_set")
            again = again or not accepted.mine
        planned = None
        if again:
            if await bus.log.exists(facts.ended):
                return Done()
            planned = await bus.log.read(facts.plan, RunPlanned)
        if planned is None:
            decided = await self._plan(run, command)
            if decided is None:
                return Done()
            point("planner.decided")
            written = await bus.log.write(facts.plan, decided)
            planned = written.fact
            if written.mine and planned.workflow is not None:
                self.runner.plans.begun(planned)
            metrics.RUNS_PLANNED.labels(planned.source).inc()
        point("planner.planned")
        if planned.plan_only:
            await bus.log.send(subjects.finish(run), FinishRun(run=run, outcome="planned"))
        elif planned.workflow is None:
            await self._send_call(self._direct(run, command, planned))
        elif self.waiting or not await self.runner.begin(run):
            await bus.log.send(subjects.begin(run), BeginRun(run=run))  # those who wait already come first
            metrics.RUNS_WAITED.inc()
        point("planner.sent")
        return Done()

    async def begins(self, delivery: Delivery) -> Verdict:
        """Begin a run as soon as there is a place for it; those behind it wait meanwhile."""
        run = (await decoded(self.bus, delivery, BeginRun)).run
        self.waiting += 1
        try:
            with bound(run_id=run.run_id, tenant=run.tenant):
                point("planner.begin.taken")
                async with self._turn:  # in the order in which they came
                    while not await self.bus.log.exists(subjects.facts(run).ended):
                        if await self.runner.begin(run):
                            break
                        await asyncio.sleep(LOOK_FOR_PLACE_S)
            return Done()
        finally:
            self.waiting -= 1

    async def _plan(self, run: Run, command: PlanRun) -> RunPlanned | None:
        """Decide what the run does; None when it was refused and its end is on its way."""
        request = command.request
        if command.lineage is not None:
            return await self._derived(run, command)
        if isinstance(request, WorkflowRequest):
            catalogue = await self.catalogue_for(run.tenant, templates_in(request.workflow.workflow))
            found = checked(request.workflow, catalogue)
            if isinstance(found, Invalid):
                await self._refuse(run, "workflow_invalid", found.problems)
                return None
            return RunPlanned(
                run=run,
                workflow=found.workflow,
                source="template" if request.template else "request",
                spent=command.spent,
                plan_only=command.plan_only,
            )
        if command.plan_only:
            return await self._plan_by_model(run, request, command.history, command.spent, plan_only=True)
        acknowledged = asyncio.create_task(self._acknowledge(run, request))
        planned = await self._plan_by_model(run, request, command.history, command.spent)
        await acknowledged
        return planned

    async def _derived(self, run: Run, command: PlanRun) -> RunPlanned | None:
        """Return the plan of a run that comes from another."""
        wanted = command.lineage
        assert wanted is not None
        parent = await self.bus.log.read(subjects.events(run.tenant, wanted.parent).plan, RunPlanned)
        if parent is None or parent.workflow is None:
            said = f"run {wanted.parent} has no workflow on the log to {wanted.kind}"
            await self._refuse(run, "unknown_parent", (Problem("$.lineage.parent", "unknown_parent", said),), 404)
            return None
        found = lineage.derived(run, parent, wanted)
        if not isinstance(found, RunPlanned):
            await self._refuse(run, "lineage_invalid", found)
            return None
        assert found.workflow is not None
        problems = checked(found.workflow, await self.catalogue_for(run.tenant, frozenset()))
        if isinstance(problems, Invalid):
            await self._refuse(run, "workflow_invalid", problems.problems)
            return None
        return found

    async def _refuse(self, run: Run, code: str, problems: tuple[Problem, ...], status: int = 422) -> None:
        fault = Fault(type="logical", code=code, status=status, message=str(Invalid(problems)))
        await self.bus.log.send(subjects.finish(run), FinishRun(run=run, outcome="denied", fault=fault))

    async def _acknowledge(self, run: Run, request: ChatRequest) -> None:
        """Have the caller told that work has begun. Nobody waits for it: whoever listens hears it from the log."""
        system = ChatMessage(role="system", content=self.flow.acknowledge_prompt)
        call = ExecuteCall(
            run=run,
            call=planning.ACKNOWLEDGE,
            purpose=Purpose.DECISION,
            lane=Lane.CONTROL,
            role=self.flow.acknowledge_role,
            messages=(system, user_message(request.message[:4_000])),
            category=Category.H,
        )
        await self._send_call(call)

    async def _plan_by_model(
        self,
        run: Run,
        request: ChatRequest,
        history: tuple[ChatMessage, ...],
        spent: Spent,
        *,
        plan_only: bool = False,
    ) -> RunPlanned:
        """Ask for a plan, hand it back with its errors at most twice, else answer directly and say so."""
        flow = self.flow
        question = question_of(request)
        if request.conversation is not None:
            history = before(request.conversation)
        given = planning.material(question, history)
        offer = replace(flow.offer, given=tuple(given))
        asked = planning.opening(flow.master_prompt, offer, history, user_message(question, request.images))
        trouble = "the planning model could not be asked"
        for attempt in range(planning.MAX_REPAIRS + 1):
            call = planning.plan_call(run, flow.master_role, asked, offer, attempt, spent)
            settled = await self._decided(run, call)
            if settled is None or settled.outcome == "failed":
                why = settled.fault.code if settled and settled.fault else "no answer in time"
                trouble = f"the planning model failed ({why})"
                if settled is not None:
                    spent = spent.plus(settled.as_spent())
                break
            spent = spent.plus(settled.as_spent())
            found = planning.read_plan(settled.text or "", offer.catalogue, given)
            if not isinstance(found, Invalid):
                return RunPlanned(
                    run=run,
                    workflow=found.workflow,
                    source="model",
                    repairs=attempt,
                    spent=spent,
                    plan_only=plan_only,
                    material=tuple(name for name in given if name in found.workflow.variables),
                )
            log.info("plan.invalid", extra={"repair": attempt, "problems": [p.code for p in found.problems]})
            metrics.PLAN_REPAIRS.inc()
            trouble = f"no valid plan after {attempt + 1} tries ({found.problems[0].code})"
            asked = planning.repair(asked, settled.text or "", found.problems)
        note = f"Answered directly instead of by an orchestrated workflow: {trouble}."
        return RunPlanned(
            run=run,
            workflow=None,
            source="direct",
            note=note,
            repairs=planning.MAX_REPAIRS,
            spent=spent,
            plan_only=plan_only,
        )

    async def _decided(self, run: Run, call: ExecuteCall) -> CallSettled | None:
        """Have a decision's call made and wait for its word on the log, until the run's deadline at most."""
        loop = asyncio.get_running_loop()
        return await self.bus.live.expect(
            subjects.live(run.tenant, run.run_id).settled(call.purpose, call.call),
            subjects.facts(run).settled(call.purpose, call.call),
            CallSettled,
            ask=lambda: self._send_call(call),
            until=loop.time() + max(0.0, run.left_s(self.now())),
        )

    def _direct(self, run: Run, command: PlanRun, planned: RunPlanned) -> ExecuteCall:
        """Return the one call that answers when there is no plan."""
        request = command.request
        assert isinstance(request, ChatRequest)
        flow, own = self.flow, request.conversation
        wanted = own.parameters if own is not None else None
        if own is not None and wanted is not None:
            answer_tokens = wanted.max_tokens or flow.answer_tokens
            window_tokens = flow.answer_window_tokens
            messages = carried(flow.answer_prompt, own.told, window_tokens=window_tokens, answer_tokens=answer_tokens)
        else:
            messages = conversation(
                flow.answer_prompt,
                command.history,
                user_message(request.message, request.images),
                window_tokens=flow.answer_window_tokens,
                answer_tokens=flow.answer_tokens,
            )
        return ExecuteCall(
            run=run,
            call=planning.ANSWER,
            purpose=Purpose.ANSWER,
            role=flow.answer_role,
            messages=messages,
            temperature=wanted.temperature if wanted is not None else None,
            max_tokens=wanted.max_tokens if wanted is not None else None,
            top_p=wanted.top_p if wanted is not None else None,
            parameters=wanted,
            stream=True,
            category=Category.H,
            note=planned.note,
            spent=planned.spent,
        )

    async def _send_call(self, call: ExecuteCall) -> None:
        await self.bus.log.send(subjects.call(call.run, call.lane, call.purpose, call.call), call)
