"""What a schedule's fire comes to: begun once, left out with a reason, or nobody's any more."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.planner.firing import Ignore, Skip, Start, decide, noted, run_of
from shared.contracts.registry import Schedule, ScheduleDue, ScheduleState

NOW = datetime(2026, 11, 27, 8, tzinfo=UTC)
DUE = ScheduleDue(tenant="acme", name="mornings", version=2)
SCHEDULE = Schedule(
    tenant="acme", name="mornings", version=2, template="letter", every="1h", written_at=NOW, by="somebody"
)
OWN = run_of(DUE, seq=7, stored_ns=1)


def found(schedule: Schedule | None = SCHEDULE, state: ScheduleState | None = None, **other: Any) -> Any:
    given: dict[str, Any] = {
        "seq": 7,
        "stored_ns": 1,
        "next_at": NOW + timedelta(hours=1),
        "now": NOW,
        "last_goes_on": False,
    }
    return decide(DUE, schedule, state or ScheduleState(), **{**given, **other})


def test_a_fire_begins_one_run_however_often_it_is_delivered() -> None:
    assert found() == found() == Start(OWN)
    assert found(seq=8) != found()
    assert found(stored_ns=2) != found(), "a stream that was made anew counts from one again"


def test_a_fire_that_is_taken_in_is_not_taken_in_again() -> None:
    state = noted(None, Start(OWN), seq=7, at=NOW, next_at=None, problem=None)
    assert (state.last_run, state.started, state.seq) == (OWN, 1, 7)
    assert found(state=state) == Ignore()
    assert noted(state, Start(OWN), seq=7, at=NOW, next_at=None, problem=None) == state


@pytest.mark.parametrize(
    "schedule",
    [
        None,
        SCHEDULE.model_copy(update={"paused": True}),
        SCHEDULE.model_copy(update={"version": 3}),
    ],
)
def test_what_nobody_wants_any_more_is_ignored(schedule: Schedule | None) -> None:
    assert found(schedule) == Ignore()


def test_a_run_that_goes_on_is_not_overtaken_unless_that_is_wanted() -> None:
    state = ScheduleState(last_run="before")
    skipped = found(state=state, last_goes_on=True)
    assert isinstance(skipped, Skip)
    assert "before" in skipped.why
    both = SCHEDULE.model_copy(update={"overlap": "allow"})
    assert found(both, state, last_goes_on=True) == Start(OWN)
    assert found(state=ScheduleState(last_run=OWN), last_goes_on=True) == Start(OWN), "its own run is not another's"


def test_a_fire_that_comes_after_the_next_one_is_left_out() -> None:
    assert isinstance(found(now=NOW + timedelta(hours=1)), Skip)
    assert found(now=NOW + timedelta(minutes=59)) == Start(OWN)
    assert found(next_at=None, now=NOW + timedelta(days=9)) == Start(OWN)


def test_what_went_wrong_is_noted_until_it_goes_well() -> None:
    failed = noted(None, Start(OWN), seq=7, at=NOW, next_at=None, problem="the template is gone")
    assert (failed.problem, failed.started, failed.skipped, failed.last_run) == ("the template is gone", 0, 1, None)
    skipped = noted(failed, Skip("too late"), seq=8, at=NOW, next_at=None, problem=None)
    assert (skipped.problem, skipped.skipped) == ("too late", 2)
    well = noted(skipped, Start("r"), seq=9, at=NOW, next_at=NOW, problem=None)
    assert (well.problem, well.started, well.last_at, well.next_at) == (None, 1, NOW, NOW)
