"""A run as a state machine: executors settle, planners take in, people decide and pause, records get lost.

What happens is chosen by hypothesis, which looks for the shortest history that breaks a promise. Promises: nothing
starts before what it needs is over; what is over stays as it is; the record stays small; the run ends, and, where
nothing fails for good, exactly as if everything had happened one after the other.
"""

import random
from typing import Any

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.planner import advance
from services.planner.advance import Due, Outcome
from shared.contracts.events import Progress
from shared.contracts.workflow import Workflow
from shared.workflows.graph import Kind, compiled
from shared.workflows.outputs import OVER, State
from tests.planner.histories import WORKFLOWS, Planner, World, rebuilt, wanting
from tests.planner.test_advance import HISTORIES, run_through


class Run(RuleBasedStateMachine):
    """One run. `world.log` is what is on the log; `told` is what the record has been told of it."""

    @initialize(workflow=WORKFLOWS, seed=st.integers(0, 2**32), failing=st.sampled_from([0.0, 0.0, 0.2]))
    def begin(self, workflow: Workflow, seed: int, failing: float) -> None:
        self.workflow, self.seed, self.failing = workflow, seed, failing
        self.world = World(compiled(workflow), seed, failing)
        self.planner = Planner(self.world)
        self.planner.go_on()
        self.told: set[str] = set()
        self.asked_for: dict[str, int] = {}
        self.holds = 0
        self.over: dict[str, str] = {}

    def calls(self) -> list[Due]:
        """Calls that are out and not settled."""
        return [due for due in self.planner.dues() if not due.question and due.name not in self.world.log]

    def questions(self) -> list[Due]:
        return [due for due in self.planner.dues() if due.question]

    def undelivered(self) -> list[str]:
        return sorted(self.world.log.keys() - self.told)

    @precondition(lambda self: self.calls())
    @rule(data=st.data())
    def an_executor_settles_a_call(self, data: st.DataObject) -> None:
        """It is on the log; no planner has heard of it yet."""
        due = data.draw(st.sampled_from(self.calls()))
        self.asked_for[due.name] = self.asked_for.get(due.name, 0) + 1
        self.world.log[due.name] = self.world.outcome(due)

    @precondition(lambda self: self.undelivered())
    @rule(data=st.data())
    def a_planner_takes_some_in_together(self, data: st.DataObject) -> None:
        names = data.draw(st.lists(st.sampled_from(self.undelivered()), min_size=1, max_size=4, unique=True))
        self._take_in([self.world.log[name] for name in names])

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def something_is_delivered_again(self, data: st.DataObject) -> None:
        before = self.planner.progress
        self._take_in([self.world.log[data.draw(st.sampled_from(sorted(self.told)))]])
        # A record that was made again looks whether what is due is on the log: then others may be taken in too.
        assert self.planner.progress == before or before.rebuilt

    def _take_in(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            self.planner.progress = advance.settle(self.world.graph, self.planner.progress, outcome)
            self.told.add(outcome.call)
        self.planner.go_on()

    @precondition(lambda self: self.questions())
    @rule(data=st.data())
    def a_person_decides(self, data: st.DataObject) -> None:
        node = data.draw(st.sampled_from(self.questions())).node
        approved = self.world.decided.setdefault(node.name, self.world.approves(node))
        self.planner.decide(node, approved)
        self.told |= {node.name} & self.world.log.keys()

    @rule(held=st.booleans())
    def somebody_pauses_or_resumes(self, held: bool) -> None:
        self.holds += 1
        self.planner.progress = advance.hold(self.planner.progress, self.holds, held=held)
        self.planner.go_on()

    @rule()
    def the_record_is_lost_and_made_again(self) -> None:
        """From the log alone, pauses included: what was settled and not heard of is taken in with it."""
        held = self.planner.progress.held
        self.planner = rebuilt(self.world)
        if self.holds:
            self.planner.progress = advance.hold(self.planner.progress, self.holds, held=held)
        self.told = set(self.world.log)
        self.over = {}

    @invariant()
    def nothing_is_due_too_early(self) -> None:
        progress = self.planner.progress
        for due in self.planner.dues():
            if progress.states.get(due.node.name) != State.EXPANDED:
                assert not wanting(self.world.graph, progress, due.node), f"{due.name} is due too early"

    @invariant()
    def what_is_over_stays_as_it_is(self) -> None:
        now = {name: letter for name, letter in self.planner.progress.states.items() if letter in OVER}
        for name, letter in self.over.items():
            assert now.get(name) == letter, f"{name} was {letter}"
        self.over = now

    @invariant()
    def the_record_is_small(self) -> None:
        items = sum(len(letters) for letters in self.planner.progress.fans.values())
        assert len(self.planner.progress.encode()) <= 100 + 64 * (len(self.world.graph.nodes) + items)

    @invariant()
    def nobody_is_asked_twice_for_what_is_settled(self) -> None:
        assert all(times == 1 for times in self.asked_for.values())

    def teardown(self) -> None:
        """Whatever has happened: from here the run ends, and as it would have without any of it."""
        if not hasattr(self, "planner"):
            return
        if self.planner.progress.held:
            self.planner.progress = advance.hold(self.planner.progress, self.holds + 1, held=False)
            self.planner.go_on()
        for _ in range(2_000):
            if self.planner.over:
                break
            if self.undelivered():
                self._take_in([self.world.log[self.undelivered()[0]]])
                continue
            dues = self.planner.dues()
            assert dues, f"nothing is due and the run is not over: {self.planner.progress}"
            if dues[0].question:
                node = dues[0].node
                self.planner.decide(node, self.world.decided.setdefault(node.name, self.world.approves(node)))
                self.told |= {node.name} & self.world.log.keys()
            else:
                self.world.log[dues[0].name] = self.world.outcome(dues[0])
        assert self.planner.over, f"the run does not end: {self.planner.progress}"
        plain = Planner(World(compiled(self.workflow), self.seed, self.failing))
        run_through(plain, random.Random(0), disturbed=False)
        self._ends_alike(plain.progress)

    def _ends_alike(self, plain: Progress) -> None:
        ended = self.planner.progress
        root = [node.name for node in self.world.graph.root.nodes]
        failed = [any(one.states.get(name) == State.FAILED for name in root) for one in (ended, plain)]
        assert failed[0] == failed[1]
        if not any(State.FAILED in one.states.values() for one in (ended, plain)):
            assert (ended.states, ended.fans) == (plain.states, plain.fans)


def _machine() -> Any:
    Run.TestCase.settings = settings(
        deadline=None,
        max_examples=HISTORIES,
        stateful_step_count=30,
        phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    )
    return Run.TestCase


TestRun = _machine()


def test_the_machine_can_fail() -> None:
    """Its promises are no empty words: a task that is started too early is found."""
    from tests.planner.test_advance import graph_of

    graph = graph_of({"output_variable": "a"}, {"needs": ["a"]})
    early = Progress(states={"0-0": State.STARTED, "0-1": State.STARTED})
    assert wanting(graph, early, graph.nodes["0-1"]) == ["0-0"]
    assert graph.nodes["0-1"].kind is Kind.CALL
