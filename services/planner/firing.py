"""What a schedule's fire comes to. Pure."""

from dataclasses import dataclass
from datetime import datetime

from shared.contracts.ids import RunId, run_id_of_key
from shared.contracts.registry import Schedule, ScheduleDue, ScheduleState


@dataclass(frozen=True, slots=True)
class Start:
    """Begin this run."""

    run_id: RunId


@dataclass(frozen=True, slots=True)
class Skip:
    """Begin nothing, and note why."""

    why: str


@dataclass(frozen=True, slots=True)
class Ignore:
    """It is taken in already, or nobody wants it any more."""


def run_of(due: ScheduleDue, *, seq: int, stored_ns: int) -> RunId:
    """Return the run that a fire begins: the same however often it is delivered."""
    return run_id_of_key(due.tenant, f"schedule {due.name} {seq} {stored_ns}")


def decide(
    due: ScheduleDue,
    schedule: Schedule | None,
    state: ScheduleState,
    *,
    seq: int,
    stored_ns: int,
    next_at: datetime | None,
    now: datetime,
    last_goes_on: bool,
) -> Start | Skip | Ignore:
    """Return what is done about a fire. `seq`, `stored_ns`: of its message; `next_at`: when the next one comes."""
    if schedule is None or schedule.paused or schedule.version != due.version or state.seq >= seq:
        return Ignore()
    if next_at is not None and now >= next_at:
        return Skip("it came too late: the next one is due already")
    run_id = run_of(due, seq=seq, stored_ns=stored_ns)
    if schedule.overlap == "skip" and last_goes_on and state.last_run != run_id:
        return Skip(f"run {state.last_run} of this schedule has not ended")
    return Start(run_id)


def noted(
    state: ScheduleState | None,
    found: Start | Skip,
    *,
    seq: int,
    at: datetime,
    next_at: datetime | None,
    problem: str | None,
) -> ScheduleState:
    """Return a schedule's state after a fire; `problem`: why nothing could be begun. The same fire counts once."""
    before = state or ScheduleState()
    if before.seq >= seq:
        return before
    changed: dict[str, object] = {"seq": seq, "next_at": next_at}
    match found:
        case Start(run_id) if problem is None:
            changed |= {"last_run": run_id, "last_at": at, "started": before.started + 1, "problem": None}
        case Start():
            changed |= {"problem": problem, "skipped": before.skipped + 1}
        case Skip(why):
            changed |= {"problem": why, "skipped": before.skipped + 1}
    return before.model_copy(update=changed)
