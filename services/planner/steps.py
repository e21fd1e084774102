"""The form in which a model writes a plan: numbered steps, each naming the earlier ones that it needs. Pure.

A schema can't say "an earlier task" of a list; of numbered steps it can, by a list of names for each. So a plan that
follows it has no circle, no edge into the future and none to nowhere. What a step needs and doesn't mention in its
prompt is put below the prompt: a plan is as good as its edges, and models forget to write results in.

A step can also need what is there before any step: the request itself, and the conversation before it. A plan need not
copy a contract into six prompts, and what it does not copy is not lost.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import JsonValue

from shared.workflows.problems import Problem
from shared.workflows.substitution import NAME, references

STEP: Final = re.compile(r"step_(\d{1,3})")
REQUEST: Final = "request"
CONVERSATION: Final = "conversation"
LEAST_MATERIAL_CHARS: Final = 1_000
"""A shorter request fits into the prompts of those who work on it: whoever plans has read it."""
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_BRACES: Final = re.compile(r"(?<!\{)(\{++)([^{}]*+)(\}++)")
"""All braces around something: every two pairs of them, from outside, stand for one that is meant as it is written."""


def schema(models: Sequence[str], addons: Sequence[str], most: int, given: Sequence[str] = ()) -> dict[str, JsonValue]:
    """Return the JSON Schema of a plan with up to `most` steps, in the subset that strict structured output takes.

    `given`: what any step may need beside earlier steps, `REQUEST` and `CONVERSATION`.
    """
    definitions: dict[str, JsonValue] = {
        "model": {"type": "string", "enum": [*models]},
        "addons": {"type": "array", "items": {"type": "string", "enum": [*addons]}},
    }
    if not addons:
        definitions["addons"] = {"type": "array", "items": {"type": "string"}, "maxItems": 0}
    properties: dict[str, JsonValue] = {}
    for number in range(1, most + 1):
        step = _step([*given, *(f"step_{earlier}" for earlier in range(1, number))])
        # Strict output wants every property: what is not there is null.
        properties[f"step_{number}"] = step if number == 1 else {"anyOf": [step, {"type": "null"}]}
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
        "$defs": definitions,
    }


def _step(needs: Sequence[str]) -> dict[str, JsonValue]:
    properties: dict[str, JsonValue] = {"name": {"type": "string"}}
    if needs:
        properties["needs"] = {"type": "array", "items": {"type": "string", "enum": [*needs]}}
    properties |= {
        "model": {"$ref": "#/$defs/model"},
        "prompt": {"type": "string"},
        "addons": {"$ref": "#/$defs/addons"},
    }
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def has_steps(document: Mapping[str, Any]) -> bool:
    """Whether a document is written in this form."""
    return any(STEP.fullmatch(key) for key in document)


def to_workflow(
    document: Mapping[str, Any], given: Mapping[str, str] | None = None
) -> dict[str, JsonValue] | tuple[Problem, ...]:
    """Return the workflow document that steps come to (one graph), or what is wrong with how they hang together.

    `given`: the texts that steps may need beside results. Those that are needed become variables of the workflow.
    """
    given = given or {}
    numbers = sorted(int(match[1]) for key in document if (match := STEP.fullmatch(key)))
    steps = [(f"step_{number}", document[f"step_{number}"]) for number in numbers if f"step_{number}" in document]
    steps = [(key, step) for key, step in steps if step is not None]
    if not steps:
        return (Problem("$", "too_short", "there is no step; write at least step_1"),)
    problems: list[Problem] = []
    known = {name: name for name in given}
    """What a step can need, and what that is called in a prompt."""
    tasks: list[dict[str, Any]] = []
    for key, step in steps:
        if not isinstance(step, dict):
            problems.append(Problem(f"$.{key}", "bad_step", f"{key} is not an object"))
            continue
        output = _output(key, step, set(known.values()))
        needed = step.get("needs") or []
        for place, need in enumerate(needed if isinstance(needed, list) else []):
            if need not in known:
                earlier = ", ".join(known) or "none"
                said = f"{key} needs {need!r}, which is no step before it; it can need: {earlier}"
                problems.append(Problem(f"$.{key}.needs[{place}]", "bad_need", said))
        names = [known[need] for need in needed if isinstance(need, str) and need in known]
        prompt = _prompt(str(step.get("prompt") or ""), known)
        missing = [name for name in dict.fromkeys(names) if name not in set(references(prompt))]
        tasks.append(
            {
                "model": step.get("model"),
                "prompt": prompt + "".join(map(_below, missing)),
                "output_variable": output,
                "config": {"addons": step.get("addons") or []},
            }
        )
        known[key] = output
    if problems:
        return tuple(problems)
    _hand_over(tasks, given)
    mentioned = {name for task in tasks for name in references(task["prompt"])}
    variables: dict[str, JsonValue] = {name: text for name, text in given.items() if name in mentioned}
    workflow: dict[str, JsonValue] = {"workflow": [{"type": "graph", "tasks": [*tasks]}]}
    return {**workflow, "variables": variables} if variables else workflow


def _below(name: str) -> str:
    return f"\n\n<{name}>\n{{{name}}}\n</{name}>"


def _hand_over(tasks: Sequence[dict[str, Any]], given: Mapping[str, str]) -> None:
    """Put the request below the prompts of those who begin, where the plan forgot it and can't have copied it."""
    copied = max(LEAST_MATERIAL_CHARS, sum(len(task["prompt"]) for task in tasks))
    mentioned = [references(task["prompt"]) for task in tasks]
    if len(given.get(REQUEST, "")) <= copied or any(set(names) & {*given} for names in mentioned):
        return
    for task, names in zip(tasks, mentioned, strict=True):
        if not names:
            task["prompt"] += _below(REQUEST)


