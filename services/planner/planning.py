"""What the master AI is asked for, and how its answer is read. Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from pydantic import JsonValue

from services.planner import steps
from shared.contracts.commands import ExecuteCall, Spent
from shared.contracts.ids import Category, Lane, Purpose
from shared.contracts.message import ChatMessage, Run
from shared.conversation import dialogue, fitting, user_message
from shared.workflows.validation import Catalogue, Invalid, Problem, Valid, validate

ACKNOWLEDGE: Final = "acknowledge"
ANSWER: Final = "answer"
SCHEMA_NAME: Final = "segue_workflow"
MAX_REPAIRS: Final = 2
MAX_PLANNED_TASKS: Final = 12
HISTORY_TOKENS: Final = 2_000
MATERIAL_TOKENS: Final = 16_000
"""Of what was said before, for a step that needs it: the latest."""
PLAN_TOKENS: Final = 4_000
MOST_BRACES_TRIED: Final = 50
"""For the beginning of a plan in a model's answer: prose before it may have some too."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a plan may use: roles with their purpose, addons, and the names of its `material`."""

    purposes: Mapping[str, str]
    addons: tuple[str, ...]
    given: tuple[str, ...] = ()

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue(frozenset(self.purposes), frozenset(self.addons), MAX_PLANNED_TASKS)


def schema(offer: Offer) -> dict[str, JsonValue]:
    """Return the JSON Schema of a plan: see `steps`."""
    return steps.schema(sorted(offer.purposes), offer.addons, MAX_PLANNED_TASKS, offer.given)


def material(request: str, history: Sequence[ChatMessage]) -> dict[str, str]:
    """Return what the steps of a plan may need beside each other's results, by name: the request, what came before."""
    told = fitting(history, MATERIAL_TOKENS)
    if not told:
        return {steps.REQUEST: request}
    return {steps.REQUEST: request, steps.CONVERSATION: dialogue(told)}


def opening(
    base_prompt: str, offer: Offer, history: Sequence[ChatMessage], message: ChatMessage
) -> tuple[ChatMessage, ...]:
    """Return the conversation that asks for a plan."""
    roles = "\n".join(f"- {role}: {purpose}" for role, purpose in sorted(offer.purposes.items()))
    limits = f"At most {MAX_PLANNED_TASKS} steps. Answer with the JSON of the plan and nothing else."
    form = steps.explained(_examples(offer), MAX_PLANNED_TASKS, offer.given)
    system = (
        f"{base_prompt}\n\n{form}\n\nModels you may use:\n{roles}\n\n"
        f"Addons you may name: {', '.join(offer.addons) or 'none'}\n\n{limits}"
    )
    return (ChatMessage(role="system", content=system), *fitting(history, HISTORY_TOKENS), message)


def _examples(offer: Offer) -> list[str]:
    """Return the roles that the examples name: the strongest that is offered first, then another."""
    known = [role for role in ("thinking_ai", "medium_ai", "fast_ai") if role in offer.purposes]
    return known[:2] or sorted(offer.purposes)


def repair(asked: Sequence[ChatMessage], answer: str, problems: Sequence[Problem]) -> tuple[ChatMessage, ...]:
    """Return the conversation that hands a plan back with its errors."""
    listed = "\n".join(f"- {problem.path}: {problem.message}" for problem in problems[:20])
    return (
        *asked,
        ChatMessage(role="assistant", content=answer[:20_000]),
        user_message(f"That plan cannot run:\n{listed}\nAnswer with the corrected JSON and nothing else."),
    )


def plan_call(
    run: Run, role: str, messages: tuple[ChatMessage, ...], offer: Offer, attempt: int, spent: Spent
) -> ExecuteCall:
    """Return the call that asks for a plan, the first or a repaired one."""
    return ExecuteCall(
        run=run,
        call=f"plan-{attempt}",
        purpose=Purpose.DECISION,
        lane=Lane.TEXT,
        role=role,
        messages=messages,
        max_tokens=PLAN_TOKENS,
        response_schema=schema(offer),
        response_schema_name=SCHEMA_NAME,
        category=Category.H,
        spent=spent,
    )


def read_plan(text: str, catalogue: Catalogue, given: Mapping[str, str] | None = None) -> Valid | Invalid:
    """Return the workflow that a model wrote, in steps or as queues, or every problem with it. Prose is ignored.

    `given`: the `material` that its steps may need.
    """
    document = _document_in(text)
    if isinstance(document, Problem):
        return Invalid((document,))
    if not steps.has_steps(document):
        return validate(document, catalogue)
    workflow = steps.to_workflow(document, given)
    if isinstance(workflow, tuple):
        return Invalid(workflow)
    checked = validate(workflow, catalogue)
    if isinstance(checked, Valid):
        return checked
    return Invalid(tuple(steps.in_steps(problem, document) for problem in checked.problems))


def _document_in(text: str) -> dict[str, JsonValue] | Problem:
    """Return the first JSON object in a text that has a plan, or why there is none: what was understood longest."""
    decoder = json.JSONDecoder()
    other: dict[str, JsonValue] | None = None
    furthest, trouble = -1, "the answer contains no JSON object"
    for brace in islice(re.finditer(r"\{", text), MOST_BRACES_TRIED):
        try:
            found, _ = decoder.raw_decode(text, brace.start())
        except json.JSONDecodeError as error:
            if error.pos > furthest:
                furthest, trouble = error.pos, f"the answer is not valid JSON: {error}"
        except RecursionError:
            return Problem("$", "not_json", "the answer is not valid JSON: values within values, too deep to read")
        else:
            if "workflow" in found or steps.has_steps(found):
                return dict(found)
            other = found if other is None else other
    return other if other is not None and furthest < 0 else Problem("$", "not_json", trouble)
