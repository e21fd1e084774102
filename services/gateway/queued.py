"""Runs that were told to their callers and that nobody has taken up yet: all there is of them is a timer. (ADR 0024)"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from shared import subjects
from shared.bus.connection import Bus
from shared.contracts.commands import DeadlinePassed, Taker
from shared.contracts.events import RunEnded
from shared.contracts.ids import is_token
from shared.contracts.message import Run
from shared.topology import FINISHES

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Queued:
    """A run that is not accepted."""

    run: Run
    by: Taker | None = None
    """Who is to take it up, as far as its timer says."""
    overdue: bool = False
    """Its time is over; a finisher is about to end it."""
    ended: RunEnded | None = None
    """It was ended before anybody took it up."""

    @property
    def waits_for(self) -> str:
        """Return for what, in words."""
        if self.overdue:
            return "a finisher to end it: its time is over"
        return f"a {self.by or 'categorizer or planner'} to take it up"

    @property
    def waits_until(self) -> datetime:
        """Return until when at the most."""
        return self.run.deadline_at

    @property
    def why_not(self) -> str:
        """Return why nothing but cancelling can be done to it, in words."""
        run_id = self.run.run_id
        if self.ended is not None:
            said = f"run {run_id} was {self.ended.outcome} before anybody took it up"
            return f"{said}: there is no workflow, call or output of it; send the request again if it is still wanted"
        return f"run {run_id} is queued, waiting for {self.waits_for}: say it again once it is accepted, or cancel it"


async def find(bus: Bus, tenant: str, run_id: str) -> Queued | None:
    """Return a tenant's run that nobody has accepted; None when there is none, or another tenant's: the same reads.

    Whether it is accepted is not looked at: see `whereabouts`. In this order: a timer that is gone has fired, and a
    deadline that is gone, or a timer that was taken back, leaves an end.
    """
    timer = await _told(bus, tenant, subjects.timer(run_id))
    fired = timer or await _told(bus, tenant, subjects.deadline(run_id))
    ended = await bus.log.read(subjects.events(tenant, run_id).ended, RunEnded)
    if ended is not None:
        return Queued(ended.run, ended=ended)
    return None if fired is None else Queued(fired.run, fired.by, overdue=timer is None)


async def _told(bus: Bus, tenant: str, subject: str) -> DeadlinePassed | None:
    stored = await bus.jetstream.last(FINISHES, subject)
    told = await bus.log.decode(stored, DeadlinePassed) if stored is not None else None
    return told if told is not None and told.run.tenant == tenant else None


async def whereabouts(
    bus: Bus, tenant: str, run_id: str, accepted: Callable[[], Awaitable[T | None]]
) -> T | Queued | None:
    """Return what `accepted` finds of a run, else the run as it is queued; None when there is no such run."""
    if not is_token(run_id):
        return None
    if (there := await accepted()) is not None:
        return there
    queued = await find(bus, tenant, run_id)
    if queued is not None and queued.ended is None:
        return queued
    return await accepted() or queued  # it was accepted, and has perhaps ended, between those looks
