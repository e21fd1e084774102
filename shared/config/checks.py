"""What no single section can tell: that the roles, addons and names which sections use are there.

These run on the file as read by `shared.config.keys`, not on validated models, so that a file with a wrong value in
one place still has every other problem listed.
"""

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Final

from pydantic import JsonValue, ValidationError

from shared.config.errors import json_path
from shared.config.flow import RequestFlow
from shared.config.keys import Location, Notes
from shared.config.roles import BUILT_IN, DEFAULT_VARIANT
from shared.config.templates import Template
from shared.contracts.workflow import Workflow
from shared.workflows.validation import Catalogue, Invalid, validate

PLANNING: Final = "master_ai"
"""A name among `base_ai_prompts` that is no role: what the planning role is told when it plans."""

ACKNOWLEDGING: Final = "thinking_fast_response_ai"
"""The role that acknowledges an orchestrated request when `categorization.H` names none."""

LIMITED: Final = ("openrouter", "google_ai", "openai_compatible", "simulator")
"""What `rate_limiting` can name."""

NEEDED: Final = {
    "categorizer_ai": "it asks for the category of every request",
    "finished_task_ai": "it presents the result of a workflow",
    "ai_workers_failed_ai": "it explains a failure",
}
"""Roles that services ask by name."""

_DEFAULT_FLOW: Final[JsonValue] = RequestFlow().model_dump(mode="json")


def at(document: JsonValue, location: Location) -> JsonValue:
    """Return what is at a place of a document, None when there is nothing."""
    for part in location:
        match document, part:
            case dict(), str():
                document = document.get(part)
            case list(), int() if part < len(document):
                document = document[part]
            case _:
                return None
    return document


def check(document: dict[str, JsonValue], notes: Notes) -> None:
    """Note every problem between the sections. Addons that templates name and nobody defined are taken out."""
    models = document.get("ai_models")
    if not isinstance(models, dict):
        return
    _needed(models, notes)
    _providers(document, models, notes)
    for location, value in _references(document):
        _is_role(location, value, models, notes)
    _fallbacks(document, models, notes)
    _prompts(document, models, notes)
    _limits(document, notes)
    addons = document.get("prompt_addons")
    known = frozenset(addons) if isinstance(addons, dict) else frozenset()
    templates = document.get("workflow_templates")
    if isinstance(templates, dict):
        catalogue = Catalogue(frozenset(models), known, templates=dict(_readable(templates)))
        for name, template in templates.items():
            if isinstance(template, dict):
                _template(name, template, catalogue, notes)


def _readable(templates: Mapping[str, JsonValue]) -> Iterator[tuple[str, Template]]:
    """Yield the templates that have their shape: what others' tasks may stand for."""
    for name, document in templates.items():
        with contextlib.suppress(ValidationError):
            yield name, Template.read(document)


def _needed(models: Mapping[str, JsonValue], notes: Notes) -> None:
    for role, why in NEEDED.items():
        if role not in models:
            notes.refuse(("ai_models", role), None, f"this role: {why}")


def _providers(document: JsonValue, models: Mapping[str, JsonValue], notes: Notes) -> None:
    own = at(document, ("providers",))
    known = (*BUILT_IN, *(own if isinstance(own, dict) else ()))
    for role, model in models.items():
        provider = at(model, ("provider",))
        if isinstance(provider, str) and provider not in known:
            notes.refuse(("ai_models", role, "provider"), provider, f"a provider{hint(provider, known)}")
        variants = at(model, ("variants",))
        for name, variant in variants.items() if isinstance(variants, dict) else ():
            provider = at(variant, ("provider",))
            if isinstance(provider, str) and provider not in known:
                here = ("ai_models", role, "variants", name, "provider")
                notes.refuse(here, provider, f"a provider{hint(provider, known)}")
            if name == DEFAULT_VARIANT:
                notes.refuse(("ai_models", role, "variants", name), name, "another name: it is the role's own model")
    for name in own if isinstance(own, dict) else ():
        if name in BUILT_IN or name == "simulator":
            notes.refuse(("providers", name), name, "another name: this provider is built in")


def _references(document: JsonValue) -> Iterator[tuple[Location, JsonValue]]:
    """Yield every place where `request_flow` names a role, or its default does, with the name."""
    flow = at(document, ("request_flow",))
    if at(flow, ("warmup", "enabled")) is not False:
        models = _or_default(flow, ("warmup", "models"))
        for index, one in enumerate(models if isinstance(models, list) else ()):
            yield ("request_flow", "warmup", "models", index), one
    single: list[Location] = [("context_limits", "long_context_model")]
    if at(flow, ("image_detection", "enabled")) is not False:
        single.append(("image_detection", "force_model"))
    for location in single:
        yield ("request_flow", *location), _or_default(flow, location)
    rules = _or_default(flow, ("categorization",))
    for letter, rule in rules.items() if isinstance(rules, dict) else ():
        here: Location = ("request_flow", "categorization", letter)
        yield (*here, "model"), at(rule, ("model",))
        fast = at(rule, ("fast_response_model",))
        if fast is not None or letter == "H":
            yield (*here, "fast_response_model"), fast or ACKNOWLEDGING


