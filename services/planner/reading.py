"""Whether a task's answer is of the shape that was asked for: of its schema, or a workflow that can run. Pure."""

from services.planner.planning import read_plan
from shared.contracts.workflow import Task, Workflow
from shared.workflows.graph import Graph, Kind, Node
from shared.workflows.problems import Problem
from shared.workflows.schemas import read_output
from shared.workflows.validation import Catalogue, Invalid


def problems(graph: Graph, node: Node, text: str, catalogue: Catalogue) -> tuple[str, ...]:
    """Return what is wrong with an answer, nothing when it can be used."""
    if node.kind is Kind.EXPANSION:
        written = graph.expanded.get(node.name) or workflow_in(text, node, catalogue)
        return () if isinstance(written, Workflow) else tuple(f"{one.path}: {one.message}" for one in written)
    if node.task.output_schema is not None:
        return read_output(text, node.task.output_schema)[1]
    return ()


def workflow_in(text: str, node: Node, catalogue: Catalogue) -> Workflow | tuple[Problem, ...]:
    """Return the workflow that a model wrote to be run in its task's place, or everything that is wrong with it."""
    checked = read_plan(text, catalogue)
    if isinstance(checked, Invalid):
        return checked.problems
    depth = 1 + sum(1 for part in node.name.split("_") if "-" in part)
    tasks = [task for queue in checked.workflow.workflow for task in queue.tasks]
    if depth > catalogue.max_depth and any(_deepens(task) for task in tasks):
        return (Problem("$.workflow", "too_deep", "this workflow may not have workflows of its own"),)
    return checked.workflow


def _deepens(task: Task) -> bool:
    return task.expand or task.workflow is not None or task.template is not None
