"""Whether a workflow of the right shape can run: names, references, order, bounds. Every problem is told."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from shared.contracts.workflow import Queue, Task, Workflow
from shared.workflows.conditions import WrongCondition, names_in
from shared.workflows.graph import Kind, kind_of, named, own_names, unnamed_output, wanted_by
from shared.workflows.problems import Blueprint, Catalogue, Problem, bad_name, hint, json_path, shown, taken, unknown
from shared.workflows.schemas import schema_problem
from shared.workflows.substitution import NAME, heads, references, whole


def inlined(workflow: Workflow, catalogue: Catalogue) -> Workflow:
    """Return a valid workflow with the queues of its templates in the tasks that stand for them."""
    return workflow.model_copy(update={"workflow": _inlined(workflow.workflow, catalogue)})


def _inlined(queues: Sequence[Queue], catalogue: Catalogue) -> tuple[Queue, ...]:
    if not any(task.template or task.workflow for queue in queues for task in queue.tasks):
        return tuple(queues)
    return tuple(
        queue.model_copy(update={"tasks": tuple(_task_inlined(task, catalogue) for task in queue.tasks)})
        for queue in queues
    )


def _task_inlined(task: Task, catalogue: Catalogue) -> Task:
    inner, values = task.workflow, task.variables
    if inner is None and task.template is not None:
        blueprint = catalogue.templates[task.template]
        inner, values = blueprint.workflow, blueprint.bound(values)
    if inner is None:
        return task
    return task.model_copy(update={"workflow": _inlined(inner, catalogue), "variables": values})


def problems_of(workflow: Workflow, catalogue: Catalogue) -> Iterator[Problem]:
    """Yield everything that is wrong with a workflow."""
    count = _count(workflow.workflow, catalogue, ())
    if count > catalogue.max_tasks:
        yield Problem("$.workflow", "too_many_tasks", f"{count} tasks; at most {catalogue.max_tasks} are allowed")
    yield from _scope_problems("$.workflow", "$.variables", workflow.workflow, workflow.variables, catalogue, ())


def _count(queues: Sequence[Queue], catalogue: Catalogue, within: tuple[str, ...]) -> int:
    total = 0
    for task in (task for queue in queues for task in queue.tasks):
        total += 1
        if task.workflow is not None:
            total += _count(task.workflow, catalogue, within)
        elif (
            task.template is not None
            and task.template in catalogue.templates
            and task.template not in within
            and len(within) < catalogue.max_depth
        ):
            total += _count(catalogue.templates[task.template].workflow, catalogue, (*within, task.template))
    return total


@dataclass(slots=True)
class _Names:
    """What a task may refer to, as the walk goes on."""

    known: set[str]
    producers: Mapping[str, str]
    reserved: Mapping[str, str]
    """The names under which outputs that have none of their own appear in the result, and whose they are."""
    catalogue: Catalogue
    within: tuple[str, ...]
    """The templates (or "" for an inner workflow) that this scope is a part of."""
    beside: set[str] = field(default_factory=set)
    """Outputs of a graph queue, while it is looked at."""


def _scope_problems(
    path: str,
    variables_path: str,
    queues: Sequence[Queue],
    variables: Mapping[str, object],
    catalogue: Catalogue,
    within: tuple[str, ...],
) -> Iterator[Problem]:
    places = [(q, t, task) for q, queue in enumerate(queues) for t, task in enumerate(queue.tasks)]
    producers = {
        task.output_variable: f"{path}[{q}].tasks[{t}]" for q, t, task in places if task.output_variable is not None
    }
    reserved = {
        unnamed_output(q, t): f"{path}[{q}].tasks[{t}]" for q, t, task in places if task.output_variable is None
    }
    for name in variables:
        where = variables_path + json_path((name,))[1:]
        if not NAME.fullmatch(name):
            yield bad_name(where, name)
        elif name in reserved:
            yield taken(where, name, reserved[name])
    names = _Names(set(variables), producers, reserved, catalogue, within)
    for index, queue in enumerate(queues):
        yield from _queue_problems(f"{path}[{index}]", index, queue, names)


def _queue_problems(path: str, index: int, queue: Queue, names: _Names) -> Iterator[Problem]:
    if queue.type == "graph":
        names.beside = {named(task, index, t) for t, task in enumerate(queue.tasks)}
        yield from _cycles(path, index, queue)
    added: list[str] = []
    for place, task in enumerate(queue.tasks):
        here = f"{path}.tasks[{place}]"
        yield from _task_problems(here, task, names, named(task, index, place))
        output = named(task, index, place)
        where = f"{here}.output_variable"
        if task.output_variable is not None and not NAME.fullmatch(output):
            yield bad_name(where, output)
        elif output in names.known or output in added:
            if task.output_variable is not None:
                yield Problem(where, "duplicate_name", f"{shown(output)!r} is already a variable or an output")
        elif task.output_variable is not None and output in names.reserved:
            yield taken(where, output, names.reserved[output])
        elif queue.type == "inline":
            names.known.add(output)
        else:
            added.append(output)
    names.known.update(added)
    names.beside = set()


def _cycles(path: str, index: int, queue: Queue) -> Iterator[Problem]:
    """Yield a problem for every task of a graph queue that waits for itself."""
    outputs = {named(task, index, t): t for t, task in enumerate(queue.tasks)}
    needs = {
        t: {outputs[one] for one in _wanted(task, outputs) if one in outputs} for t, task in enumerate(queue.tasks)
    }
    left = set(needs)
    while free := {t for t in left if not needs[t] & left}:
        left -= free
    circle = ", ".join(f"tasks[{t}]" for t in sorted(left))
    for t in sorted(left):
        yield Problem(f"{path}.tasks[{t}]", "circular_variable", f"waits for itself, by way of {circle}")


def _wanted(task: Task, known: Mapping[str, object]) -> tuple[str, ...]:
    try:
        return wanted_by(task, known)
    except WrongCondition:
        return task.needs


def _task_problems(path: str, task: Task, names: _Names, output: str) -> Iterator[Problem]:
    catalogue = names.catalogue
    yield from _kind_problems(path, task, names)
    if task.model is not None and task.model not in catalogue.models:
        yield Problem(f"{path}.model", "unknown_model", unknown("model", task.model, catalogue.models))
    for place, addon in enumerate(task.config.addons):
        if addon not in catalogue.addons:
            yield Problem(f"{path}.config.addons[{place}]", "unknown_addon", unknown("addon", addon, catalogue.addons))
    if task.model is not None and not task.prompt.strip():
        if "prompt" in task.model_fields_set:
            yield Problem(f"{path}.prompt", "empty_prompt", "the prompt is empty")
        else:
            yield Problem(f"{path}.prompt", "missing", "Field required")
    yield from _bound_problems(path, task, catalogue)
    for place, need in enumerate(task.needs):
        if need not in names.known and need not in names.beside:
            yield _dangling(f"{path}.needs[{place}]", path, need, output, names)
        elif need == output:
            yield Problem(f"{path}.needs[{place}]", "circular_variable", f"{need!r} is this task's own output")
    yield from _reference_problems(path, task, names, output)
    yield from _inner_problems(path, task, names)


def _kind_problems(path: str, task: Task, names: _Names) -> Iterator[Problem]:
    given = [name for name in ("model", "template", "workflow") if getattr(task, name) is not None]
    if task.model is not None and len(given) > 1:  # a template whose queues were put in has both, and no model
        said = f"a task is one of model, template or workflow, not {' and '.join(given)}"
        yield Problem(path, "model_or_workflow", said)
    elif not given and task.approve is None:
        yield Problem(f"{path}.model", "missing", "Field required: a model, a template, a workflow, or approve")
    kind = kind_of(task)
    if task.for_each is not None and kind is not Kind.FAN:
        yield Problem(f"{path}.for_each", "for_each_needs_model", "for_each is for a task with a model, without expand")
    if task.output_schema is not None and kind not in {Kind.CALL, Kind.FAN}:
        yield Problem(f"{path}.output_schema", "schema_needs_model", "output_schema is for a task with a model")
    if task.expand and task.model is None:
        yield Problem(f"{path}.expand", "expand_needs_model", "expand is for a task whose model writes a workflow")
    if task.expand and len(names.within) >= names.catalogue.max_depth:
        yield _too_deep(f"{path}.expand", names)
    if task.variables and kind is not Kind.GROUP:
        yield Problem(f"{path}.variables", "variables_need_workflow", "variables are for a template or a workflow")
    if task.on_error == "substitute" and "substitute" not in task.model_fields_set:
        yield Problem(f"{path}.substitute", "missing", "on_error is substitute: say what stands for the output")


def _bound_problems(path: str, task: Task, catalogue: Catalogue) -> Iterator[Problem]:
    approve_s = task.approve.timeout_s if task.approve is not None else None
    for where, seconds in (("timeout_s", task.timeout_s), ("approve.timeout_s", approve_s)):
        if seconds is not None and seconds > catalogue.max_s:
            yield Problem(f"{path}.{where}", "too_long", f"{seconds:g} s; at most {catalogue.max_s:g} are allowed")
    if task.output_schema is not None and (wrong := schema_problem(task.output_schema)) is not None:
        yield Problem(f"{path}.output_schema", "bad_schema", f"is not a JSON Schema that can be used: {wrong}")
    if task.for_each is not None:
        if whole(task.for_each.items) is None:
            said = f"{shown(task.for_each.items)!r} is not one reference to a list, such as {{names}}"
            yield Problem(f"{path}.for_each.items", "bad_reference", said)
        if not NAME.fullmatch(task.for_each.item):
            yield bad_name(f"{path}.for_each.as", task.for_each.item)


def _reference_problems(path: str, task: Task, names: _Names, output: str) -> Iterator[Problem]:
    own = own_names(task)
    places = [("prompt", task.prompt), ("input_image", task.input_image or "")]
    places += [(f"variables.{name}", value) for name, value in task.variables.items() if isinstance(value, str)]
    if task.approve is not None:
        places.append(("approve.message", task.approve.message))
    for key, text in places:
        for name in references(text):
            if name not in own:
                yield from _unknown_name(f"{path}.{key}", path, name, output, names)
        for name in heads(text, names.producers):
            if name not in own:
                yield from _unknown_name(f"{path}.{key}", path, name, output, names)
    if task.for_each is not None and (reference := whole(task.for_each.items)) is not None:
        head = NAME.match(reference)
        assert head is not None
        yield from _unknown_name(f"{path}.for_each.items", path, head.group(), output, names)
    if task.when is not None:
        try:
            for name in names_in(task.when):
                yield from _unknown_name(f"{path}.when", path, name, output, names)
        except WrongCondition as error:
            yield Problem(f"{path}.when", "bad_condition", str(error))


def _unknown_name(where: str, path: str, name: str, output: str, names: _Names) -> Iterator[Problem]:
    if name == output and names.beside:
        yield Problem(where, "circular_variable", f"{{{name}}} is this task's own output")
    elif name not in names.known and name not in names.beside:
        yield _dangling(where, path, name, output, names)


def _dangling(where: str, path: str, name: str, output: str, names: _Names) -> Problem:
    producer = names.producers.get(name)
    if name == output or producer == path:
        return Problem(where, "circular_variable", f"{{{name}}} is this task's own output")
    if producer is not None:
        said = f"{{{name}}} is the output of {producer}, which has not run when this task starts"
        return Problem(where, "circular_variable", said)
    return Problem(where, "undefined_variable", f"{{{shown(name)}}} is not defined; {hint(name, names.known)}")


def _inner_problems(path: str, task: Task, names: _Names) -> Iterator[Problem]:
    """Look at the workflow that a task stands for."""
    catalogue, within = names.catalogue, names.within
    if task.workflow is not None:
        if len(within) >= catalogue.max_depth:
            yield _too_deep(f"{path}.workflow", names)
        else:
            inner = (*within, "")
            yield from _scope_problems(
                f"{path}.workflow", f"{path}.variables", task.workflow, task.variables, catalogue, inner
            )
        return
    if task.template is None:
        return
    blueprint = catalogue.templates.get(task.template)
    where = f"{path}.template"
    if blueprint is None:
        yield Problem(where, "unknown_template", unknown("template", task.template, catalogue.templates))
    elif task.template in within:
        yield Problem(where, "circular_template", f"{task.template!r} is a part of itself")
    elif len(within) >= catalogue.max_depth:
        yield _too_deep(where, names)
    else:
        yield from _given_problems(path, task, blueprint)
        for problem in _scope_problems(
            "$.workflow", "$.variables", blueprint.workflow, blueprint.bound(task.variables), catalogue,
            (*within, task.template),
        ):  # fmt: skip
            said = f"in template {task.template!r}, {problem.path}: {problem.message}"
            yield Problem(where, problem.code, said)


def _given_problems(path: str, task: Task, blueprint: Blueprint) -> Iterator[Problem]:
    for name, what in blueprint.problems(task.variables):
        value = task.variables.get(name)
        if isinstance(value, str) and "{" in value:
            continue  # its type is known when the run comes to it
        yield Problem(f"{path}.variables.{name}", "bad_variable", f"{name} {what}")


def _too_deep(where: str, names: _Names) -> Problem:
    most = names.catalogue.max_depth
    return Problem(where, "too_deep", f"workflows within workflows, more than {most} deep")