def _or_default(flow: JsonValue, location: Location) -> JsonValue:
    found = at(flow, location)
    return at(_DEFAULT_FLOW, location) if found is None else found


def _is_role(location: Location, value: JsonValue, models: Collection[str], notes: Notes) -> bool:
    if not isinstance(value, str):
        return False  # of the wrong type, which validation says
    if value not in models:
        notes.refuse(location, value, f"a role of ai_models{hint(value, models)}")
        return False
    return True


def hint(name: str, known: Collection[str]) -> str:
    """Return what a name may have meant, and what there is."""
    close = get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else f": {', '.join(known)}"


def _fallbacks(document: JsonValue, models: Mapping[str, JsonValue], notes: Notes) -> None:
    fallbacks = at(document, ("model_fallbacks",))
    if not isinstance(fallbacks, dict):
        return
    for role, chain in fallbacks.items():
        here: Location = ("model_fallbacks", role)
        if role not in models:
            notes.refuse(here, role, f"a role of ai_models{hint(role, models)}")
        if not isinstance(chain, list):
            continue
        for index, other in enumerate(chain):
            if not _is_role((*here, index), other, models, notes):
                continue
            if other == role:
                notes.refuse((*here, index), other, "another role: a role cannot stand in for itself")
            elif other in chain[:index]:
                notes.refuse((*here, index), other, "each role once in a chain")


def _limits(document: JsonValue, notes: Notes) -> None:
    limits = at(document, ("rate_limiting",))
    own = at(document, ("providers",))
    known = (*LIMITED, *(own if isinstance(own, dict) else ()))
    for provider, limit in limits.items() if isinstance(limits, dict) else ():
        here: Location = ("rate_limiting", provider)
        if provider not in known:
            notes.warn(here, f"no provider{hint(provider, known)}; the limit is not used")
        algorithm = at(limit, ("algorithm",))
        if isinstance(algorithm, str) and algorithm != "sliding_window":
            notes.warn((*here, "algorithm"), f"{algorithm!r} is not used: requests are counted in sliding windows")


def _prompts(document: JsonValue, models: Mapping[str, JsonValue], notes: Notes) -> None:
    prompts = at(document, ("base_ai_prompts",))
    for role in prompts if isinstance(prompts, dict) else ():
        if role not in models and role != PLANNING:
            notes.warn(("base_ai_prompts", role), f"no role of ai_models{hint(role, models)}; the prompt is not used")


def _template(name: str, template: dict[str, JsonValue], catalogue: Catalogue, notes: Notes) -> None:
    here: Location = ("workflow_templates", name)
    variables = template.get("variables")
    names: dict[str, JsonValue] = dict.fromkeys(variables, "") if isinstance(variables, dict) else {}
    _addons(here, template.get("workflow"), catalogue, notes)
    document: JsonValue = {"workflow": template.get("workflow"), "variables": names}
    try:
        Workflow.model_validate(document)
    except ValidationError:
        return  # its shape is wrong, which validation of the whole file says
    checked = validate(document, catalogue)
    for problem in checked.problems if isinstance(checked, Invalid) else ():
        place = location_of(problem.path)
        value = at(template, place)
        if problem.code == "unknown_model":
            _is_role((*here, *place), value, catalogue.models, notes)
        else:
            message = problem.message.replace("$.workflow", f"{json_path(here)}.workflow")
            notes.refuse((*here, *place), value, f"a workflow that can run: {message}")


def _addons(here: Location, workflow: JsonValue, catalogue: Catalogue, notes: Notes) -> None:
    """Take addons that nobody defined out of the tasks, with a warning."""
    for q, queue in enumerate(workflow if isinstance(workflow, list) else ()):
        tasks = at(queue, ("tasks",))
        for t, task in enumerate(tasks if isinstance(tasks, list) else ()):
            config = at(task, ("config",))
            addons = at(config, ("addons",))
            if not isinstance(config, dict) or not isinstance(addons, list):
                continue
            place: Location = (*here, "workflow", q, "tasks", t, "config", "addons")
            for index, addon in enumerate(addons):
                if isinstance(addon, str) and addon not in catalogue.addons:
                    close = get_close_matches(addon, catalogue.addons, n=1)
                    meant = f"; did you mean {close[0]!r}?" if close else ""
                    notes.warn((*place, index), f"unknown addon {addon!r}, left out{meant}")
            config["addons"] = [one for one in addons if not isinstance(one, str) or one in catalogue.addons]


_PIECE: Final = re.compile(r"\[(\d+)\]|\['((?:[^'\\]|\\.)*)'\]|\.([^.\[]+)", re.DOTALL)


def location_of(path: str) -> Location:
    """Return the JSON path of a validator (`$.workflow[0].tasks[1].model`, `$.variables['a b']`) as a location."""
    parts: list[int | str] = []
    for match in _PIECE.finditer(path):
        index, quoted, plain = match.groups()
        if index is not None:
            parts.append(int(index))
        else:
            parts.append(plain if plain is not None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL))
    return tuple(parts)
