"""How a run's end reads over HTTP. Pure: the same end gives the same answer, byte for byte."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from services.gateway.http.models import (
    ArtifactBody,
    Body,
    ChatAnswer,
    ErrorBody,
    EstimateBody,
    PlanAnswer,
    PlannedTask,
    RunFailure,
    UsageBody,
    WorkflowAnswer,
)
from services.gateway.http.openai.failures import OURS
from shared.contracts.events import RunEnded
from shared.contracts.message import Fault
from shared.contracts.workflow import Workflow
from shared.workflows.estimate import Estimate, Figures, estimate
from shared.workflows.graph import compiled
from shared.workflows.mermaid import flowchart


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a body."""

    status: int
    body: Body


def to_chat(ended: RunEnded) -> Answer:
    """Return the answer to a message."""
    if ended.outcome != "completed":
        return Answer(_status(ended), _failure(ended))
    spent = ended.spent
    return Answer(
        200,
        ChatAnswer(
            session_id=ended.run.session_id,
            response=ended.text or "",
            category=ended.category,
            timestamp=ended.ended_at,
            model_used=ended.model,
            run_id=ended.run.run_id,
            acknowledgement=ended.acknowledgement,
            result=ended.result,
            cost_usd=spent.cost_usd,
            cost_known=spent.cost_known,
            baseline_usd=ended.baseline_usd,
            saving_usd=saving_usd(ended),
            usage=UsageBody.of(spent.usage),
            took_s=_took_s(ended),
            simulated=spent.simulated,
            calls=spent.calls,
            note=ended.note,
            artifacts=ArtifactBody.every(ended.artifacts),
        ),
    )


def to_workflow(ended: RunEnded) -> Answer:
    """Return the result of a workflow."""
    if ended.outcome != "completed":
        return Answer(_status(ended), _failure(ended))
    spent = ended.spent
    return Answer(
        200,
        WorkflowAnswer(
            status="completed",
            result=ended.result or {},
            execution_time=_took_s(ended),
            run_id=ended.run.run_id,
            cost_usd=spent.cost_usd,
            cost_known=spent.cost_known,
            baseline_usd=ended.baseline_usd,
            saving_usd=saving_usd(ended),
            usage=UsageBody.of(spent.usage),
            simulated=spent.simulated,
            calls=spent.calls,
            note=ended.note,
            artifacts=ArtifactBody.every(ended.artifacts),
        ),
    )


def to_plan(ended: RunEnded, figures: Mapping[str, Figures]) -> Answer:
    """Return a plan that was not carried out, with what it will probably take."""
    if ended.outcome != "completed":
        return Answer(_status(ended), _failure(ended))
    result = ended.result or {}
    queues, variables = result.get("workflow"), result.get("variables")
    document = {"workflow": queues, "variables": variables} if isinstance(queues, list) else None
    graph = compiled(Workflow.model_validate(document)) if document is not None else None
    return Answer(
        200,
        PlanAnswer(
            run_id=ended.run.run_id,
            workflow=queues if isinstance(queues, list) else None,
            variables=variables if isinstance(variables, dict) else {},
            note=ended.note,
            mermaid=flowchart(graph) if graph is not None else None,
            estimate=to_estimate(estimate(graph, figures)) if graph is not None else None,
            cost_usd=ended.spent.cost_usd,
            cost_known=ended.spent.cost_known,
            took_s=_took_s(ended),
            simulated=ended.spent.simulated,
        ),
    )


def saving_usd(ended: RunEnded) -> float | None:
    """Return what was saved against the baseline; negative: it cost more."""
    return difference(ended.baseline_usd, ended.spent.cost_usd, known=ended.spent.cost_known)


def difference(baseline_usd: float | None, cost_usd: float, *, known: bool) -> float | None:
    """Return a baseline less a cost; None where either is not known."""
    return round(baseline_usd - cost_usd, 9) if baseline_usd is not None and known else None


def to_estimate(found: Estimate) -> EstimateBody:
    """Return what a workflow will probably take."""
    return EstimateBody(
        seconds=found.seconds,
        critical_path=list(found.path),
        cost_usd=round(found.cost_usd, 9),
        cost_known=found.cost_known,
        calls=found.calls,
        tokens=found.tokens,
        basis=found.basis,
        notes=list(found.notes),
        tasks=[
            PlannedTask(
                output=task.output,
                role=task.role,
                starts_s=task.starts_s,
                seconds=task.seconds,
                calls=task.calls,
                tokens=task.tokens,
                cost_usd=round(task.cost_usd, 9),
                cost_known=task.cost_known,
            )
            for task in found.tasks
        ],
    )


def _took_s(ended: RunEnded) -> float:
    return round(max(0.0, (ended.ended_at - ended.run.born_at).total_seconds()), 6)


def _status(ended: RunEnded) -> int:
    match ended.outcome:
        case "completed":
            return 200
        case "denied":
            status = ended.fault.status if ended.fault is not None else None
            return status if status is not None and 400 <= status < 500 else 413
        case "cancelled":
            return 409
        case "failed":
            code = ended.fault.code if ended.fault is not None else ""
            own = ended.fault.status if ended.fault is not None and code in OURS else None
            return 504 if code == "deadline" else own or 502
    assert_never(ended.outcome)


def _failure(ended: RunEnded) -> RunFailure:
    fault = ended.fault
    return RunFailure(
        detail=_detail(ended, fault),
        run_id=ended.run.run_id,
        session_id=ended.run.session_id,
        error=None if fault is None else ErrorBody(type=fault.type, code=fault.code, message=fault.message),
        result=ended.result,
        cost_usd=ended.spent.cost_usd,
        cost_known=ended.spent.cost_known,
    )


def _detail(ended: RunEnded, fault: Fault | None) -> str:
    """Return what happened and what to do: the explanation of the AI where there is one, then the fault itself."""
    if fault is None:
        said = {"cancelled": "the run was cancelled", "denied": "the request was refused"}
        return ended.text or said.get(ended.outcome, "the run failed without saying why; its run_id leads to its log")
    if ended.text:
        return f"{ended.text.rstrip()}\n\nThe fault: {fault.message}"
    if ended.outcome == "failed" and fault.code != "deadline":
        return f"{fault.message}. Nothing more is done for this request; it can be sent again"
    return fault.message
