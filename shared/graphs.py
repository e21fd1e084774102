"""A run's graph as the log has it: with the workflows that tasks' models wrote to be run in their place."""

from collections.abc import Callable

from shared import subjects
from shared.bus.connection import Bus
from shared.contracts.events import TaskExpanded
from shared.contracts.message import Run
from shared.contracts.workflow import Workflow
from shared.workflows.graph import Graph, Kind, compiled


async def graph_of(bus: Bus, run: Run, workflow: Workflow, may_be: Callable[[str], bool] = lambda _: True) -> Graph:
    """Return the graph of a run's workflow. `may_be`: whether a task, by its name, may have been expanded at all."""
    facts, expanded = subjects.facts(run), dict[str, Workflow]()
    looked: set[str] = set()
    while True:
        graph = compiled(workflow, expanded)
        new = {node.name for node in graph.nodes.values() if node.kind is Kind.EXPANSION} - looked
        if not new:
            return graph
        looked |= new
        for name in new:
            fact = await bus.log.read(facts.expanded(name), TaskExpanded) if may_be(name) else None
            if fact is not None:
                expanded[name] = fact.workflow
