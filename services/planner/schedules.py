"""Begin the runs of schedules when the bus says that it is time, and keep its clocks as the registry wants them."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.planner import firing
from services.planner.firing import Ignore, Start
from shared import subjects
from shared.bus.connection import Bus
from shared.bus.delivery import Delivery, Done, Poison, Retry, Verdict
from shared.bus.errors import BusError, QueueFull
from shared.contracts.commands import PlanRun, WorkflowRequest
from shared.contracts.message import Run, Unreadable
from shared.contracts.registry import Schedule, ScheduleDue, ScheduleState
from shared.contracts.workflow import Workflow
from shared.faults import point
from shared.observe import metrics
from shared.registry.filling import filled
from shared.registry.schedules import Schedules, next_of
from shared.registry.templates import TemplateBook
from shared.workflows.problems import templates_in
from shared.workflows.validation import Catalogue, Invalid

log = logging.getLogger("segue.planner")

RECONCILE_S = 30.0


@dataclass(slots=True)
class Scheduling:
    """What the handler needs; made in `app.py`."""

    bus: Bus
    schedules: Schedules
    book: TemplateBook
    catalogue: Catalogue
    timeout_s: float
    """From a run's birth to its deadline."""
    now: Callable[[], datetime]

    async def fired(self, delivery: Delivery) -> Verdict:
        """Begin a schedule's run, once, or note why not."""
        try:
            due = ScheduleDue.decode(await self.bus.payloads.unpack(delivery.data, delivery.headers))
        except Unreadable as error:
            raise Poison(str(error)) from error
        schedule = await self.schedules.get(due.tenant, due.name)
        state = await self.schedules.state(due.tenant, due.name)
        now, next_at = self.now(), next_of(delivery.headers)
        found = firing.decide(
            due,
            schedule,
            state,
            seq=delivery.stream_seq,
            stored_ns=delivery.stored_ns,
            next_at=next_at,
            now=now,
            last_goes_on=await self._goes_on(due.tenant, state),
        )
        if isinstance(found, Ignore) or schedule is None:
            return Done()
        problem = None
        if isinstance(found, Start):
            try:
                problem = await self._begin(schedule, found.run_id, now)
            except QueueFull as full:
                return Retry(full.retry_after_s)
        point("planner.schedule.begun")

        def note(before: ScheduleState | None) -> ScheduleState:
            return firing.noted(before, found, seq=delivery.stream_seq, at=now, next_at=next_at, problem=problem)

        await self.bus.registry.update(f"fired.{due.tenant}.{due.name}", ScheduleState, note)
        outcome = "failed" if problem is not None else "started" if isinstance(found, Start) else "skipped"
        metrics.SCHEDULES_FIRED.labels(outcome).inc()
        if problem is not None:
            log.error("schedule.failed", extra={"schedule": due.name, "tenant": due.tenant, "problem": problem})
        return Done()

    async def _goes_on(self, tenant: str, state: ScheduleState) -> bool:
        if state.last_run is None:
            return False
        return not await self.bus.log.exists(subjects.events(tenant, state.last_run).ended)

    async def _begin(self, schedule: Schedule, run_id: str, now: datetime) -> str | None:
        """Send the run's command; returns why it could not be made. Raises `QueueFull`."""
        offered = await self.book.get(schedule.tenant, schedule.template)
        if offered is None:
            return f"there is no template {schedule.template!r} any more"
        named = templates_in(offered.template.workflow)
        templates = await self.book.closure(schedule.tenant, named)
        found = filled(offered.template, schedule.variables, self.catalogue, templates)
        if isinstance(found, Invalid):
            return str(found)
        run = Run(
            run_id=run_id,
            tenant=schedule.tenant,
            priority=schedule.priority,
            born_at=now,
            deadline_at=now + timedelta(seconds=self.timeout_s),
            key=schedule.key,
        )
        request = WorkflowRequest(
            workflow=Workflow(workflow=found.workflow.workflow, variables=found.workflow.variables),
            template=schedule.template,
            template_version=offered.version,
            schedule=schedule.name,
        )
        command = PlanRun(run=run, request=request, source="bus", callback=schedule.callback)
        await self.bus.log.send(subjects.workflow(run), command)
        return None

    async def keep(self) -> None:
        """Set the bus's clocks right, now and then, for ever."""
        while True:
            try:
                await self.schedules.reconcile()
            except BusError as error:
                log.warning("schedules.unreconciled", extra={"problem": str(error)})
            await asyncio.sleep(RECONCILE_S)
