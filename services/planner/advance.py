"""How a workflow goes on. Pure: what is started follows from the plan and from what is settled, nothing else.

The state is a letter a task (`shared.workflows.outputs.State`). `settle` and `hold` take in what has happened, `flow`
starts what may start now, `dues` says which calls and questions should be out. Taking in a thing again changes nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from shared.contracts.events import Progress
from shared.workflows.conditions import WrongCondition, holds, names_in
from shared.workflows.graph import REPAIR, Graph, Kind, Node, Scope, located
from shared.workflows.outputs import OVER, State, Unfit, Values, environment, items_of

RUNNING = frozenset("sre")


class NoSuchTask(ValueError):
    """A settled call names a task that the plan does not have."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the plan has no task {name!r}")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What of the configuration bounds a run."""

    max_fan_out: int = 1_000
    max_cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a settled call came to, as far as the workflow goes on from it."""

    call: str
    answered: bool
    fits: bool = True
    """The answer is of the shape that was asked for: of its schema, or a workflow that can run."""
    cost_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Due:
    """A call, or a question to a person, that should be out."""

    node: Node
    item: int | None = None
    repair: bool = False
    question: bool = False

    @property
    def name(self) -> str:
        """The call's."""
        base = self.node.name if self.item is None else self.node.item(self.item)
        return base + REPAIR if self.repair else base


class _Draft:
    """A state that is being changed."""

    def __init__(self, graph: Graph, progress: Progress) -> None:
        self.graph = graph
        self.states = dict(progress.states)
        self.fans = dict(progress.fans)

    def state(self, node: Node) -> str:
        return self.states.get(node.name, State.WAITING)

    def fail(self, node: Node) -> None:
        self.states[node.name] = failed_as(node)

    def frozen(self, progress: Progress, **changed: object) -> Progress:
        if self.states == progress.states and self.fans == progress.fans and not changed:
            return progress
        return progress.model_copy(update={"states": self.states, "fans": self.fans, **changed})


def failed_as(node: Node) -> State:
    """Return the state of a task, or an item, that has failed."""
    match node.task.on_error:
        case "fail":
            return State.FAILED
        case "continue":
            return State.CONTINUED
        case "substitute":
            return State.SUBSTITUTED


def settle(graph: Graph, progress: Progress, outcome: Outcome) -> Progress:
    """Return the state after a call is settled. Taking it in again changes nothing, whatever it says."""
    place = located(graph, outcome.call)
    if place is None:
        raise NoSuchTask(outcome.call)
    node, draft = place.node, _Draft(graph, progress)
    before = draft.state(node) if place.item is None else _letter(draft, node, place.item)
    expected = State.REPAIRING if place.repair else State.STARTED
    decided = before == State.ASKED and place.item is None and not place.repair
    if (before != expected and not decided) or _closed(draft, node):
        return progress
    if outcome.answered and not outcome.fits and not place.repair:
        after: str = State.REPAIRING
    elif not outcome.answered or not outcome.fits:
        after = failed_as(node)
    elif node.kind is Kind.EXPANSION:
        after = State.EXPANDED
    else:
        after = State.REPAIRED if place.repair else State.DONE
    if place.item is None:
        draft.states[node.name] = after
    else:
        letters = draft.fans[node.name]
        draft.fans[node.name] = letters[: place.item] + after + letters[place.item + 1 :]
    return draft.frozen(progress, cost_usd=progress.cost_usd + outcome.cost_usd)


def _closed(draft: _Draft, node: Node) -> bool:
    """Whether a task that this one is a part of is over: nothing in it counts any more."""
    while node.scope:
        node = draft.graph.nodes[node.scope]
        if draft.state(node) in OVER:
            return True
    return False


def _letter(draft: _Draft, node: Node, item: int) -> str:
    letters = draft.fans.get(node.name, "")
    return letters[item] if item < len(letters) else State.WAITING


def hold(progress: Progress, number: int, *, held: bool) -> Progress:
    """Return the state after the `number`-th pause or resumption. One that was taken in changes nothing."""
    if number <= progress.holds:
        return progress
    return progress.model_copy(update={"held": held, "holds": number})


def flow(graph: Graph, progress: Progress, values: Values, bounds: Bounds, approved: Sequence[str] = ()) -> Progress:
    """Start what may start now, and close what is through. `approved`: tasks that a person has allowed to go on.

    Raises `Missing` for an output that a condition or a list is needed from.
    """
    draft = _Draft(graph, progress)
    idle = progress.held or over_budget(progress, bounds)
    changed = True
    while changed:
        changed = False
        for scope in reversed(tuple(graph.scopes.values())):
            changed |= _close(draft, scope)
        for scope in graph.scopes.values():
            if not idle and _active(draft, scope):
                changed |= _start(draft, scope, values, bounds, approved)
    return draft.frozen(progress)


def over_budget(progress: Progress, bounds: Bounds) -> bool:
    """Whether the run has spent what it may: nothing more is started then."""
    return bounds.max_cost_usd is not None and progress.cost_usd >= bounds.max_cost_usd


def _active(draft: _Draft, scope: Scope) -> bool:
    """Whether tasks of a scope may start: the task that it belongs to runs, and nothing around it has failed."""
    while True:
        if any(draft.state(node) == State.FAILED for node in scope.nodes):
            return False
        if not scope.name:
            return True
        parent = draft.graph.nodes[scope.name]
        if draft.state(parent) not in (State.STARTED, State.EXPANDED):
            return False
        scope = draft.graph.scopes[parent.scope]


