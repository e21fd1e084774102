"""What the log says of a run that is about to end, gathered in one read and completed from the leader."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from shared import subjects
from shared.bus.connection import Bus
from shared.contracts.commands import Spent
from shared.contracts.events import CallSettled, RunAccepted, RunCategorized, RunEnded, RunPlanned
from shared.contracts.ids import Purpose
from shared.contracts.message import Run

READ_AT_ONCE = 32


@dataclass(slots=True)
class Story:
    """The facts of a run, decoded."""

    accepted: RunAccepted | None = None
    category: RunCategorized | None = None
    planned: RunPlanned | None = None
    ended: RunEnded | None = None
    tasks: dict[str, CallSettled] = field(default_factory=dict)
    decisions: dict[str, CallSettled] = field(default_factory=dict)
    answers: dict[str, CallSettled] = field(default_factory=dict)

    def spent(self) -> Spent:
        """Return what every settled call of the run cost together."""
        total = Spent()
        for call in (*self.decisions.values(), *self.answers.values(), *self.tasks.values()):
            total = total.plus(call.as_spent())
        return total


async def read_story(bus: Bus, run: Run) -> Story:
    """Read a run's facts from any replica. What is there is true; what is missing may only be late: see `complete`."""
    story = Story()
    for stored in await bus.log.story(run.tenant, run.run_id):
        match subjects.fact_of(stored.subject).split("."):
            case ["accepted"]:
                story.accepted = await bus.log.decode(stored, RunAccepted)
            case ["category"]:
                story.category = await bus.log.decode(stored, RunCategorized)
            case ["plan"]:
                story.planned = await bus.log.decode(stored, RunPlanned)
            case ["ended"]:
                story.ended = await bus.log.decode(stored, RunEnded)
            case ["call", purpose, name, "settled"]:
                _calls(story, Purpose(purpose))[name] = await bus.log.decode(stored, CallSettled)
    return story


def _calls(story: Story, purpose: Purpose) -> dict[str, CallSettled]:
    match purpose:
        case Purpose.TASK:
            return story.tasks
        case Purpose.DECISION:
            return story.decisions
        case Purpose.ANSWER:
            return story.answers


async def complete(bus: Bus, run: Run, story: Story, tasks: Iterable[str]) -> None:
    """Fill in from the leader what must be there for a decision and was not in the replica's answer."""
    facts = subjects.facts(run)
    if story.accepted is None:
        story.accepted = await bus.log.read(facts.accepted, RunAccepted)
    if story.planned is None:
        story.planned = await bus.log.read(facts.plan, RunPlanned)
    missing = [name for name in tasks if name not in story.tasks]
    for start in range(0, len(missing), READ_AT_ONCE):
        names = missing[start : start + READ_AT_ONCE]
        subjects_of = (facts.settled(Purpose.TASK, name) for name in names)
        found = await asyncio.gather(*(bus.log.read(subject, CallSettled) for subject in subjects_of))
        story.tasks.update({name: one for name, one in zip(names, found, strict=True) if one is not None})
