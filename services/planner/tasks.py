"""The call that a task becomes once its values are known. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from services.planner.advance import Bounds, Due
from services.planner.planning import SCHEMA_NAME
from shared.contracts.commands import ExecuteCall
from shared.contracts.ids import Category, Lane, Purpose
from shared.contracts.message import ChatMessage, Run
from shared.conversation import system_prompt, user_message
from shared.workflows.conditions import WrongCondition, holds, names_in
from shared.workflows.graph import Graph, Node, own_names
from shared.workflows.outputs import Unfit, Values, environment, filled, items_of
from shared.workflows.substitution import as_text, heads, references, substitute

MOST_PROMPT_CHARS: Final = 8_000_000
"""Of one call: twice of what any model of 2026 can read."""
HANDED_BACK_CHARS: Final = 20_000
"""Of an answer that is handed back to be repaired."""


@dataclass(frozen=True, slots=True)
class Persona:
    """What the configuration says of a role, as far as a task needs it."""

    system_prompt: str
    lane: Lane


@dataclass(frozen=True, slots=True)
class Cast:
    """Who may be asked, and how."""

    personas: Mapping[str, Persona]
    addons: Mapping[str, str]
    bounds: Bounds
    expansion_prompt: str = ""
    """Put below the prompt of a task whose answer is to be a workflow."""
    expansion_schema: Mapping[str, JsonValue] | None = None


def task_call(
    run: Run,
    graph: Graph,
    due: Due,
    values: Values,
    cast: Cast,
    category: Category | None,
    handed_back: tuple[str, Sequence[str]] | None = None,
) -> ExecuteCall:
    """Return a task's call, its values put in once. `handed_back`: the answer to repair, and what is wrong with it.

    Raises `Missing` for a value that is not there, `Unfit` for a task that cannot be done with its values.
    """
    node, task = due.node, due.node.task
    assert task.model is not None
    known = _known(graph, due, values, cast.bounds)
    persona = cast.personas[task.model]
    system = system_prompt(persona.system_prompt, task.config.addons, cast.addons)
    if node.task.expand and cast.expansion_prompt:
        system = f"{system}\n\n{cast.expansion_prompt}".strip()
    images: tuple[str, ...] = ()
    if task.input_image:
        images = (substitute(task.input_image, {name: as_text(value) for name, value in known.items()}),)
    prompt = substitute(task.prompt, known)
    if len(prompt) > MOST_PROMPT_CHARS:
        raise Unfit("prompt_too_large", f"the prompt is {len(prompt):,} characters with its values put in")
    messages = [ChatMessage(role="system", content=system)] if system else []
    messages.append(user_message(prompt, images))
    if handed_back is not None:
        answer, wrong = handed_back
        listed = "\n".join(f"- {one}" for one in wrong)
        messages.append(ChatMessage(role="assistant", content=answer[:HANDED_BACK_CHARS]))
        messages.append(
            user_message(f"That answer cannot be used:\n{listed}\nAnswer with the corrected JSON and nothing else.")
        )
    schema = cast.expansion_schema if task.expand else task.output_schema
    return ExecuteCall(
        run=run,
        call=due.name,
        purpose=Purpose.TASK,
        lane=persona.lane,
        role=task.model,
        messages=tuple(messages),
        temperature=task.config.temperature,
        max_tokens=task.config.max_tokens,
        top_p=task.config.top_p,
        response_schema=dict(schema) if schema is not None else None,
        response_schema_name=SCHEMA_NAME if task.expand else "output" if schema is not None else None,
        stream=True,
        timeout_s=task.timeout_s,
        settings=dict(task.config.model_extra or {}),
        cache=task.config.cache,
        category=category,
    )


def _known(graph: Graph, due: Due, values: Values, bounds: Bounds) -> dict[str, JsonValue]:
    """Return what the names of a task's texts stand for. Raises `Missing`, `Unfit`."""
    node, task = due.node, due.node.task
    scope = graph.scopes[node.scope]
    if task.when is not None:
        try:
            holds(task.when, environment(graph, scope, names_in(task.when), values))
        except WrongCondition as error:
            raise Unfit("bad_condition", f"when: {task.when!r} {error}") from error
    own = own_names(task)
    names: list[str] = []
    for text in (task.prompt, task.input_image or ""):
        names += references(text)
        names += heads(text, {**scope.producers, **scope.variables})
    known = environment(graph, scope, (name for name in dict.fromkeys(names) if name not in own), values)
    if task.for_each is not None:
        items = items_of(graph, node, values, bounds.max_fan_out)
        if due.item is not None:
            known[task.for_each.item] = items[due.item]
            known["index"] = due.item
    return known


def question(graph: Graph, node: Node, values: Values) -> str:
    """Return what a person is asked about a task. Raises `Missing`."""
    assert node.task.approve is not None
    asked = node.task.approve.message or (f"May {node.output!r} be done?" if node.task.model else "Go on?")
    return as_text(filled(graph, graph.scopes[node.scope], asked, values))
