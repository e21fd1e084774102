"""The plan of a run that comes from another: the parent's, changed, and which of its tasks are done again. Pure."""

from collections.abc import Mapping

from pydantic import JsonValue

from shared.contracts.commands import Edit, Lineage
from shared.contracts.events import RunPlanned
from shared.contracts.message import Run
from shared.contracts.workflow import Queue, Task, Workflow
from shared.workflows.graph import after, compiled, named, referred_by
from shared.workflows.problems import Problem, hint


def derived(run: Run, parent: RunPlanned, lineage: Lineage) -> RunPlanned | tuple[Problem, ...]:
    """Return the plan of a retry or a fork, or what is wrong with what is asked for."""
    assert parent.workflow is not None
    graph = compiled(parent.workflow)
    producers = graph.root.producers
    wanted = [*(("start_at", name) for name in lineage.start_at), *(("edits", name) for name in lineage.edits)]
    problems = [
        Problem(f"$.{where}", "unknown_output", f"no task puts out {name!r}; {hint(name, producers)}")
        for where, name in wanted
        if name not in producers
    ]
    known = parent.workflow.variables
    problems += [
        Problem(f"$.variables.{name}", "unknown_variable", f"there is no variable {name!r}; {hint(name, known)}")
        for name in lineage.variables
        if name not in known
    ]
    if problems:
        return tuple(problems)
    changed = {name for name, value in lineage.variables.items() if known[name] != value}
    starts = {producers[name] for _, name in wanted}
    starts |= {node.name for node in graph.root.nodes if changed.intersection(referred_by(node.task, known))}
    workflow = _edited(parent.workflow, lineage.edits, lineage.variables)
    return parent.model_copy(
        update={
            "run": run,
            "workflow": workflow,
            "spent": type(parent.spent)(),
            "plan_only": False,
            "parent": lineage.parent,
            "again": tuple(sorted(after(graph, sorted(starts)))) if starts else (),
        }
    )


def _edited(workflow: Workflow, edits: Mapping[str, Edit], variables: Mapping[str, JsonValue]) -> Workflow:
    queues = tuple(
        Queue(
            type=queue.type,
            tasks=tuple(_task(task, edits.get(named(task, q, t))) for t, task in enumerate(queue.tasks)),
        )
        for q, queue in enumerate(workflow.workflow)
    )
    return Workflow(workflow=queues, variables={**workflow.variables, **variables})


def _task(task: Task, edit: Edit | None) -> Task:
    if edit is None:
        return task
    changes = {name: getattr(edit, name) for name in edit.model_fields_set if getattr(edit, name) is not None}
    return task.model_copy(update=changes)
