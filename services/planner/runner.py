"""Carry a planned run on: record what has happened, start what may start, send what is due, finish."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from pydantic import JsonValue

from services.planner import advance, reading
from services.planner.advance import Due, Outcome
from services.planner.arrivals import Arrivals
from services.planner.tasks import Cast, question, task_call
from shared import subjects
from shared.bus.connection import Bus
from shared.bus.delivery import Poison
from shared.bus.errors import QueueFull
from shared.contracts.commands import CancelRun, FinishRun, TaskDue
from shared.contracts.events import (
    ApprovalAsked,
    ApprovalDecided,
    CallSettled,
    Progress,
    RunHeld,
    RunPlanned,
    TaskExpanded,
)
from shared.contracts.ids import Category, Purpose
from shared.contracts.message import Fault, Run
from shared.contracts.workflow import Workflow
from shared.faults import point
from shared.graphs import graph_of
from shared.workflows.graph import Graph, Kind, Node, compiled, located
from shared.workflows.outputs import Missing, State, Unfit, Values, output, sources
from shared.workflows.validation import Catalogue

log = logging.getLogger("segue.planner")

PLANS_REMEMBERED = 512

Change = Callable[[Graph, Progress], Progress]


class _Stale(Exception):
    """The remembered graph lacks an expansion that the record has."""


class RecordLost(Exception):
    """The run has no progress record although it was begun: it has ended, or the record was lost."""


@dataclass(slots=True)
class Known:
    """What of a run never changes, remembered by this process."""

    planned: RunPlanned
    graph: Graph


@dataclass(frozen=True, slots=True)
class Arrived:
    """A settled call on its way into its run's record."""

    event: CallSettled
    outcome: Outcome
    again: bool


