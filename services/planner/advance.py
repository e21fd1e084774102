"""How a workflow goes on. Pure: what is started follows from the plan and from what is settled, nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass

from shared.contracts.events import Progress
from shared.contracts.workflow import Task, Workflow
from shared.workflows.validation import unnamed_output

WAITING, STARTED, DONE, FAILED = "w", "s", "d", "f"


class NoSuchTask(ValueError):
    """A settled call names a task that the plan does not have."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the plan has no task {name!r}")


@dataclass(frozen=True, slots=True)
class Step:
    """A task at its place in the plan."""

    index: int
    queue: int
    place: int
    task: Task

    @property
    def name(self) -> str:
        """The task's call within the run."""
        return f"{self.queue}-{self.place}"

    @property
    def output(self) -> str:
        """The name that its output goes by in the result."""
        return self.task.output_variable or unnamed_output(self.queue, self.place)


def steps(workflow: Workflow) -> Iterator[Step]:
    """Return every task in the plan's order."""
    index = 0
    for queue, content in enumerate(workflow.workflow):
        for place, task in enumerate(content.tasks):
            yield Step(index, queue, place, task)
            index += 1


def begin(workflow: Workflow) -> Progress:
    """Return the state of a workflow that has just been planned: its first tasks are started."""
    count = sum(len(queue.tasks) for queue in workflow.workflow)
    return Progress(states=_with_ready_started(workflow, WAITING * count))


def settle(workflow: Workflow, progress: Progress, name: str, *, answered: bool) -> Progress:
    """Return the state after a task is settled. Settling one again changes nothing, whatever it says."""
    step = next((step for step in steps(workflow) if step.name == name), None)
    if step is None:
        raise NoSuchTask(name)
    if progress.states[step.index] in {DONE, FAILED}:
        return progress
    states = _replaced(progress.states, step.index, DONE if answered else FAILED)
    return Progress(states=_with_ready_started(workflow, states))


def started(workflow: Workflow, progress: Progress) -> tuple[Step, ...]:
    """Return the tasks whose calls should be out: started and not settled."""
    return tuple(step for step in steps(workflow) if progress.states[step.index] == STARTED)


def is_over(progress: Progress) -> bool:
    """Whether nothing is left to do: all done, or one has failed and what ran beside it is settled."""
    if STARTED in progress.states:
        return False
    return FAILED in progress.states or WAITING not in progress.states


def _with_ready_started(workflow: Workflow, states: str) -> str:
    """Start what may run now: all of a linear queue, the next of an inline one, once the queue before is done."""
    if FAILED in states:
        return states
    first = 0
    for queue in workflow.workflow:
        own = states[first : first + len(queue.tasks)]
        if own.count(DONE) < len(own):
            if queue.type == "linear":
                own = own.replace(WAITING, STARTED)
            elif STARTED not in own:
                own = own.replace(WAITING, STARTED, 1)
            return states[:first] + own + states[first + len(own) :]
        first += len(own)
    return states


def _replaced(states: str, index: int, state: str) -> str:
    return states[:index] + state + states[index + 1 :]
