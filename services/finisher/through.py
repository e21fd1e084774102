"""A workflow as far as it came: outputs, failures, and what was not done. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from shared.contracts.events import CallSettled
from shared.contracts.message import Fault
from shared.workflows.graph import REPAIR, Graph, Kind, Node
from shared.workflows.outputs import State, output, sources
from shared.workflows.schemas import read_output

UNSAID: Final = Fault(type="fatal", code="unknown", message="the call failed and did not say why")
_KEPT: Final = frozenset("dpcu")
_BEGUN: Final = frozenset("dpfcusre")


def calls_of(graph: Graph, states: Mapping[str, str], fans: Mapping[str, str]) -> Iterator[str]:
    """Yield the calls that may be settled on the log."""
    for node in graph.nodes.values():
        state = states.get(node.name)
        if state not in _BEGUN:
            continue
        letters = fans.get(node.name)
        if letters is not None:
            places = [(node.item(place), letter) for place, letter in enumerate(letters) if letter in _BEGUN]
        elif node.kind is Kind.GROUP:
            continue
        else:
            places = [(node.name, str(state))]
        for name, letter in places:
            yield name
            repairable = node.task.output_schema is not None or node.kind is Kind.EXPANSION
            if letter == State.REPAIRED or (repairable and letter in "fcur"):
                yield name + REPAIR


@dataclass(frozen=True, slots=True)
class Through:
    """What its tasks' states and the settled calls say together."""

    graph: Graph
    states: Mapping[str, str]
    fans: Mapping[str, str]
    settled: Mapping[str, CallSettled]

    def outputs(self) -> dict[str, JsonValue]:
        """Return what tasks put out, by name, in the plan's order."""
        return {
            node.output: self._output(node)
            for node in self.graph.root.nodes
            if self.states.get(node.name) in _KEPT and self._there(node)
        }

    def _there(self, node: Node) -> bool:
        return all(call in self.settled for call in sources(self.graph, node, self.states, self.fans))

    def _output(self, node: Node) -> JsonValue:
        texts = {call: self.settled[call].text or "" for call in sources(self.graph, node, self.states, self.fans)}
        return output(self.graph, node, self.states, self.fans, texts)

    def failures(self) -> list[tuple[str, Fault]]:
        """Return the tasks that failed and why, in the plan's order."""
        failed = (node for node in self.graph.root.nodes if self.states.get(node.name) == State.FAILED)
        return [(node.output, self._fault(node)) for node in failed]

    def _fault(self, node: Node) -> Fault:
        """Return why a task failed: what the first failure inside it says."""
        for child in self.graph.children(node):
            if self.states.get(child.name) == State.FAILED:
                fault = self._fault(child)
                return fault.model_copy(update={"message": f"{child.output!r} in it: {fault.message}"})
        if (letters := self.fans.get(node.name)) is not None:
            place = letters.find(State.FAILED)
            if place >= 0:
                fault = self._of_call(node, node.item(place))
                return fault.model_copy(update={"message": f"item {place}: {fault.message}"})
        return self._of_call(node, node.name)

    def _of_call(self, node: Node, name: str) -> Fault:
        repaired = self.settled.get(name + REPAIR)
        settled = repaired or self.settled.get(name)
        if settled is None:
            return UNSAID
        if settled.outcome == "failed":
            return settled.fault or UNSAID
        wrong = "it is no workflow that can run"
        if node.task.output_schema is not None:
            wrong = "; ".join(read_output(settled.text or "", node.task.output_schema)[1])
        return Fault(
            type="logical", code="output_invalid", message=f"the answer cannot be used, also repaired: {wrong}"
        )

    def is_one_text(self) -> bool:
        """Whether the whole workflow was one task, and what it put out is a text and nothing else."""
        if len(self.graph.root.nodes) != 1 or any(call.artifacts for call in self.settled.values()):
            return False
        outputs = list(self.outputs().values())
        return len(outputs) == 1 and isinstance(outputs[0], str)

    def not_done(self) -> tuple[str, ...]:
        """Return the outputs of tasks that were not begun, or not ended."""
        return tuple(node.output for node in self.graph.root.nodes if self.states.get(node.name, "w") in set("wasre"))

    def last_answer(self) -> CallSettled | None:
        """Return the answer of the last task, in the plan's order, that was settled."""
        names = [
            call
            for node in self.graph.root.nodes
            for call in (*sources(self.graph, node, self.states, self.fans), node.name)
        ]
        return next((self.settled[name] for name in reversed(names) if name in self.settled), None)

    def last_outputs(self) -> tuple[str, ...]:
        """Return the outputs that nothing else of the last queue builds on."""
        last = [node for node in self.graph.root.nodes if node.queue == self.graph.root.nodes[-1].queue]
        used = {name for node in last for name in node.needs}
        return tuple(node.output for node in last if node.name not in used)
