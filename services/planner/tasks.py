"""The call that a task becomes once its values are known. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from services.planner.advance import Step
from shared.contracts.commands import ExecuteCall
from shared.contracts.ids import Category, Lane, Purpose
from shared.contracts.message import ChatMessage, Run
from shared.conversation import system_prompt, user_message
from shared.workflows.substitution import as_text, references, substitute


@dataclass(frozen=True, slots=True)
class Persona:
    """What the configuration says of a role, as far as a task needs it."""

    system_prompt: str
    lane: Lane


def names_needed(step: Step) -> tuple[str, ...]:
    """Return the names whose values a task's prompt and image need."""
    return tuple(dict.fromkeys((*references(step.task.prompt), *references(step.task.input_image or ""))))


def task_call(
    run: Run,
    step: Step,
    values: Mapping[str, JsonValue],
    persona: Persona,
    addons: Mapping[str, str],
    category: Category | None,
) -> ExecuteCall:
    """Return a task's call, its values put in once."""
    task = step.task
    system = system_prompt(persona.system_prompt, task.config.addons, addons)
    images = (
        (substitute(task.input_image, {name: as_text(value) for name, value in values.items()}),)
        if task.input_image
        else ()
    )
    message = user_message(substitute(task.prompt, values), images)
    return ExecuteCall(
        run=run,
        call=step.name,
        purpose=Purpose.TASK,
        lane=persona.lane,
        role=task.model,
        messages=(ChatMessage(role="system", content=system), message) if system else (message,),
        temperature=task.config.temperature,
        max_tokens=task.config.max_tokens,
        top_p=task.config.top_p,
        stream=True,
        category=category,
    )
