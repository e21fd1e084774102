"""The workflow that the simulated master AI writes for a request. Pure.

Research first where there is something to find out, then what is asked for side by side, then one task that joins it.
Roles and addons are taken from the schema's enums, else from the names that the system prompt mentions.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from simulator.chat_request import ChatRequest
from simulator.demands import Demands, demands_of
from simulator.schemas import fitted, resolved
from simulator.vocabulary import Deliverable

BrokenPlan = Literal["broken_json", "unknown_model", "undefined_variable"]

MOST_DELIVERABLES: Final = 3
TOPIC_CHARS: Final = 240

_ROLE: Final = re.compile(r"\b(?:[a-z0-9]+_)+ai\b|\bimage_model\b|\bimagen_4_ultra\b|\bveo_3_1\b")
_NOT_FOR_TASKS: Final = frozenset(
    {"categorizer_ai", "thinking_fast_response_ai", "finished_task_ai", "ai_workers_failed_ai", "sub_master_ai"}
)
_RESEARCHERS: Final = ("thinking_ai", "medium_ai", "fast_ai")
_WRITERS: Final = ("medium_ai", "fast_ai", "thinking_ai")


@dataclass(frozen=True, slots=True)
class Means:
    """What a plan may use. `addons` None: none are known, so none are named."""

    roles: tuple[str, ...]
    addons: frozenset[str]
    queues: tuple[str, ...]

    def role(self, wanted: Sequence[str]) -> str:
        """Return the first wanted role that may be used, else the first that may be used at all."""
        return next((role for role in wanted if role in self.roles), self.roles[0])


@dataclass(frozen=True, slots=True)
class Step:
    output: str
    prompt: str
    role: str
    addons: tuple[str, ...] = ()
    temperature: float = 0.7
    max_tokens: int = 1_000

    def as_task(self) -> dict[str, Any]:
        config = {"temperature": self.temperature, "max_tokens": self.max_tokens, "addons": list(self.addons)}
        return {"model": self.role, "prompt": self.prompt, "output_variable": self.output, "config": config}


def plan(request: ChatRequest, broken: BrokenPlan | None = None) -> str:
    """Return the plan's JSON; `broken` makes it wrong in that way."""
    schema = request.schema or {}
    document: Any = workflow(wanted_of(request), means_of(schema, request.system), _takes_variables(schema))
    in_steps = "step_1" in (schema.get("properties") or {})
    if in_steps:
        document = {**dict.fromkeys(schema["properties"]), **_in_steps(document)}
        if len(wanted_of(request)) > TOPIC_CHARS and "request" in _enum(schema, "needs", schema):
            document["step_1"]["needs"] = ["request"]  # its topic is not the whole of it
    if schema:
        document = fitted(document, schema, schema, "")
    first = document["step_1"] if in_steps else document["workflow"][0]["tasks"][0]
    if broken == "unknown_model":
        first["model"] = "galactic_ai"
    elif broken == "undefined_variable" and in_steps:
        first["needs"] = ["step_99"]
    elif broken == "undefined_variable":
        first["prompt"] += " Use {what_nobody_wrote}."
    text = json.dumps(document, ensure_ascii=False)
    return text[: len(text) * 2 // 3] if broken == "broken_json" else text


def _in_steps(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a workflow as numbered steps, each naming the earlier ones whose results its prompt mentions."""
    tasks = [task for queue in document["workflow"] for task in queue["tasks"]]
    keys = {task["output_variable"]: f"step_{number}" for number, task in enumerate(tasks, 1)}
    found: dict[str, Any] = {}
    for name, key in keys.items():
        task = next(one for one in tasks if one["output_variable"] == name)
        mentioned = [keys[other] for other in keys if other != name and f"{{{other}}}" in task["prompt"]]
        found[key] = {
            "name": name,
            "needs": mentioned,
            "model": task["model"],
            "prompt": task["prompt"],
            "addons": task["config"]["addons"],
        }
    return found


def wanted_of(request: ChatRequest) -> str:
    """Return what the plan is for: when a plan came back to be repaired, the message before that."""
    handed_back = (request.before_assistant or "").lstrip().startswith(("{", "```"))
    return request.before_user if handed_back and request.before_user is not None else request.text


def means_of(schema: Mapping[str, Any], system: str) -> Means:
    """Return the roles, addons and queue types that may be used."""
    roles = _enum(schema, "model", schema) or tuple(dict.fromkeys(_ROLE.findall(system)))
    for_tasks = tuple(role for role in roles if role not in _NOT_FOR_TASKS)
    queues = tuple(one for one in _enum(schema, "type", schema) if one in ("linear", "inline"))
    return Means(
        for_tasks or roles or ("medium_ai",), frozenset(_enum(schema, "addons", schema)), queues or ("linear", "inline")
    )


def _enum(schema: Any, name: str, root: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the strings that the first property called `name` may be, or its items."""
    if isinstance(schema, list):
        return next((found for one in schema if (found := _enum(one, name, root))), ())
    if not isinstance(schema, Mapping):
        return ()
    properties = schema.get("properties")
    if isinstance(properties, Mapping) and isinstance(properties.get(name), Mapping):
        wanted = resolved(properties[name], root)
        values = wanted.get("enum") or (wanted.get("items") or {}).get("enum") or ()
        found = tuple(value for value in values if isinstance(value, str))
        if found:
            return found
    return next((found for one in schema.values() if (found := _enum(one, name, root))), ())


def _takes_variables(schema: Mapping[str, Any]) -> bool:
    """Return whether a plan may carry free variables."""
    if not schema:
        return True
    variables = (resolved(schema, schema).get("properties") or {}).get("variables")
    return isinstance(variables, Mapping) and variables.get("additionalProperties") is not False


def workflow(request: str, means: Means, variables: bool) -> dict[str, Any]:
    """Return a workflow of two to five tasks for a request."""
    demands = demands_of(request)
    topic = " ".join(request.split())
    topic = topic if len(topic) <= TOPIC_CHARS else f"{topic[:TOPIC_CHARS].rsplit(' ', 1)[0]} …"
    about = "{topic}" if variables else topic.replace("{", "{{").replace("}", "}}")
    first = _first(demands, about, means)
    made = _made(demands, about, first.output, means)
    queues = [_queue([first], means), _queue(made, means)]
    if len(made) > 1 or demands.sequenced:
        queues.append(_queue([_joining(about, [step.output for step in made], means)], means))
    document: dict[str, Any] = {"workflow": queues}
    if variables:
        document["variables"] = {"topic": topic}
    return document


def _queue(steps: Sequence[Step], means: Means) -> dict[str, Any]:
    wanted = "linear" if len(steps) > 1 else "inline"
    kind = wanted if wanted in means.queues else means.queues[0]
    return {"type": kind, "tasks": [step.as_task() for step in steps]}


def _first(demands: Demands, about: str, means: Means) -> Step:
    if demands.code:
        prompt = f"Decide on the architecture for this and list its parts and interfaces: {about}"
        return Step("architecture", prompt, means.role(("thinking_ai", "code_ai")), temperature=0.4)
    prompt = f"Research what is needed for this request and list facts, figures and open questions: {about}"
    addons = _addons(("executive_summary",), means)
    return Step("research", prompt, means.role(_RESEARCHERS), addons, temperature=0.3)


def _made(demands: Demands, about: str, first: str, means: Means) -> list[Step]:
    things = [thing for thing in demands.deliverables if thing.key not in (first, "summary")][:MOST_DELIVERABLES]
    if demands.code and not any(thing.key in ("tests", "documentation") for thing in things):
        things.insert(0, Deliverable("implementation", "the implementation", ("code_ai", "thinking_ai")))
    if not things:
        verbs = [verb for verb in demands.actions if verb != "research"]
        title = f"what is asked for ({', '.join(verbs[:4])})" if verbs else "the answer"
        things = [Deliverable("draft", title, _WRITERS)]
    return [_making(thing, about, first, means) for thing in things[:MOST_DELIVERABLES]]


def _making(thing: Deliverable, about: str, first: str, means: Means) -> Step:
    name = thing.key
    prompt = f"Make {thing.title} for this request: {about}\nBuild on this {first}: {{{first}}}"
    return Step(name, prompt, means.role(thing.roles), _addons(thing.addons, means))


def _joining(about: str, outputs: Sequence[str], means: Means) -> Step:
    listed = "\n".join(f"{name.replace('_', ' ')}: {{{name}}}" for name in outputs)
    prompt = f"Check these results against the request, improve what is weak and join them.\nRequest: {about}\n{listed}"
    return Step("result", prompt, means.role(_WRITERS), max_tokens=1_500)


def _addons(wanted: Sequence[str], means: Means) -> tuple[str, ...]:
    return tuple(addon for addon in wanted if addon in means.addons)
