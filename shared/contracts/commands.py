"""Commands: what one service asks of another. Each has one reader."""

from typing import Literal

from pydantic import AwareDatetime, Field, JsonValue, NonNegativeFloat, NonNegativeInt, PositiveInt

from shared.contracts.callbacks import Callback
from shared.contracts.conversation import Conversation, Embedded, Parameters
from shared.contracts.ids import CallName, Category, Lane, Purpose, RunId, TenantId, Verb
from shared.contracts.message import OUTLINE_CHARS, ChatMessage, Fault, Message, Part, Run, Usage, Usd
from shared.contracts.workflow import TaskConfig, Workflow


class ChatRequest(Part):
    """A message that a person or a program wants answered."""

    kind: Literal["chat"] = "chat"
    message: str
    images: tuple[str, ...] = ()
    """http(s) URLs or data URLs."""
    context_tokens: NonNegativeInt = 0
    """Tokens of context that the caller says come on top of the message and the session."""
    new_session: bool = False
    """The session was made for this request: there is no history to read."""
    conversation: Conversation | None = None
    """The caller carries the conversation himself; `message` and `images` are its last question then."""

    def outline(self) -> "ChatRequest":
        cut: dict[str, object] = {"message": self.message[:OUTLINE_CHARS], "images": ()}
        if self.conversation is not None:
            cut["conversation"] = Conversation(model=self.conversation.model, role=self.conversation.role)
        return self.model_copy(update=cut)


class WorkflowRequest(Part):
    """A workflow to run as it is: the caller's own, or a template's."""

    kind: Literal["workflow"] = "workflow"
    workflow: Workflow
    template: str | None = None
    template_version: PositiveInt | None = None
    """None: the configuration file's."""
    schedule: str | None = None
    """The schedule that began it."""
    conversation: Conversation | None = None
    """The OpenAI request that it answers, without its messages: to be said back."""

    def outline(self) -> "WorkflowRequest":
        return self.model_copy(
            update={"workflow": self.workflow.model_copy(update={"variables": {}}), "conversation": None}
        )


class Spent(Part):
    """What a run has cost so far, so that nobody needs to read it again."""

    calls: NonNegativeInt = 0
    cost_usd: Usd = 0.0
    usage: Usage = Field(default_factory=Usage)
    simulated: bool = False
    cost_known: bool = True
    """False: at least one call's price nobody knows, so that `cost_usd` is too low."""
    reused: NonNegativeInt = 0
    """Calls whose answers were taken from an earlier run; among `calls`."""
    saved_usd: Usd = 0.0
    """What those had cost."""

    def plus(self, other: "Spent") -> "Spent":
        return Spent(
            calls=self.calls + other.calls,
            cost_usd=self.cost_usd + other.cost_usd,
            usage=self.usage.plus(other.usage),
            simulated=self.simulated or other.simulated,
            cost_known=self.cost_known and other.cost_known,
            reused=self.reused + other.reused,
            saved_usd=self.saved_usd + other.saved_usd,
        )


class Edit(Part):
    """What a fork changes in one task."""

    prompt: str | None = None
    model: str | None = None
    config: TaskConfig | None = None


class Lineage(Part):
    """Where a run comes from. What its parent has settled well is taken from there, not paid for again."""

    parent: RunId
    kind: Literal["retry", "fork"]
    start_at: tuple[str, ...] = ()
    """Outputs of the tasks that are done again, with all that follows from them."""
    edits: dict[str, Edit] = Field(default_factory=dict)
    """By a task's output; such a task is done again."""
    variables: dict[str, JsonValue] = Field(default_factory=dict)
    """Variables with other values; whoever refers to them is done again."""


class SubmitRequest(Message):
    """A request. Written by the gateway or by another system; read by the categorizer.

    Subject: `segue.request.<tenant>.<priority>`. Safe to receive twice: `accepted` is written once only.
    """

    run: Run
    request: ChatRequest
    source: Literal["gateway", "bus"] = "bus"
    lineage: Lineage | None = None
    callback: Callback | None = None


class PlanRun(Message):
    """Plan and run a workflow. Written by the categorizer (category H) or the gateway (a ready workflow).

    Subject: `segue.workflow.<tenant>.<priority>.<run>`. Read by the planner.
    """

    run: Run
    request: ChatRequest | WorkflowRequest = Field(discriminator="kind")
    history: tuple[ChatMessage, ...] = ()
    """The session, for a chat request."""
    spent: Spent = Field(default_factory=Spent)
    source: Literal["gateway", "categorizer", "bus"] = "bus"
    """Who wrote it: a run that comes by the bus gets its deadline from the planner."""
    lineage: Lineage | None = None
    callback: Callback | None = None
    plan_only: bool = False
    """The run ends with its plan; nothing of it is carried out."""


class FailedAttempt(Part):
    """An attempt that did not give an answer, as it is handed on while the call waits for the next one."""

    attempt: PositiveInt
    role: str
    fault: Fault
    backpressure: bool = False
    """The provider said "later": it waits and uses up no retry."""
    usage: Usage = Field(default_factory=Usage)
    cost_usd: Usd = 0.0
    cost_known: bool = True
    """False: the provider may have charged for it, and did not say what (a cut stream, a time-out)."""
    provider: str = ""
    model: str = ""
    reserved_usd: Usd = 0.0
    """Of one whose cost is not known: the most that it can be."""
    started_at: AwareDatetime | None = None
    generation_id: str | None = None
    """What its provider calls it, where that was learnt and its cost is not known."""


