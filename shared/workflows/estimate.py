"""What a workflow will probably take: time, tokens and money, and the path through it that takes longest. Pure.

Times and lengths of answers come from `Figures` by role: what calls of that role took lately, else an assumption that
says so. What nobody can know before (an answer's length, a list that a model writes) is assumed and named.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Final, Literal

from pydantic import JsonValue

from shared.workflows.graph import Graph, Kind, Node, Scope, texts_of
from shared.workflows.substitution import NAME, references, whole

CHARS_PER_TOKEN: Final = 4
ASSUMED_ITEMS: Final = 5
"""Of a `for_each` whose list a model writes."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one call of a role takes."""

    model: str
    seconds: float
    answer_tokens: int
    instruction_tokens: int = 0
    """What comes before the task's own prompt."""
    usd_per_input_token: float | None = None
    usd_per_output_token: float | None = None
    """None: nobody knows the price."""
    basis: Literal["measured", "assumed"] = "assumed"
    """Whether seconds and tokens come from this system's own calls."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one task will probably take."""

    output: str
    role: str | None
    starts_s: float
    seconds: float
    calls: int
    tokens: int
    cost_usd: float
    cost_known: bool


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a workflow will probably take. `path`: outputs of the longest chain of tasks that wait for each other."""

    seconds: float
    cost_usd: float
    cost_known: bool
    calls: int
    tokens: int
    path: tuple[str, ...]
    tasks: tuple[Part, ...]
    notes: tuple[str, ...]
    basis: Literal["measured", "assumed"]


@dataclass(slots=True)
class _Scale:
    """What a task, or a scope, comes to."""

    seconds: float = 0.0
    calls: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    known: bool = True
    answer_tokens: int = 0
    path: tuple[str, ...] = ()


@dataclass(slots=True)
class _Estimator:
    graph: Graph
    figures: Mapping[str, Figures]
    notes: dict[str, None] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    assumed: bool = False

    def scope(self, scope: Scope, given: Mapping[str, int], *, listed: bool) -> _Scale:
        """Return what a scope's tasks come to together; `given`: tokens of the names that are known in it."""
        ends: dict[str, float] = {}
        paths: dict[str, tuple[str, ...]] = {}
        sizes = {**given, **{name: _tokens(value) for name, value in scope.variables.items()}}
        total = _Scale()
        for node in _in_order(scope):
            before = [one.name for one in scope.nodes[: node.barrier]] + list(node.needs)
            starts = max((ends.get(one, 0.0) for one in before), default=0.0)
            latest = max(before, key=lambda one: ends.get(one, 0.0), default=None)
            own = self.task(node, scope, sizes)
            ends[node.name] = starts + own.seconds
            paths[node.name] = (*(paths.get(latest, ()) if latest is not None else ()), node.output)
            sizes[node.output] = own.answer_tokens
            total.calls += own.calls
            total.tokens += own.tokens
            total.cost_usd += own.cost_usd
            total.known &= own.known
            total.answer_tokens = own.answer_tokens
            if listed:
                self.parts.append(
                    Part(
                        node.output, node.task.model, round(starts, 3), round(own.seconds, 3), own.calls, own.tokens,
                        own.cost_usd, own.known,
                    )
                )  # fmt: skip
        last = max(ends, key=lambda one: ends[one])
        total.seconds, total.path = ends[last], paths[last]
        return total

    def task(self, node: Node, scope: Scope, sizes: Mapping[str, int]) -> _Scale:
        task = node.task
        if task.when is not None:
            self.notes[f"{node.output} is done only if {task.when}; counted as if it were"] = None
        if task.approve is not None:
            self.notes[f"{node.output} waits for a person; that time is not counted"] = None
        match node.kind:
            case Kind.APPROVAL:
                return _Scale()
            case Kind.GROUP:
                return self.scope(self.graph.scopes[node.name], {}, listed=False)
            case Kind.EXPANSION:
                self.notes[f"{node.output} writes a workflow of its own; only the writing is counted"] = None
        call = self.call(node, sizes)
        if task.for_each is None:
            return call
        items = self.items(node, scope)
        rounds = ceil(items / min(items, task.for_each.concurrency or items)) if items else 0
        return _Scale(
            call.seconds * rounds, call.calls * items, call.tokens * items, call.cost_usd * items, call.known,
            call.answer_tokens * items,
        )  # fmt: skip

    def items(self, node: Node, scope: Scope) -> int:
        assert node.task.for_each is not None
        name = whole(node.task.for_each.items)
        value = scope.variables.get(name) if name is not None and NAME.fullmatch(name) else None
        if isinstance(value, list):
            return len(value)
        self.notes[f"{node.output}: a list of {ASSUMED_ITEMS} is assumed"] = None
        return ASSUMED_ITEMS

    def call(self, node: Node, sizes: Mapping[str, int]) -> _Scale:
        task = node.task
        figures = self.figures.get(task.model or "")
        if figures is None:
            return _Scale(known=False, calls=1)
        self.assumed |= figures.basis == "assumed"
        prompt = figures.instruction_tokens + sum(_tokens(text) for text in texts_of(task))
        prompt += sum(sizes.get(name, 0) for text in texts_of(task) for name in references(text))
        answer = figures.answer_tokens
        if task.config.max_tokens is not None:
            answer = min(answer, task.config.max_tokens)
        price_in, price_out = figures.usd_per_input_token, figures.usd_per_output_token
        known = price_in is not None and price_out is not None
        if not known:
            self.notes[f"the price of {figures.model} is not known; it is not in the sum"] = None
        cost = prompt * (price_in or 0.0) + answer * (price_out or 0.0)
        seconds = figures.seconds * (answer / figures.answer_tokens if figures.answer_tokens else 1.0)
        return _Scale(seconds, 1, prompt + answer, cost, known, answer)


def estimate(graph: Graph, figures: Mapping[str, Figures]) -> Estimate:
    """Return what a workflow will probably take, with figures for every role that it names."""
    found = _Estimator(graph, figures)
    total = found.scope(graph.root, {}, listed=True)
    return Estimate(
        seconds=round(total.seconds, 3),
        cost_usd=total.cost_usd,
        cost_known=total.known,
        calls=total.calls,
        tokens=total.tokens,
        path=total.path,
        tasks=tuple(found.parts),
        notes=tuple(found.notes),
        basis="assumed" if found.assumed else "measured",
    )


def _in_order(scope: Scope) -> Sequence[Node]:
    """Return a scope's tasks so that each comes after what it waits for: a graph's may be written in any order."""
    done: set[str] = set()
    left, ordered = list(scope.nodes), list[Node]()
    while left:
        ready = [
            node
            for node in left
            if all(one.name in done for one in scope.nodes[: node.barrier]) and all(one in done for one in node.needs)
        ]
        ordered += ready
        done |= {node.name for node in ready}
        left = [node for node in left if node.name not in done]
        if not ready:
            break  # a circle, which no valid workflow has
    return ordered + left


def _tokens(value: JsonValue) -> int:
    return ceil(len(value if isinstance(value, str) else str(value)) / CHARS_PER_TOKEN)
