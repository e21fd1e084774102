"""What a run that went well comes to for an OpenAI client. Pure."""

from dataclasses import dataclass
from typing import Any, Final

from services.gateway.http.answers import saving_usd
from services.gateway.http.models import ArtifactBody
from shared.contracts.commands import ChatRequest, WorkflowRequest
from shared.contracts.conversation import Conversation
from shared.contracts.events import RunAccepted, RunEnded
from shared.contracts.message import Run, ToolCall
from shared.contracts.workflow import Workflow
from shared.workflows.graph import compiled
from shared.workflows.substitution import as_text

FINISHED: Final = frozenset({"stop", "length", "tool_calls", "content_filter"})
SIMULATED: Final = "x-segue-simulated"


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked, as far as its answer depends on that."""

    run: Run
    model: str
    """As the caller named it."""
    conversation: Conversation
    workflow: Workflow | None = None
    """Of a template."""
    version: str = ""

    @property
    def shows_steps(self) -> bool:
        """Whether the caller sees what is done before the answer: not where he chose who answers."""
        return self.conversation.role is None

    @classmethod
    def of(cls, accepted: RunAccepted, version: str) -> "Asked | None":
        """Return what a run was asked; None for one that no OpenAI client began."""
        request = accepted.request
        conversation = request.conversation
        if conversation is None or conversation.api == "embeddings":
            return None
        match request:
            case ChatRequest():
                return cls(accepted.run, conversation.model, conversation, None, version)
            case WorkflowRequest():
                return cls(accepted.run, conversation.model, conversation, request.workflow, version)


def text_of(asked: Asked, ended: RunEnded) -> str:
    """Return the answer's text: of a template what its last tasks put out."""
    if asked.workflow is None or ended.result is None:
        return ended.text or ""
    nodes = compiled(asked.workflow).root.nodes
    last = [node for node in nodes if node.queue == nodes[-1].queue]
    used = {name for node in last for name in node.needs}
    there = [(node.output, ended.result[node.output]) for node in last if node.output in ended.result]
    final = [(name, as_text(value)) for name, value in there if name not in {n.output for n in last if n.name in used}]
    if len(final) == 1:
        return final[0][1]
    return "\n\n".join(f"## {name.replace('_', ' ')}\n\n{text}" for name, text in final)


def finish_reason(ended: RunEnded) -> str:
    """Return why the answer ends, in OpenAI's words only."""
    if ended.finish_reason in FINISHED and ended.finish_reason != "stop":
        return str(ended.finish_reason)
    return "tool_calls" if ended.tool_calls else "stop"


def calls_of(ended: RunEnded) -> list[dict[str, Any]]:
    """Return the functions to be called, as chat completions have them."""
    return [_call(one) for one in ended.tool_calls or ()]


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def segue(asked: Asked, ended: RunEnded) -> dict[str, Any]:
    """Return what we know of an answer beyond OpenAI's fields."""
    spent = ended.spent
    found: dict[str, Any] = {
        "run_id": ended.run.run_id,
        "category": ended.category,
        "role": ended.role,
        "model": ended.model,
        "simulated": spent.simulated,
        "cost_usd": spent.cost_usd,
        "cost_known": spent.cost_known,
        "baseline_usd": ended.baseline_usd,
        "saving_usd": saving_usd(ended),
        "calls": spent.calls,
        "took_s": round(max(0.0, (ended.ended_at - ended.run.born_at).total_seconds()), 6),
        "note": ended.note,
        "acknowledgement": ended.acknowledgement,
        "artifacts": [one.model_dump(mode="json") for one in ArtifactBody.every(ended.artifacts)],
    }
    if asked.workflow is not None:
        found["result"] = ended.result
    return found


def fingerprint(asked: Asked, *, simulated: bool) -> str:
    return f"segue-{asked.version}-simulated" if simulated else f"segue-{asked.version}"
