"""Plan a run and start it; go on with it whenever one of its tasks is settled."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import JsonValue

from services.planner import advance, planning
from services.planner.advance import Step
from services.planner.planning import Offer
from services.planner.tasks import Persona, names_needed, task_call
from shared import subjects
from shared.bus.connection import Bus
from shared.bus.delivery import Delivery, Done, Poison, Verdict
from shared.contracts.commands import ChatRequest, ExecuteCall, FinishRun, PlanRun, Spent, WorkflowRequest
from shared.contracts.events import CallSettled, Progress, RunAccepted, RunPlanned
from shared.contracts.ids import Category, Lane, Purpose
from shared.contracts.message import ChatMessage, Fault, Run, Unreadable
from shared.contracts.workflow import Workflow
from shared.conversation import conversation, user_message
from shared.faults import point
from shared.observe import metrics
from shared.observe.logs import bound
from shared.unreadable import end_run_of
from shared.workflows.validation import Catalogue, Invalid, validate

log = logging.getLogger("segue.planner")

PLANS_REMEMBERED = 512


class _RecordLost(Exception):
    """The run has no progress record although one of its tasks is settled."""


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
    personas: Mapping[str, Persona]
    addons: Mapping[str, str]
    catalogue: Catalogue
    now: Callable[[], datetime]
    _plans: OrderedDict[str, RunPlanned] = field(default_factory=OrderedDict)

    async def asked(self, delivery: Delivery) -> Verdict:
        """Take a plan request from acceptance to the first calls."""
        body = await self.bus.payloads.unpack(delivery.data, delivery.headers)
        try:
            command = PlanRun.decode(body)
        except Unreadable as error:
            await end_run_of(self.bus, body, str(error), outcome="denied")
            raise Poison(str(error)) from error
        with bound(run_id=command.run.run_id, tenant=command.run.tenant):
            return await self._asked(command, again=delivery.delivered > 1)

    async def _asked(self, command: PlanRun, *, again: bool) -> Verdict:
        bus, run = self.bus, command.run
        facts = subjects.events(run.tenant, run.run_id)
        point("planner.taken")
        if command.source == "bus":
            await bus.log.set_timer(run)
            point("planner.timer_set")
        if command.source != "categorizer":
            accepted = await bus.log.write(facts.accepted, RunAccepted(run=run, request=command.request, by="planner"))
            run = accepted.fact.run
            point("planner.accepted")
            if accepted.mine:
                metrics.RUNS_ACCEPTED.labels(command.source).inc()
            again = again or not accepted.mine
        planned = None
        if again:
            if await bus.log.exists(facts.ended):
                return Done()
            planned = await bus.log.read(facts.plan, RunPlanned)
        if planned is None:
            fact = await self._plan(run, command)
            if fact is None:
                return Done()
            point("planner.decided")
            planned = (await bus.log.write(facts.plan, fact)).fact
            metrics.RUNS_PLANNED.labels(planned.source).inc()
        point("planner.planned")
        if planned.workflow is None:
            await self._send_call(self._direct(run, command, planned))
        else:
            await self._begin(run, planned.workflow, planned)
        point("planner.sent")
        return Done()

    async def _plan(self, run: Run, command: PlanRun) -> RunPlanned | None:
        """Decide what the run does; None when it was refused and its end is on its way."""
        request = command.request
        if isinstance(request, WorkflowRequest):
            checked = validate(request.workflow.model_dump(mode="json", exclude_none=True), self.catalogue)
            if isinstance(checked, Invalid):
                fault = Fault(type="logical", code="workflow_invalid", status=422, message=str(checked))
                await self.bus.log.send(subjects.finish(run), FinishRun(run=run, outcome="denied", fault=fault))
                return None
            source = "template" if request.template else "request"
            return RunPlanned(run=run, workflow=checked.workflow, source=source, spent=command.spent)
        acknowledged = asyncio.create_task(self._acknowledge(run, request, command.history))
        planned = await self._plan_by_model(run, request, command.history, command.spent)
        await acknowledged
        return planned

    async def _acknowledge(self, run: Run, request: ChatRequest, history: tuple[ChatMessage, ...]) -> None:
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
        self, run: Run, request: ChatRequest, history: tuple[ChatMessage, ...], spent: Spent
    ) -> RunPlanned:
        """Ask for a plan, hand it back with its errors at most twice, else answer directly and say so."""
        flow = self.flow
        message = user_message(request.message, request.images)
        asked = planning.opening(flow.master_prompt, flow.offer, history, message)
        trouble = "the planning model could not be asked"
        for attempt in range(planning.MAX_REPAIRS + 1):
            call = planning.plan_call(run, flow.master_role, asked, flow.offer, attempt, spent)
            settled = await self._decided(run, call)
            if settled is None or settled.outcome == "failed":
                why = settled.fault.code if settled and settled.fault else "no answer in time"
                trouble = f"the planning model failed ({why})"
                if settled is not None:
                    spent = spent.plus(settled.as_spent())
                break
            spent = spent.plus(settled.as_spent())
            checked = planning.read_plan(settled.text or "", flow.offer.catalogue)
            if not isinstance(checked, Invalid):
                return RunPlanned(run=run, workflow=checked.workflow, source="model", repairs=attempt, spent=spent)
            log.info("plan.invalid", extra={"repair": attempt, "problems": [p.code for p in checked.problems]})
            metrics.PLAN_REPAIRS.inc()
            trouble = f"no valid plan after {attempt + 1} tries ({checked.problems[0].code})"
            asked = planning.repair(asked, settled.text or "", checked.problems)
        note = f"Answered directly instead of by an orchestrated workflow: {trouble}."
        return RunPlanned(run=run, workflow=None, source="direct", note=note, repairs=planning.MAX_REPAIRS, spent=spent)

    async def _decided(self, run: Run, call: ExecuteCall) -> CallSettled | None:
        """Have a decision's call made and wait for its word on the log, until the run's deadline at most."""
        loop = asyncio.get_running_loop()
        return await self.bus.live.expect(
            subjects.live(run.tenant, run.run_id).settled(call.purpose, call.call),
            subjects.events(run.tenant, run.run_id).settled(call.purpose, call.call),
            CallSettled,
            ask=lambda: self._send_call(call),
            until=loop.time() + max(0.0, (run.deadline_at - self.now()).total_seconds()),
        )

    def _direct(self, run: Run, command: PlanRun, planned: RunPlanned) -> ExecuteCall:
        """Return the one call that answers when there is no plan."""
        request = command.request
        assert isinstance(request, ChatRequest)
        flow = self.flow
        return ExecuteCall(
            run=run,
            call=planning.ANSWER,
            purpose=Purpose.ANSWER,
            role=flow.answer_role,
            messages=conversation(
                flow.answer_prompt,
                command.history,
                user_message(request.message, request.images),
                window_tokens=flow.answer_window_tokens,
                answer_tokens=flow.answer_tokens,
            ),
            stream=True,
            category=Category.H,
            note=planned.note,
            spent=planned.spent,
        )

    async def _send_call(self, call: ExecuteCall) -> None:
        await self.bus.log.send(subjects.call(call.run, call.lane, call.purpose, call.call), call)

    async def _begin(self, run: Run, workflow: Workflow, planned: RunPlanned) -> None:
        """Record the first tasks as started, once, and send whatever is started and not settled."""
        progress = await self.bus.runs.update(
            _key(run), Progress, lambda there: advance.begin(workflow) if there is None else None, fresh=True
        )
        point("planner.begun")
        assert progress is not None
        await self._send_tasks(planned, advance.started(workflow, progress), {})

    async def settled(self, delivery: Delivery) -> Verdict:
        """Go on after a task: start what is ready now, or finish."""
        body = await self.bus.payloads.unpack(delivery.data, delivery.headers)
        try:
            event = CallSettled.decode(body)
        except Unreadable as error:
            await end_run_of(self.bus, body, str(error), outcome="denied")
            raise Poison(str(error)) from error
        with bound(run_id=event.run.run_id, tenant=event.run.tenant):
            return await self._settled(event, again=delivery.delivered > 1)

    async def _settled(self, event: CallSettled, *, again: bool) -> Verdict:
        run = event.run
        point("planner.settled.taken")
        planned = await self._planned(run)
        if planned is None or planned.workflow is None:
            raise Poison(f"task {event.call!r} is settled, but the log has no workflow of run {run.run_id}")
        workflow = planned.workflow
        if again and await self.bus.log.exists(subjects.events(run.tenant, run.run_id).ended):
            return Done()
        progress, new = await self._record(run, planned, event)
        point("planner.settled.recorded")
        outputs = {event.call: event}
        if advance.is_over(progress):
            await self.bus.log.send(subjects.finish(run), FinishRun(run=run, outcome="workflow"))
        else:
            # Who recorded a start sends it; whoever takes its message over sends all, and copies are refused.
            steps = advance.started(workflow, progress) if again or new is None else new
            await self._send_tasks(planned, steps, outputs)
        point("planner.settled.sent")
        return Done()

    async def _record(
        self, run: Run, planned: RunPlanned, event: CallSettled
    ) -> tuple[Progress, tuple[Step, ...] | None]:
        """Record a settlement. Returns the state and what it started; None when somebody recorded it before."""
        workflow = planned.workflow
        assert workflow is not None
        new: tuple[Step, ...] | None = None

        def change(there: Progress | None) -> Progress | None:
            nonlocal new
            if there is None:
                raise _RecordLost
            after = advance.settle(workflow, there, event.call, answered=event.outcome == "answered")
            if after == there:
                new = None
                return None
            running = {step.name for step in advance.started(workflow, there)}
            new = tuple(step for step in advance.started(workflow, after) if step.name not in running)
            return after

        try:
            progress = await self.bus.runs.update(_key(run), Progress, change)
        except _RecordLost:
            rebuilt = await self._rebuilt(run, workflow)
            progress = await self.bus.runs.update(_key(run), Progress, lambda there: None if there else rebuilt)
            new = None
        except advance.NoSuchTask as error:
            raise Poison(str(error)) from error
        assert progress is not None
        return progress, new

    async def _rebuilt(self, run: Run, workflow: Workflow) -> Progress:
        """Return the state as the log has it, for a record that aged away or was lost."""
        progress = advance.begin(workflow)
        facts = subjects.events(run.tenant, run.run_id)
        for step in advance.steps(workflow):
            settled = await self.bus.log.read(facts.settled(Purpose.TASK, step.name), CallSettled)
            if settled is not None:
                progress = advance.settle(workflow, progress, step.name, answered=settled.outcome == "answered")
        return progress

    async def _planned(self, run: Run) -> RunPlanned | None:
        """Return the run's plan: it never changes, so the latest are remembered."""
        remembered = self._plans.get(run.run_id)
        if remembered is not None:
            self._plans.move_to_end(run.run_id)
            return remembered
        planned = await self.bus.log.read(subjects.events(run.tenant, run.run_id).plan, RunPlanned)
        if planned is not None:
            self._plans[run.run_id] = planned
            if len(self._plans) > PLANS_REMEMBERED:
                self._plans.popitem(last=False)
        return planned

    async def _send_tasks(self, planned: RunPlanned, ready: tuple[Step, ...], outputs: dict[str, CallSettled]) -> None:
        workflow = planned.workflow
        assert workflow is not None
        producers = {step.output: step for step in advance.steps(workflow)}
        category = Category.H if planned.source == "model" else None
        for step in ready:
            values: dict[str, JsonValue] = dict(workflow.variables)
            for name in names_needed(step):
                if name in producers and name not in values:
                    values[name] = await self._output(planned.run, producers[name], outputs)
            await self._send_call(
                task_call(planned.run, step, values, self.personas[step.task.model], self.addons, category)
            )
            point("planner.task_sent")

    async def _output(self, run: Run, step: Step, outputs: dict[str, CallSettled]) -> str:
        """Return an earlier task's text, read from the log once."""
        if step.name not in outputs:
            subject = subjects.events(run.tenant, run.run_id).settled(Purpose.TASK, step.name)
            settled = await self.bus.log.read(subject, CallSettled)
            if settled is None:
                raise Poison(f"the log has no output of task {step.name!r} although a task after it is ready")
            outputs[step.name] = settled
        return outputs[step.name].text or ""


def _key(run: Run) -> str:
    return f"{run.tenant}.{run.run_id}"
