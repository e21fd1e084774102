"""Take in what happens to a running workflow: settled tasks, decisions of people, times that are over."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from services.planner import advance
from services.planner.decoding import decoded
from services.planner.plans import Known
from services.planner.runner import RecordLost, Runner, taken_in
from shared import subjects
from shared.bus.connection import Bus
from shared.bus.delivery import Delivery, Done, Poison, Retry, Verdict
from shared.contracts.commands import ControlRun, TaskDue
from shared.contracts.events import ApprovalDecided, CallSettled, Progress, RunAccepted, RunHeld
from shared.contracts.ids import Purpose, Verb
from shared.contracts.message import Run
from shared.faults import point
from shared.observe.logs import bound
from shared.workflows.graph import Kind, located
from shared.workflows.outputs import State

log = logging.getLogger("segue.planner")

WAITS_AGAIN_S = 1.0


@dataclass(slots=True)
class Steering:
    """What the handlers need; made in `app.py`."""

    bus: Bus
    runner: Runner

    async def settled(self, delivery: Delivery) -> Verdict:
        """Go on after a task: start what is ready now, or finish."""
        event = await decoded(self.bus, delivery, CallSettled)
        point("planner.settled.taken")
        return await self._happened(
            event.run,
            lambda known: self.runner.take_in(event, known, again=delivery.delivered > 1),
            again=delivery.delivered > 1,
        )

    async def _happened(self, run: Run, go_on: Callable[[Known], Awaitable[None]], *, again: bool) -> Verdict:
        """Go on with a run after something happened to it. One that has ended is left alone."""
        with bound(run_id=run.run_id, tenant=run.tenant):
            ended = subjects.facts(run).ended
            if again and await self.bus.log.exists(ended):
                return Done()
            known = await self.runner.plans.of(run)
            if known is None:
                raise Poison(f"something happened to a task, but the log has no workflow of run {run.run_id}")
            try:
                await go_on(known)
            except RecordLost:
                if await self.bus.log.exists(ended):
                    return Done()
                log.warning("record.rebuilt")
                if not await self.runner.rebuild(run, known):
                    return Retry(WAITS_AGAIN_S)
            point("planner.settled.sent")
            return Done()

    async def decided(self, delivery: Delivery) -> Verdict:
        """Go on after a person's decision about a task, or after the time for it."""
        fact = await decoded(self.bus, delivery, ApprovalDecided)
        point("planner.approval.taken")

        async def go_on(known: Known) -> None:
            node = known.graph.nodes.get(fact.task)
            if node is None:
                raise Poison(f"the plan has no task {fact.task!r} to approve")
            if not fact.approved:
                said = f"{node.output!r} was rejected by {fact.by}" + (f": {fact.comment}" if fact.comment else "")
                await self.runner.dispatch.settle_as_failed(fact.run, node.name, node, "rejected", said)
            elif node.kind is Kind.APPROVAL:
                settled = CallSettled(
                    run=fact.run, call=node.name, purpose=Purpose.TASK, outcome="answered",
                    text=fact.comment or "approved", role="", asked_role="",
                )  # fmt: skip
                subject = subjects.facts(fact.run).settled(Purpose.TASK, node.name)
                await self.bus.log.write(subject, settled)
            else:
                await self.runner.carry_on(
                    fact.run, known, lambda _, there: there, again=delivery.delivered > 1, approved=[node.name]
                )

        return await self._happened(fact.run, go_on, again=delivery.delivered > 1)

    async def overdue(self, delivery: Delivery) -> Verdict:
        """End a task whose time is over, or decide for the person who has not."""
        command = await decoded(self.bus, delivery, TaskDue)
        run, task = command.run, command.task
        point("planner.due.taken")

        async def go_on(known: Known) -> None:
            place = located(known.graph, task)
            there, _ = await self.bus.runs.get(subjects.run_key(run.tenant, run.run_id), Progress)
            if place is None or there is None:
                return
            node = place.node
            if command.question:
                if there.states.get(node.name) != State.ASKED:
                    return
                assert node.task.approve is not None
                fact = ApprovalDecided(
                    run=run, task=node.name, approved=node.task.approve.default == "approve", by="timeout"
                )
                await self.bus.log.write(subjects.facts(run).approval(node.name), fact)
            elif task in {due.name for due in advance.dues(known.graph, there) if not due.question}:
                said = f"not done within {node.task.timeout_s or 0:g} s"
                if await self.runner.dispatch.settle_as_failed(run, task, node, "task_timeout", said, status=504):
                    await self.runner.dispatch.stop_call(run, task, "task_timeout")

        return await self._happened(run, go_on, again=delivery.delivered > 1)

    async def controlled(self, delivery: Delivery) -> Verdict:
        """Do what a person wants of a run: pause, resume, approve, reject. What does not fit its state is left."""
        command = await decoded(self.bus, delivery, ControlRun)
        facts = subjects.events(command.tenant, command.run_id)
        accepted = await self.bus.log.read(facts.accepted, RunAccepted)
        if accepted is None or await self.bus.log.exists(facts.ended):
            return Done()
        run = accepted.run
        point("planner.control.taken")

        async def go_on(known: Known) -> None:
            there, _ = await self.bus.runs.get(subjects.run_key(run.tenant, run.run_id), Progress)
            if there is None:
                raise RecordLost
            if command.verb in (Verb.PAUSE, Verb.RESUME):
                await self._hold(run, known, there, command, delivery)
            else:
                await self._decide(run, known, there, command)

        if await self.runner.plans.of(run) is None:
            return Done()  # one call answers it: there is nothing to hold
        return await self._happened(run, go_on, again=True)

    async def _hold(self, run: Run, known: Known, there: Progress, command: ControlRun, delivery: Delivery) -> None:
        """Pause or resume: the next `hold` on the log says which. First comes what stands there and is not taken in:
        who wrote it may have died."""
        wanted, facts = command.verb is Verb.PAUSE, subjects.facts(run)
        held, number = there.held, there.holds
        done = False
        for earlier in range(1, number + 1) if delivery.delivered > 1 else ():
            fact = await self.bus.log.read(facts.hold(earlier), RunHeld)
            done = done or (fact is not None and fact.command == delivery.stream_seq)
        while True:
            number += 1
            fact = await self.bus.log.read(facts.hold(number), RunHeld)
            if fact is None and (done or held == wanted):
                break
            if fact is None:
                mine = RunHeld(
                    run=run,
                    number=number,
                    held=wanted,
                    command=delivery.stream_seq,
                    by=command.by,
                    reason=command.reason,
                )
                fact = (await self.bus.log.write(facts.hold(number), mine)).fact
                point("planner.held")
            held, done = fact.held, done or fact.command == delivery.stream_seq
            await self.runner.carry_on(run, known, partial(taken_in, fact), again=not held)
        if not held:
            await self.runner.carry_on(run, known, lambda _, one: one, again=True)

    async def _decide(self, run: Run, known: Known, there: Progress, command: ControlRun) -> None:
        asked = [due.node for due in advance.dues(known.graph, there) if due.question]
        if command.task is not None:
            asked = [node for node in asked if command.task in (node.output, node.name)]
        if len(asked) != 1:
            log.info("control.nothing_to_decide", extra={"asked": len(asked), "task": command.task})
            return
        fact = ApprovalDecided(
            run=run,
            task=asked[0].name,
            approved=command.verb is Verb.APPROVE,
            by=command.by,
            comment=command.reason,
        )
        await self.bus.log.write(subjects.facts(run).approval(asked[0].name), fact)
