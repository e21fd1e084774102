"""How a run is seen, where what is read of it does not fit together yet."""

from datetime import UTC, datetime, timedelta

from services.gateway.chronicle import Chronicle
from services.gateway.http.run_view import state_of, view
from shared.contracts.commands import WorkflowRequest
from shared.contracts.events import ApprovalAsked, Progress, RunAccepted, RunPlanned
from shared.contracts.message import Run
from shared.contracts.workflow import Approval, Queue, Task, Workflow

NOW = datetime(2026, 11, 1, tzinfo=UTC)
RUN = Run(run_id="r1", tenant="acme", born_at=NOW, deadline_at=NOW + timedelta(hours=1))
TASK = Task(model="fast_ai", prompt="Write it", output_variable="text", approve=Approval())
WORKFLOW = Workflow(workflow=(Queue(type="inline", tasks=(TASK,)),))
ASKED = ApprovalAsked(
    run=RUN, task="0-0", output="text", message="May it?", until=NOW + timedelta(minutes=1), default="reject"
)


def waiting() -> Chronicle:
    """A run whose record says that a person is asked."""
    accepted = RunAccepted(run=RUN, request=WorkflowRequest(workflow=WORKFLOW), by="planner")
    planned = RunPlanned(run=RUN, workflow=WORKFLOW, source="request")
    return Chronicle(accepted, planned=planned, progress=Progress(states={"0-0": "a"}))


def test_a_run_waits_for_a_person_only_once_the_question_is_there() -> None:
    """The record is read after the facts: it can know of a question that they do not, which nobody could answer yet."""
    run = waiting()
    assert state_of(run) == "running"
    run.asked["0-0"] = ASKED
    seen = view(run)
    assert (seen.state, seen.waits_for, seen.waits_until) == (
        "awaiting_approval",
        "a person's word about 'text'",
        ASKED.until,
    )
