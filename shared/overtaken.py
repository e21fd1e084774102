"""A run that had ended before anybody took it up: cancelled while it was queued, or its time was over. (ADR 0024)"""

from datetime import datetime
from typing import Final

from shared import subjects
from shared.bus.connection import Bus
from shared.bus.log import Written
from shared.contracts.commands import DeadlinePassed
from shared.contracts.events import RunAccepted
from shared.topology import EVENTS

QUEUED_S: Final = 1.0
"""Of a run that is taken up sooner than this after its birth nobody looks whether it has ended: it would cost every
request a read, and whoever is to ask a model for it looks in any case."""


async def overtaken(bus: Bus, accepted: Written[RunAccepted], now: datetime) -> bool:
    """Whether a run that is being taken up has ended, so that there is nothing to do for it.

    Whoever ended it before it was accepted did not know what was asked, nor where to call back: the finisher is told.
    """
    run = accepted.fact.run
    if accepted.mine and (now - run.born_at).total_seconds() < QUEUED_S:
        return False
    facts = subjects.facts(run)
    ended = await bus.jetstream.last(EVENTS, facts.ended)
    if ended is None:
        return False
    begun = await bus.jetstream.last(EVENTS, facts.accepted)
    if begun is not None and ended.seq < begun.seq:
        await bus.log.send(subjects.deadline(run.run_id), DeadlinePassed(run=run))
    return True