@dataclass(slots=True)
class Runner:
    """What carrying runs on needs; made in `app.py`."""

    bus: Bus
    cast: Cast
    catalogue: Catalogue
    now: Callable[[], datetime]
    arrivals: Arrivals[Arrived] = field(default_factory=Arrivals)
    """What was settled of a run while its record was being written: taken in together."""
    _known: OrderedDict[str, Known] = field(default_factory=OrderedDict)

    async def known(self, run: Run) -> Known | None:
        """Return a run's plan and graph, what its tasks have become so far included; None without a workflow."""
        remembered = self._known.get(run.run_id)
        if remembered is not None:
            self._known.move_to_end(run.run_id)
            return remembered
        planned = await self.bus.log.read(subjects.events(run.tenant, run.run_id).plan, RunPlanned)
        if planned is None or planned.workflow is None:
            return None
        return self._remember(Known(planned, await graph_of(self.bus, run, planned.workflow)))

    def planned(self, planned: RunPlanned) -> None:
        """Remember a plan that was written just now: none of its tasks has become anything yet."""
        assert planned.workflow is not None
        self._remember(Known(planned, compiled(planned.workflow)))

    def _remember(self, known: Known) -> Known:
        self._known[known.planned.run.run_id] = known
        if len(self._known) > PLANS_REMEMBERED:
            self._known.popitem(last=False)
        return known

    async def begin(self, run: Run) -> bool:
        """Take a place among the running workflows and start the first tasks. False: there is no place now."""
        known = await self.known(run)
        assert known is not None
        try:
            await self.carry_on(run, known, _unchanged, again=True, begin=True)
        except QueueFull:
            return False
        return True

    async def carry_on(
        self,
        run: Run,
        known: Known,
        change: Change,
        *,
        again: bool,
        begin: bool = False,
        approved: Sequence[str] = (),
        answers: dict[str, CallSettled] | None = None,
    ) -> None:
        """Record a change, and send what follows from it: what is new, or `again` everything that is due.

        Raises `RecordLost`; with `begin` the record is made, and `QueueFull` raised when there is no place for it.
        """
        told = answers if answers is not None else {}
        values = Values()
        bounds = self.cast.bounds
        before = changed = Progress()
        graph = known.graph

        def step(there: Progress | None) -> Progress | None:
            nonlocal before, changed
            if there is None and not begin:
                raise RecordLost
            before = there or Progress()
            if any(letter == State.EXPANDED and name not in graph.expanded for name, letter in before.states.items()):
                raise _Stale
            changed = change(graph, before)
            after = advance.flow(graph, changed, values, bounds, approved)
            return None if after == there else after

        while True:
            try:
                progress = await self.bus.runs.update(_key(run), Progress, step, fresh=begin)
                break
            except Missing as missing:
                values[missing.name] = await self._output(run, known, changed, missing.name, told)
            except _Stale:  # another planner took in an expansion
                known = await self._refreshed(known)
                graph = known.graph
        assert progress is not None
        point("planner.recorded")
        if begin and await self.bus.log.exists(subjects.events(run.tenant, run.run_id).ended):
            await self.bus.runs.forget(_key(run))  # it ended before it had a place: the place is another's
            return
        if advance.is_over(graph, progress, bounds):
            await self._finish(run, known, progress)
            return
        # Who recorded a start sends it; whoever takes its message over sends all, and copies are refused.
        everything = again or progress == before
        out = set() if everything else {(due.name, due.question) for due in advance.dues(graph, before)}
        for due in advance.dues(graph, progress):
            if (due.name, due.question) in out:
                continue
            if progress.rebuilt and await self._was_settled(run, known, due, approved):
                return  # it is taken in, and whatever else is due was sent with that
            await self._send(run, known, progress, due, values, told)
            point("planner.task_sent")

    async def _was_settled(self, run: Run, known: Known, due: Due, approved: Sequence[str]) -> bool:
        """Take a call in that was settled before the record was lost: nobody would say so again."""
        facts = subjects.events(run.tenant, run.run_id)
        if due.question and due.node.name not in approved:
            decided = await self.bus.log.read(facts.approval(due.node.name), ApprovalDecided)
            if decided is not None and decided.approved and due.node.kind is not Kind.APPROVAL:
                await self.carry_on(run, known, _unchanged, again=True, approved=[*approved, due.node.name])
                return True
        event = await self.bus.log.read(facts.settled(Purpose.TASK, due.name), CallSettled)
        if event is None:
            return False
        await self.take_in(event, known, again=True)
        return True

    async def _refreshed(self, known: Known) -> Known:
        planned = known.planned
        assert planned.workflow is not None
        return self._remember(Known(planned, await graph_of(self.bus, planned.run, planned.workflow)))

    async def _finish(self, run: Run, known: Known, progress: Progress) -> None:
        fault = None
        if advance.over_budget(progress, self.cast.bounds) and not _complete(known.graph, progress):
            spent, most = progress.cost_usd, self.cast.bounds.max_cost_usd
            said = f"the run has cost {spent:.4f} USD; orchestration.limits.maxCostUsd allows {most:g}"
            fault = Fault(type="resource", code="over_budget", status=402, message=said)
        command = FinishRun(run=run, outcome="workflow", fault=fault, states=progress.states, fans=progress.fans)
        await self.bus.log.send(subjects.finish(run), command)

    async def _output(
        self, run: Run, known: Known, progress: Progress, name: str, told: dict[str, CallSettled]
    ) -> JsonValue:
        """Return what a task put out, read from the log once."""
        node, states, fans = known.graph.nodes[name], progress.states, progress.fans
        texts = {}
        for call in sources(known.graph, node, states, fans):
            texts[call] = (await self.settled_of(run, call, told)).text or ""
        return output(known.graph, node, states, fans, texts)

    async def settled_of(self, run: Run, call: str, told: dict[str, CallSettled]) -> CallSettled:
        """Return how a call that is over was settled."""
        if call not in told:
            subject = subjects.events(run.tenant, run.run_id).settled(Purpose.TASK, call)
            settled = await self.bus.log.read(subject, CallSettled)
            if settled is None:
                raise Poison(f"the log has no output of task {call!r} although a task after it is ready")
            told[call] = settled
        return told[call]

    async def _send(
        self, run: Run, known: Known, progress: Progress, due: Due, values: Values, told: dict[str, CallSettled]
    ) -> None:
        """Send a call, ask a person, or settle at once what cannot be done or was done by the parent."""
        if due.question:
            await self._ask(run, known, progress, due.node, values, told)
            return
        if known.planned.parent is not None and await self._taken_over(run, known, due):
            return
        handed_back = None
        if due.repair:
            answer = await self.settled_of(run, due.name.removesuffix("_r"), told)
            handed_back = (
                answer.text or "",
                reading.problems(known.graph, due.node, answer.text or "", self.catalogue),
            )
        category = Category.H if known.planned.source == "model" else None
        while True:
            try:
                call = task_call(run, known.graph, due, values, self.cast, category, handed_back)
                break
            except Missing as missing:
                values[missing.name] = await self._output(run, known, progress, missing.name, told)
            except Unfit as unfit:
                await self.settle_as_failed(run, due.name, due.node, unfit.code, str(unfit))
                return
        if due.node.task.timeout_s is not None:
            await self._set_timer(run, due.name, due.node.task.timeout_s)
        await self.bus.log.send(subjects.call(run, call.lane, call.purpose, call.call), call)

    async def _set_timer(self, run: Run, task: str, after_s: float, *, question: bool = False) -> datetime:
        """Have the bus say when a task's time is over; a question's is another than that of the call it allows."""
        at = min(self.now() + timedelta(seconds=after_s), run.deadline_at)
        name = f"{task}_q" if question else task
        timer, target = subjects.task_timer(run.run_id, name), subjects.task_due(run.run_id, name)
        await self.bus.log.send_at(timer, target, TaskDue(run=run, task=task, question=question), at)
        return at

    async def settle_as_failed(
        self, run: Run, call: str, node: Node, code: str, message: str, *, status: int | None = None
    ) -> bool:
        """Settle a task as failed, unless it is settled already; whether this did it. It comes back by the log."""
        fact = CallSettled(
            run=run,
            call=call,
            purpose=Purpose.TASK,
            outcome="failed",
            fault=Fault(type="logical", code=code, message=message, status=status),
            role=node.task.model or "",
            asked_role=node.task.model or "",
        )
        subject = subjects.events(run.tenant, run.run_id).settled(Purpose.TASK, call)
        return (await self.bus.log.write(subject, fact)).mine

    async def _ask(
        self, run: Run, known: Known, progress: Progress, node: Node, values: Values, told: dict[str, CallSettled]
    ) -> None:
        """Say on the log that a person is asked, and set the time by which something is decided."""
        approve = node.task.approve
        assert approve is not None
        if known.planned.parent is not None and node.name.split("_")[0] not in known.planned.again:
            parents = subjects.events(run.tenant, known.planned.parent).approval(node.name)
            decided = await self.bus.log.read(parents, ApprovalDecided)
            if decided is not None and decided.approved:
                await self.bus.log.write(
                    subjects.events(run.tenant, run.run_id).approval(node.name), decided.model_copy(update={"run": run})
                )
                return
        while True:
            try:
                message = question(known.graph, node, values)
                break
            except Missing as missing:
                values[missing.name] = await self._output(run, known, progress, missing.name, told)
        left_s = max(0.0, (run.deadline_at - self.now()).total_seconds())
        until = await self._set_timer(run, node.name, min(approve.timeout_s or left_s, left_s), question=True)
        asked = ApprovalAsked(
            run=run, task=node.name, output=node.output, message=message, until=until, default=approve.default
        )
        await self.bus.log.write(subjects.events(run.tenant, run.run_id).asked(node.name), asked)

    async def _taken_over(self, run: Run, known: Known, due: Due) -> bool:
        """Take a call's answer over from the parent's log; False: it has none that can be used."""
        planned = known.planned
        assert planned.parent is not None
        if due.name.split("_")[0] in planned.again:
            return False
        theirs = subjects.events(run.tenant, planned.parent).settled(Purpose.TASK, due.name)
        settled = await self.bus.log.read(theirs, CallSettled)
        if settled is None or settled.outcome != "answered":
            return False
        if due.repair and reading.problems(known.graph, due.node, settled.text or "", self.catalogue):
            return False
        fact = settled.model_copy(
            update={
                "run": run,
                "reused_from": settled.reused_from or planned.parent,
                "saved_usd": settled.saved_usd or settled.cost_usd,
                "cost_usd": 0.0,
                "cost_known": True,
                "usage": type(settled.usage)(),
                "failed": (),
                "unknown": (),
            }
        )
        await self.bus.log.write(subjects.events(run.tenant, run.run_id).settled(Purpose.TASK, due.name), fact)
        return True

    async def take_in(self, event: CallSettled, known: Known, *, again: bool) -> None:
        """Go on after a settled call. Raises `RecordLost`."""
        run = event.run
        place = located(known.graph, event.call)
        if place is None:  # of a task of an expansion that another planner took in
            known = await self._refreshed(known)
            place = located(known.graph, event.call)
        if place is None:
            raise Poison(f"the plan has no task {event.call!r}")
        answered, fits = event.outcome == "answered", True
        if answered:
            fits = not reading.problems(known.graph, place.node, event.text or "", self.catalogue)
            if fits and place.node.kind is Kind.EXPANSION and place.node.name not in known.graph.expanded:
                known = await self._expand(run, known, place.node, event.text or "")
        arrived = Arrived(event, Outcome(event.call, answered, fits, event.cost_usd), again)
        await self.arrivals.taken(run.run_id, arrived, lambda batch: self._settled(run, known, batch))

    async def _settled(self, run: Run, known: Known, batch: Sequence[Arrived]) -> None:
        """Record what was settled, all of it in one write, and go on."""

        def change(graph: Graph, there: Progress) -> Progress:
            for one in batch:
                there = advance.settle(graph, there, one.outcome)
            return there

        await self.carry_on(
            run,
            self._known.get(run.run_id, known),  # one of the batch may have become more tasks
            change,
            again=any(one.again for one in batch),
            answers={one.event.call: one.event for one in batch},
        )

    async def _expand(self, run: Run, known: Known, node: Node, text: str) -> Known:
        """Write what a task's model wrote into the log, and go on with what stands there."""
        written = reading.workflow_in(text, node, self.catalogue)
        assert isinstance(written, Workflow)
        subject = subjects.events(run.tenant, run.run_id).expanded(node.name)
        fact = (await self.bus.log.write(subject, TaskExpanded(run=run, task=node.name, workflow=written))).fact
        point("planner.expanded")
        workflow = known.planned.workflow
        assert workflow is not None
        graph = compiled(workflow, {**known.graph.expanded, node.name: fact.workflow})
        return self._remember(Known(known.planned, graph))

    async def rebuild(self, run: Run, known: Known) -> bool:
        """Make a lost record again from the log. False: there is no place for it now."""
        try:
            await self.carry_on(run, known, _rebuilding, again=True, begin=True)
        except QueueFull:
            return False
        number = 1
        facts = subjects.events(run.tenant, run.run_id)
        while (fact := await self.bus.log.read(facts.hold(number), RunHeld)) is not None:
            await self.carry_on(run, known, partial(taken_in, fact), again=not fact.held)
            number += 1
        return True

    async def stop_call(self, run: Run, call: str, reason: str) -> None:
        """Tell whoever works on a call to drop it: a hint, the log decides.

        It stays on its queue: whoever takes it finds it settled, buys nothing, and accounts for what it cost so far.
        """
        hint = CancelRun(run_id=run.run_id, reason=reason, call=call)
        await self.bus.client.publish(subjects.cancel(run.tenant, run.run_id), hint.encode())


def taken_in(fact: RunHeld, _: Graph, there: Progress) -> Progress:
    """Return the state with a pause or a resumption in it."""
    return advance.hold(there, fact.number, held=fact.held)


def _rebuilding(_: Graph, there: Progress) -> Progress:
    return there.model_copy(update={"rebuilt": True})


def _unchanged(_: Graph, there: Progress) -> Progress:
    return there


def _key(run: Run) -> str:
    return f"{run.tenant}.{run.run_id}"


def _complete(graph: Graph, progress: Progress) -> bool:
    return all(progress.states.get(node.name) in set("dpkcu") for node in graph.root.nodes)
