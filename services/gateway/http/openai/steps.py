"""What a run does before it answers, in words: shown as reasoning, as clients have no other place for it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from shared.contracts.events import CallSettled, RunCategorized, RunPlanned
from shared.contracts.ids import Category, Purpose
from shared.workflows.graph import Graph, compiled, located

ACKNOWLEDGE: Final = "acknowledge"
MOST_NAMED: Final = 20


@dataclass(slots=True)
class Steps:
    """Says each step once it is known. The same facts in the same order give the same words."""

    graph: Graph | None = None
    said: list[str] = field(default_factory=list)

    def take(self, fact: RunCategorized | RunPlanned | CallSettled) -> str | None:
        """Return a line for a fact; None for one that is not worth any."""
        match fact:
            case RunCategorized():
                line = _category(fact)
            case RunPlanned():
                line = self._plan(fact)
            case CallSettled():
                line = self._call(fact)
        if line is not None:
            self.said.append(line)
        return line

    def _plan(self, fact: RunPlanned) -> str | None:
        if fact.workflow is None:
            return fact.note
        self.graph = compiled(fact.workflow)
        nodes = self.graph.root.nodes
        named = _listed([node.output for node in nodes])
        return f"{len(nodes)} step{'s' if len(nodes) > 1 else ''}: {named}."

    def _call(self, call: CallSettled) -> str | None:
        if call.purpose is Purpose.DECISION:
            return call.text.strip() if call.call == ACKNOWLEDGE and call.outcome == "answered" and call.text else None
        if call.purpose is not Purpose.TASK:
            return None
        place = located(self.graph, call.call) if self.graph is not None else None
        name = place.node.output if place is not None else call.call
        if place is not None and place.item is not None:
            name = f"{name}[{place.item}]"
        if call.outcome == "failed":
            return f"{name} failed: {call.fault.message if call.fault is not None else 'no reason given'}"
        return f"{name}: done by {call.role}."


def _category(fact: RunCategorized) -> str | None:
    match fact.category:
        case Category.H:
            return f"Category H ({fact.reason}): several models work on this together."
        case None:
            return None
    return f"Category {fact.category} ({fact.reason}): {fact.role} answers."


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(names[:MOST_NAMED])}{more}"