class UnknownAttempt(Part):
    """An attempt whose cost nobody knows: mostly because its outcome died with its executor."""

    attempt: PositiveInt
    reserved_usd: Usd = 0.0
    """The most that it can cost."""
    role: str = ""
    provider: str = ""
    model: str = ""
    code: str = "unknown"
    """How it failed, where that is known: a fault's code."""
    started_at: AwareDatetime | None = None
    generation_id: str | None = None


class MediaJob(Part):
    """A long job that a provider has taken on: it is asked how far it is, and never given a second time."""

    attempt: PositiveInt
    role: str
    provider: str
    model: str
    operation: str = Field(min_length=1, max_length=2_000)
    """The provider's own name for it."""
    reserved_usd: Usd = 0.0
    submitted_at: AwareDatetime
    polls: NonNegativeInt = 0
    """How often it was asked in vain for want of an answer, in a row."""


class ExecuteCall(Message):
    """Ask a model. Read by the executor of its lane.

    Subject: `segue.call.<lane>.<priority>.<tenant>.<run>.<purpose>.<call>`. A copy is refused while the first is
    queued; whoever takes one reads the log before it buys anything.
    """

    run: Run
    call: CallName
    purpose: Purpose
    lane: Lane = Lane.TEXT
    role: str
    """A role of `ai_models`, or the name of a task's model."""
    messages: tuple[ChatMessage, ...]
    temperature: float | None = None
    max_tokens: PositiveInt | None = None
    top_p: float | None = None
    parameters: Parameters | None = None
    """What the caller himself says of this call; those of the three above are there too."""
    embed: tuple[Embedded, ...] | None = None
    """What is to be embedded: then there are no messages."""
    response_schema: dict[str, JsonValue] | None = None
    """JSON Schema that the answer must follow, for providers that can be told."""
    response_schema_name: str | None = None
    stream: bool = False
    """Publish token deltas while the answer comes in."""
    timeout_s: NonNegativeFloat | None = None
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """Of images and videos: `aspect_ratio`, `duration`, …, over the role's."""
    cache: bool | None = None
    """Whether an earlier answer to the very same call will do; None: if the model is asked at temperature 0."""
    category: Category | None = None
    note: str | None = None
    """Said in the answer: why this run was answered in another way than asked."""
    spent: Spent = Field(default_factory=Spent)
    """By the calls of this run before this one."""
    failed: tuple[FailedAttempt, ...] = ()
    """Attempts so far, when this is the call put back to wait."""
    unknown: tuple[UnknownAttempt, ...] = ()
    """Of those before, the ones whose outcome died with their executor."""
    job: MediaJob | None = None
    """The job that its latest attempt began, when this is the call put back until that is looked at again."""


class ReconcileAttempt(Message):
    """Ask an attempt's provider what became of it, and what it cost. Kept by the bus as a scheduled message, fired to
    `segue.reconcile.<tenant>.<run>.<purpose>.<call>.<attempt>`; written and read by the executor.

    One whose `AttemptReconciled` is on the log by then does nothing.
    """

    run: Run
    call: CallName
    purpose: Purpose
    attempt: UnknownAttempt
    settled_at: AwareDatetime
    """When its call was settled: the day that its cost counts on."""
    asked: NonNegativeInt = 0
    """How often its provider was asked before."""


class FinishRun(Message):
    """End a run. Written by the categorizer (a denial), the planner (a workflow that is through), and by whoever buries
    a message that a run cannot go on without.

    Subject: `segue.finish.<priority>.<run>`. Read by the finisher.
    """

    run: Run
    outcome: Literal["denied", "failed", "workflow", "planned"]
    fault: Fault | None = None
    states: dict[str, str] = Field(default_factory=dict)
    """Of a workflow that is through: its tasks' states, as in `Progress`."""
    fans: dict[str, str] = Field(default_factory=dict)


Taker = Literal["categorizer", "planner"]
"""Who takes runs up."""


class DeadlinePassed(Message):
    """A run's time is over. Kept by the bus as a scheduled message, fired to `segue.deadline.<run>`.

    Read by the finisher. A run that has ended took its timer back; one that fires late finds `ended` and does nothing
    but what its end left undone: whoever takes up a run that had ended before sends it for that. Of a run that nobody
    has taken up it is all that there is, so the gateway reads it too.
    """

    run: Run
    by: Taker | None = None
    """Who is to take it up, as far as that was known."""
    asked: str | None = None
    """Of a keyed run that nobody has taken up: a digest of what it was asked, so that others are told apart."""


class BeginRun(Message):
    """Begin a planned run as soon as there is a place for one more workflow. Subject: `segue.begin.<priority>.<run>`.

    Written by the planner when there is none, and read by it: in order, one at a time.
    """

    run: Run


class TaskDue(Message):
    """A task's time is over, or that of the person who is asked. Kept by the bus as a scheduled message, fired to
    `segue.due.task.<run>.<task>`; read by the planner. A task that is settled by then is left alone.
    """

    run: Run
    task: CallName
    question: bool = False
    """Of the time in which a person was to decide, not of the task's own."""


class ControlRun(Message):
    """What a person or a program wants of a run that goes on. Subject: `segue.control.<tenant>.<run>.<verb>`.

    `cancel` is read by the finisher, the others by the planner. One that does not fit the run's state changes nothing.
    """

    run_id: RunId
    tenant: TenantId
    verb: Verb
    by: str = "somebody"
    """Who wants it, as far as that is known."""
    reason: str | None = None
    task: str | None = None
    """`approve`, `reject`: the output of the task that waits; absent: the only one that does."""


class CancelRun(Message):
    """Stop working for a run, or for one of its calls. A hint over core NATS on `segue.cancel.<tenant>.<run>`; the log
    decides."""

    run_id: str
    reason: str = "cancelled"
    call: CallName | None = None