def _output(key: str, step: Mapping[str, Any], taken: set[str]) -> str:
    """Return the name of a step's output: what the model calls it where that is a name, and free."""
    wished = re.sub(r"\W+", "_", str(step.get("name") or step.get("output_variable") or "")).strip("_").lower()[:64]
    name = wished if _NAME.fullmatch(wished) and not STEP.fullmatch(wished) else key
    return name if name not in taken else key


def _prompt(text: str, needs: Mapping[str, str]) -> str:
    """Return a prompt in which only what it can need stands in braces; any other name in braces means itself."""
    known = {**needs, **{name: name for name in needs.values()}}

    def one(match: re.Match[str]) -> str:
        opened, inner, closed = match[1], match[2].strip(), match[3]
        if min(len(opened), len(closed)) % 2 == 0:
            return match[0]
        if inner in known:
            return f"{opened}{known[inner]}{closed}"
        return f"{{{match[0]}}}" if NAME.fullmatch(inner) else match[0]

    return _BRACES.sub(one, text)


def in_steps(problem: Problem, document: Mapping[str, Any]) -> Problem:
    """Return a problem of the workflow as one of the steps that it was made from, so that a model finds its place."""
    match = re.match(r"\$\.workflow\[0\]\.tasks\[(\d+)\]", problem.path)
    if match is None:
        return problem
    keys = [key for key in sorted(document, key=_number) if STEP.fullmatch(key) and document[key] is not None]
    rest = problem.path[match.end() :].replace(".config.addons", ".addons").replace(".output_variable", ".name")
    key = keys[int(match[1])] if int(match[1]) < len(keys) else "step"
    return Problem(f"$.{key}{rest}", problem.code, problem.message)


def _number(key: str) -> int:
    match = STEP.fullmatch(key)
    return int(match[1]) if match else 0


def explained(models: Sequence[str], most: int, given: Sequence[str] = ()) -> str:
    """Return what a model is told about the form, with two short examples."""
    strong, other = models[0], models[-1]
    first: dict[str, Any] = {"needs": []} if given else {}
    side_by_side: dict[str, Any] = {
        "step_1": {
            "name": "first_bike",
            **first,
            "model": other,
            "prompt": "List the range, weight, price and weak points of the Urbanist 4 city e-bike for a commuter.",
            "addons": [],
        },
        "step_2": {
            "name": "second_bike",
            "needs": [],
            "model": other,
            "prompt": "List the range, weight, price and weak points of the Kestrel Go city e-bike for a commuter.",
            "addons": [],
        },
        "step_3": {
            "name": "recommendation",
            "needs": ["step_1", "step_2"],
            "model": strong,
            "prompt": "Compare the two e-bikes below for a commuter who rides 14 km a day; recommend one.",
            "addons": [],
        },
    }
    if REQUEST in given:
        asked = (
            "Summarise the minutes below in ten lines and translate the summary into French. [four pages of minutes]"
        )
        work = {"name": "summary", "needs": [REQUEST], "prompt": "Summarise the minutes in the request in ten lines."}
        after = {"name": "translation", "prompt": "Translate the summary below into French; keep its ten lines."}
    else:
        asked = "Write a poem about rain and translate it into French"
        work = {"name": "poem", "prompt": "Write a poem of eight lines about rain."}
        after = {"name": "translation", "prompt": "Translate the poem below into French; keep its rhymes."}
    one_after_the_other: dict[str, Any] = {
        "step_1": {**work, "model": strong, "addons": []},
        "step_2": {**after, "needs": ["step_1"], "model": strong, "addons": []},
    }
    for plan in (side_by_side, one_after_the_other):
        plan.update(dict.fromkeys(f"step_{number}" for number in range(len(plan) + 1, most + 1)))
    return (
        f"Write the plan as one JSON object with step_1, step_2, … (at most step_{most}). A step has a short `name` "
        "for its result, `needs` (the earlier steps whose results it works with; steps that need nothing "
        "from each other run at the same time), a `model`, a `prompt` and `addons`. What a step needs "
        f"is put below its prompt, each under its name: refer to it, do not repeat it. {_explained(given)}Use as few "
        "steps as the request needs; every step after the last is null.\n\n"
        f'Example, for "Compare the Urbanist 4 and the Kestrel Go, then recommend one":\n{json.dumps(side_by_side)}\n\n'
        f'Example, for "{asked}":\n{json.dumps(one_after_the_other)}'
    )


def _explained(given: Sequence[str]) -> str:
    """Return what is said of needs that are no steps."""
    told = ""
    if REQUEST in given:
        told += (
            f'A step also names "{REQUEST}" among its needs if it works on something that the request brings along (a '
            "text, code, data, exact rules for the form of the answer): it then gets the whole request. "
        )
    if CONVERSATION in given:
        told += f'One that works on what was said before the request names "{CONVERSATION}". '
    return told
