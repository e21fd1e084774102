"""The plans of the runs that this process carries on: what of a run never changes, read once and remembered."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from shared import subjects
from shared.bus.connection import Bus
from shared.contracts.events import RunPlanned, TaskExpanded
from shared.contracts.message import Run
from shared.contracts.workflow import Workflow
from shared.faults import point
from shared.graphs import graph_of
from shared.workflows.graph import Graph, Node, compiled

PLANS_REMEMBERED: Final = 512


@dataclass(slots=True)
class Known:
    """What of a run never changes."""

    planned: RunPlanned
    graph: Graph


@dataclass(slots=True)
class Plans:
    """By run."""

    bus: Bus
    _known: OrderedDict[str, Known] = field(default_factory=OrderedDict)

    async def of(self, run: Run) -> Known | None:
        """Return a run's plan and graph, what its tasks have become so far included; None without a workflow."""
        remembered = self._known.get(run.run_id)
        if remembered is not None:
            self._known.move_to_end(run.run_id)
            return remembered
        planned = await self.bus.log.read(subjects.facts(run).plan, RunPlanned)
        if planned is None or planned.workflow is None:
            return None
        return self._remember(Known(planned, await graph_of(self.bus, run, planned.workflow)))

    def begun(self, planned: RunPlanned) -> None:
        """Remember a plan that was written just now: none of its tasks has become anything yet."""
        assert planned.workflow is not None
        self._remember(Known(planned, compiled(planned.workflow)))

    def _remember(self, known: Known) -> Known:
        self._known[known.planned.run.run_id] = known
        if len(self._known) > PLANS_REMEMBERED:
            self._known.popitem(last=False)
        return known

    def newest(self, known: Known) -> Known:
        """Return what is remembered of a run by now; else what was known."""
        return self._known.get(known.planned.run.run_id, known)

    async def refreshed(self, known: Known) -> Known:
        """Read again what tasks have become: another planner took an expansion in."""
        planned = known.planned
        assert planned.workflow is not None
        return self._remember(Known(planned, await graph_of(self.bus, planned.run, planned.workflow)))

    async def expand(self, known: Known, node: Node, written: Workflow) -> Known:
        """Write what a task's model wrote into the log, and go on with what stands there."""
        run = known.planned.run
        subject = subjects.facts(run).expanded(node.name)
        fact = (await self.bus.log.write(subject, TaskExpanded(run=run, task=node.name, workflow=written))).fact
        point("planner.expanded")
        workflow = known.planned.workflow
        assert workflow is not None
        graph = compiled(workflow, {**known.graph.expanded, node.name: fact.workflow})
        return self._remember(Known(known.planned, graph))
