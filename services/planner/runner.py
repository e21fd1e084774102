"""Carry a planned run on: record what has happened, start what may start, send what is due, finish."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from services.planner import advance, reading
from services.planner.advance import Due, Outcome
from services.planner.arrivals import Arrivals
from services.planner.dispatch import Dispatch
from services.planner.plans import Known, Plans
from shared import subjects
from shared.bus.connection import Bus
from shared.bus.delivery import Poison
from shared.bus.errors import QueueFull
from shared.contracts.commands import FinishRun
from shared.contracts.events import ApprovalDecided, CallSettled, Progress, RunHeld
from shared.contracts.ids import Purpose
from shared.contracts.message import Fault, Run
from shared.contracts.workflow import Workflow
from shared.faults import point
from shared.workflows.graph import Graph, Kind, located
from shared.workflows.outputs import Missing, State, Values

log = logging.getLogger("segue.planner")

Change = Callable[[Graph, Progress], Progress]


class _Stale(Exception):
    """The remembered graph lacks an expansion that the record has."""


class RecordLost(Exception):
    """The run has no progress record although it was begun: it has ended, or the record was lost."""


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
    dispatch: Dispatch
    plans: Plans
    arrivals: Arrivals[Arrived] = field(default_factory=Arrivals)
    """What was settled of a run while its record was being written: taken in together."""

    async def begin(self, run: Run) -> bool:
        """Take a place among the running workflows and start the first tasks. False: there is no place now."""
        known = await self.plans.of(run)
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
        record = subjects.run_key(run.tenant, run.run_id)
        told = answers if answers is not None else {}
        values = Values()
        bounds = self.dispatch.cast.bounds
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
                progress = await self.bus.runs.update(record, Progress, step, fresh=begin)
                break
            except Missing as missing:
                values[missing.name] = await self.dispatch.output(run, known, changed, missing.name, told)
            except _Stale:  # another planner took in an expansion
                known = await self.plans.refreshed(known)
                graph = known.graph
        assert progress is not None
        point("planner.recorded")
        if begin and await self.bus.log.exists(subjects.facts(run).ended):
            await self.bus.runs.forget(record)  # it ended before it had a place: the place is another's
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
            await self.dispatch.send(run, known, progress, due, values, told)
            point("planner.task_sent")

    async def _was_settled(self, run: Run, known: Known, due: Due, approved: Sequence[str]) -> bool:
        """Take a call in that was settled before the record was lost: nobody would say so again."""
        facts = subjects.facts(run)
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

    async def _finish(self, run: Run, known: Known, progress: Progress) -> None:
        fault = None
        if advance.over_budget(progress, self.dispatch.cast.bounds) and not _complete(known.graph, progress):
            spent, most = progress.cost_usd, self.dispatch.cast.bounds.max_cost_usd
            said = f"the run has cost {spent:.4f} USD; orchestration.limits.maxCostUsd allows {most:g}"
            fault = Fault(type="resource", code="over_budget", status=402, message=said)
        command = FinishRun(run=run, outcome="workflow", fault=fault, states=progress.states, fans=progress.fans)
        await self.bus.log.send(subjects.finish(run), command)

    async def take_in(self, event: CallSettled, known: Known, *, again: bool) -> None:
        """Go on after a settled call. Raises `RecordLost`."""
        run = event.run
        place = located(known.graph, event.call)
        if place is None:  # of a task of an expansion that another planner took in
            known = await self.plans.refreshed(known)
            place = located(known.graph, event.call)
        if place is None:
            raise Poison(f"the plan has no task {event.call!r}")
        answered, fits = event.outcome == "answered", True
        if answered:
            fits = not reading.problems(known.graph, place.node, event.text or "", self.dispatch.catalogue)
            if fits and place.node.kind is Kind.EXPANSION and place.node.name not in known.graph.expanded:
                written = reading.workflow_in(event.text or "", place.node, self.dispatch.catalogue)
                assert isinstance(written, Workflow)
                known = await self.plans.expand(known, place.node, written)
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
            self.plans.newest(known),  # one of the batch may have become more tasks
            change,
            again=any(one.again for one in batch),
            answers={one.event.call: one.event for one in batch},
        )

    async def rebuild(self, run: Run, known: Known) -> bool:
        """Make a lost record again from the log. False: there is no place for it now."""
        try:
            await self.carry_on(run, known, _rebuilding, again=True, begin=True)
        except QueueFull:
            return False
        number = 1
        facts = subjects.facts(run)
        while (fact := await self.bus.log.read(facts.hold(number), RunHeld)) is not None:
            await self.carry_on(run, known, partial(taken_in, fact), again=not fact.held)
            number += 1
        return True


def taken_in(fact: RunHeld, _: Graph, there: Progress) -> Progress:
    """Return the state with a pause or a resumption in it."""
    return advance.hold(there, fact.number, held=fact.held)


def _rebuilding(_: Graph, there: Progress) -> Progress:
    return there.model_copy(update={"rebuilt": True})


def _unchanged(_: Graph, there: Progress) -> Progress:
    return there


def _complete(graph: Graph, progress: Progress) -> bool:
    return all(progress.states.get(node.name) in set("dpkcu") for node in graph.root.nodes)
