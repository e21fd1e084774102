"""How a run is seen that nobody has taken up. Pure."""

from datetime import datetime

from services.gateway.http.models import ErrorBody
from services.gateway.http.run_models import Ledger, RunView, TimelineView
from services.gateway.queued import Queued


def view_of(queued: Queued) -> RunView:
    """Return a queued run as a person wants to see it; or its end, when it ended without being taken up."""
    run, ended = queued.run, queued.ended
    fault = ended.fault if ended is not None else None
    return RunView(
        run_id=run.run_id,
        state="queued" if ended is None else ended.outcome,
        waits_for=queued.waits_for if ended is None else None,
        waits_until=queued.waits_until if ended is None else None,
        kind=None,
        category=ended.category if ended is not None else None,
        template=None,
        plan=None,
        note=None,
        session_id=run.session_id,
        priority=run.priority,
        born_at=run.born_at,
        deadline_at=run.deadline_at,
        ended_at=ended.ended_at if ended is not None else None,
        parent=None,
        lineage=None,
        tasks=[],
        calls=[],
        ledger=Ledger(
            calls=0,
            cost_usd=0.0,
            cost_known=True,
            tokens=0,
            baseline_usd=None,
            saving_usd=None,
            reused=0,
            saved_usd=0.0,
        ),
        error=None if fault is None else ErrorBody(type=fault.type, code=fault.code, message=fault.message),
        failure=None,
    )


def timeline_of(queued: Queued, now: datetime) -> TimelineView:
    """Return how long it has waited, or did: nothing else took time."""
    until = queued.ended.ended_at if queued.ended is not None else now
    waited_s = max(0.0, (until - queued.run.born_at).total_seconds())
    return TimelineView(run_id=queued.run.run_id, total_s=round(waited_s, 6), spans=[])