def _start(draft: _Draft, scope: Scope, values: Values, bounds: Bounds, approved: Sequence[str]) -> bool:
    changed = False
    frontier = 0
    for node in scope.nodes:
        if frontier == node.place and draft.state(node) in OVER:
            frontier += 1
    for node in scope.nodes[frontier:]:
        state = draft.state(node)
        if state in OVER:
            continue
        if state == State.WAITING and frontier >= node.barrier and _served(draft, node):
            _decide(draft, scope, node, values, bounds)
            changed = True
        elif state == State.ASKED and node.name in approved and node.kind is not Kind.APPROVAL:
            _begin(draft, node, values, bounds)
            changed = True
        elif state == State.STARTED and node.kind is Kind.FAN:
            changed |= _widen(draft, node)
    return changed


def _served(draft: _Draft, node: Node) -> bool:
    return all(draft.states.get(name, State.WAITING) in OVER for name in node.needs)


def _decide(draft: _Draft, scope: Scope, node: Node, values: Values, bounds: Bounds) -> None:
    """Skip, ask or begin a task that may start."""
    task = node.task
    if task.when is not None:
        known = environment(draft.graph, scope, names_in(task.when), values)
        try:
            if not holds(task.when, known):
                draft.states[node.name] = State.SKIPPED
                return
        except WrongCondition:
            draft.states[node.name] = State.STARTED  # whoever sends its call finds the same, and settles it as failed
            return
    if task.approve is not None:
        draft.states[node.name] = State.ASKED
    else:
        _begin(draft, node, values, bounds)


def _begin(draft: _Draft, node: Node, values: Values, bounds: Bounds) -> None:
    draft.states[node.name] = State.STARTED
    if node.kind is Kind.FAN:
        try:
            count = len(items_of(draft.graph, node, values, bounds.max_fan_out))
        except Unfit:
            return  # as above: without letters it is one call, which is settled as failed when it is to be sent
        draft.fans[node.name] = State.WAITING * count
        _widen(draft, node)


def _widen(draft: _Draft, node: Node) -> bool:
    """Start as many items of a fan as may run beside each other."""
    letters = draft.fans.get(node.name)
    if not letters or State.FAILED in letters:
        return False
    assert node.task.for_each is not None
    most = node.task.for_each.concurrency or len(letters)
    free = most - sum(1 for letter in letters if letter in RUNNING)
    after = letters.replace(State.WAITING, State.STARTED, max(0, free))
    draft.fans[node.name] = after
    return after != letters


def _close(draft: _Draft, scope: Scope) -> bool:
    """Close the fans of a scope, and the task that it belongs to, when they are through."""
    changed = False
    for node in scope.nodes:
        letters = draft.fans.get(node.name)
        if letters is None or draft.state(node) != State.STARTED or any(letter in RUNNING for letter in letters):
            continue
        if State.FAILED in letters:
            draft.fail(node)
            changed = True
        elif State.WAITING not in letters:
            draft.states[node.name] = State.DONE
            changed = True
    if scope.name:
        parent = draft.graph.nodes[scope.name]
        if draft.state(parent) in (State.STARTED, State.EXPANDED):
            states = [draft.state(node) for node in scope.nodes]
            if State.FAILED in states and not _busy(draft, scope):
                draft.fail(parent)
                changed = True
            elif State.FAILED not in states and all(state in OVER for state in states):
                draft.states[parent.name] = State.DONE
                changed = True
    return changed


def _busy(draft: _Draft, scope: Scope) -> bool:
    """Whether a call of a scope, or of what is inside it, is out."""
    return any(not due.question for due in _dues_of(draft.graph, scope, draft.states, draft.fans))


def dues(graph: Graph, progress: Progress) -> tuple[Due, ...]:
    """Return the calls and questions that should be out: started and not settled."""
    return tuple(_dues_of(graph, graph.root, progress.states, progress.fans))


def _dues_of(graph: Graph, scope: Scope, states: Mapping[str, str], fans: Mapping[str, str]) -> Iterator[Due]:
    for node in scope.nodes:
        state = states.get(node.name)
        if state is None or state in OVER:
            continue
        match state:
            case State.ASKED:
                yield Due(node, question=True)
            case State.REPAIRING:
                yield Due(node, repair=True)
            case State.STARTED | State.EXPANDED if node.name in graph.scopes:
                yield from _dues_of(graph, graph.scopes[node.name], states, fans)
            case State.STARTED if node.name in fans:
                for place, letter in enumerate(fans[node.name]):
                    if letter in (State.STARTED, State.REPAIRING):
                        yield Due(node, place, repair=letter == State.REPAIRING)
            case State.STARTED:
                yield Due(node)


def is_over(graph: Graph, progress: Progress, bounds: Bounds) -> bool:
    """Whether nothing is left to do: all is over, or the run has failed (or spent its budget) and no call is out."""
    states = [progress.states.get(node.name, State.WAITING) for node in graph.root.nodes]
    if all(state in OVER for state in states):
        return True
    doomed = State.FAILED in states or over_budget(progress, bounds)
    return doomed and all(due.question for due in dues(graph, progress))
