"""Events: the facts of a run, each on one subject of the log, written once only, never changed."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, JsonValue, NonNegativeFloat, NonNegativeInt, PositiveInt

from shared.contracts.callbacks import Callback
from shared.contracts.commands import (
    ChatRequest,
    FailedAttempt,
    Lineage,
    MediaJob,
    Spent,
    UnknownAttempt,
    WorkflowRequest,
)
from shared.contracts.ids import CallName, Category, Purpose, RunId
from shared.contracts.message import (
    OUTLINE_CHARS,
    Artifact,
    ChatMessage,
    Fault,
    Message,
    Part,
    Run,
    ToolCall,
    Usage,
    Usd,
)
from shared.contracts.workflow import Workflow


class RunAccepted(Message):
    """The run exists. `event.<tenant>.<run>.accepted`, by the first service that took its request."""

    run: Run
    request: ChatRequest | WorkflowRequest = Field(discriminator="kind")
    by: Literal["categorizer", "planner"]
    lineage: Lineage | None = None
    callback: Callback | None = None
    """Where the answer is POSTed; None: nowhere."""

    def outline(self) -> "RunAccepted":
        return self.model_copy(update={"request": self.request.outline()})


class RunCategorized(Message):
    """How the run is dealt with. `event.<tenant>.<run>.category`, by the categorizer."""

    run: Run
    category: Category | None = None
    """None: denied."""
    reason: str
    role: str | None = None
    """The role that answers, for L and M."""
    context_tokens: NonNegativeInt
    spent: Spent = Field(default_factory=Spent)
    fault: Fault | None = None


class RunPlanned(Message):
    """What the run will do. `event.<tenant>.<run>.plan`, by the planner.

    `workflow` is None when no plan could be had: then one direct call answers, and `note` says so.
    """

    run: Run
    workflow: Workflow | None = None
    source: Literal["model", "template", "request", "direct"]
    repairs: NonNegativeInt = 0
    note: str | None = None
    spent: Spent = Field(default_factory=Spent)
    plan_only: bool = False
    material: tuple[str, ...] = ()
    """The variables that are the request's own text, or what was said before it: no results."""
    parent: RunId | None = None
    """The run whose settled calls are taken over, but for those of `again`."""
    again: tuple[CallName, ...] = ()


class TaskExpanded(Message):
    """The workflow that a task's model wrote to be run in its place. `event.….expanded.<task>`, by the planner."""

    run: Run
    task: CallName
    workflow: Workflow


class ApprovalAsked(Message):
    """A task waits for a person. `event.….asked.<task>`, by the planner."""

    run: Run
    task: CallName
    output: str
    """The name that the task's output goes by."""
    message: str
    until: AwareDatetime
    default: Literal["approve", "reject"]


class ApprovalDecided(Message):
    """What was decided about a task that waits for a person. `event.….approval.<task>`, by the planner."""

    run: Run
    task: CallName
    approved: bool
    by: str
    """Who decided; `timeout` when nobody did in time."""
    comment: str | None = None


class RunHeld(Message):
    """The run is paused, or goes on. `event.….hold.<n>`, by the planner; the latest counts."""

    run: Run
    number: PositiveInt
    held: bool
    command: NonNegativeInt = 0
    """Of the command that wanted it, the sequence in its stream: delivered again, it is not done again."""
    by: str
    reason: str | None = None


class CallWrittenOff(Message):
    """What a call still cost after somebody else had settled it: a time-out, a cancellation. `event.….call.….late`.

    Of the attempts that the settlement does not know; one that it calls unknown is reconciled instead.
    """

    run: Run
    call: CallName
    purpose: Purpose
    role: str
    model: str | None = None
    usage: Usage = Field(default_factory=Usage)
    cost_usd: Usd = 0.0
    cost_known: bool = True
    attempts: tuple[PositiveInt, ...] = ()
    """Those that `cost_usd` is of."""
    unknown: tuple[UnknownAttempt, ...] = ()
    asks: tuple[PositiveInt, ...] = ()
    """Of the unknown ones, those that are asked after at their provider."""
    settled_at: AwareDatetime | None = None


class AttemptReconciled(Message):
    """What an attempt cost whose call was settled without knowing it. `event.….call.….attempt.<n>.reconciled`, by the
    executor. With it the cost is known; it counts on top of what the call's settlement says.
    """

    run: Run
    call: CallName
    purpose: Purpose
    attempt: PositiveInt
    role: str = ""
    provider: str = ""
    model: str = ""
    found: bool
    """False: it never arrived at its provider, and cost nothing."""
    by: Literal["provider", "executor"]
    """By whose word: the provider's, or that of the executor that made it and came late."""
    usage: Usage = Field(default_factory=Usage)
    cost_usd: Usd = 0.0
    settled_at: AwareDatetime
    """When its call was settled: the day that its cost counts on."""


class AttemptStarted(Message):
    """An attempt may be sent now: whoever wrote this may call. `event.….call.<purpose>.<call>.attempt.<n>`.

    An attempt without a later word in `settled` died with its executor: its outcome is unknown.
    """

    run: Run
    call: CallName
    attempt: PositiveInt
    role: str
    variant: str | None = None
    """Which of the role's models it is asked of, where there are several."""
    provider: str
    model: str
    reserved_usd: Usd = 0.0
    """The most that this attempt can cost by the price table; 0 where the price is unknown."""
    claimed_by: str = Field(min_length=1)
    """`<executor>.<claim>`, random: tells a claim whose write timed out from somebody else's."""
    started_at: AwareDatetime


class JobSubmitted(Message):
    """A provider has taken an attempt's job on. `event.….call.<purpose>.<call>.attempt.<n>.job`, by the executor.

    Whoever finds it goes on asking for that job instead of giving it again.
    """

    run: Run
    call: CallName
    job: MediaJob


class Progress(Message):
    """How far a workflow is. In the `runs` bucket; the planner's own; it is there from the run's beginning to its end.

    A cache of the log that parallel settlements meet in: it can be rebuilt from the plan and what is settled.
    """

    states: dict[str, Annotated[str, Field(pattern=r"^[saredpfkcu]$")]] = Field(default_factory=dict)
    """By task, one letter each (`shared.workflows.outputs.State`); a task that is not here waits."""
    fans: dict[str, Annotated[str, Field(pattern=r"^[wsrdpfcu]*$")]] = Field(default_factory=dict)
    """By task with `for_each`: a letter for every item."""
    held: bool = False
    holds: NonNegativeInt = 0
    """How many `hold` facts are taken in."""
    cost_usd: Usd = 0.0
    """Of the settled calls that are taken in."""
    rebuilt: bool = False
    """The record was lost and made again, perhaps in another order: what is due may be settled on the log already."""


class CallSettled(Message):
    """A call is over. `event.….call.<purpose>.<call>.settled`, by the executor. It never changes."""

    run: Run
    call: CallName
    purpose: Purpose
    outcome: Literal["answered", "failed"]
    text: str | None = None
    text_chars: NonNegativeInt | None = None
    """Only in an outline, whose text is cut: how long the whole one is."""
    artifacts: tuple[Artifact, ...] = ()
    """What it made; `text` is their paths then, one a line."""
    tool_calls: tuple[ToolCall, ...] | None = None
    """Functions of the caller's that the model wants called."""
    embeddings: tuple[str, ...] | None = None
    """Vectors, each as base64 of little-endian float32, in the order of what was to be embedded."""
    fault: Fault | None = None
    role: str
    """The role that answered: another than asked for after a fallback."""
    asked_role: str
    variant: str | None = None
    """Which of the role's models answered, where there are several."""
    provider: str | None = None
    model: str | None = None
    finish_reason: str | None = None
    usage: Usage = Field(default_factory=Usage)
    cost_usd: Usd = 0.0
    """Of all its attempts."""
    cost_known: bool = True
    priced_by: Literal["provider", "override", "table"] | None = None
    """By whose word the attempt that answered cost what it did; None: nobody's."""
    simulated: bool = False
    attempts: NonNegativeInt = 0
    failed: tuple[FailedAttempt, ...] = ()
    unknown: tuple[UnknownAttempt, ...] = ()
    asks: tuple[PositiveInt, ...] = ()
    """Attempts of unknown cost that are asked after at their provider; see `AttemptReconciled`."""
    generation_id: str | None = None
    """What the provider calls the attempt that answered, where its cost is asked after."""
    settled_at: AwareDatetime | None = None
    """Said where there is something to ask after."""
    took_s: NonNegativeFloat = 0.0
    """Of the attempt that answered, as the executor saw it."""
    category: Category | None = None
    note: str | None = None
    spent: Spent = Field(default_factory=Spent)
    """By the calls of this run before this one, as the command said."""
    reused_from: RunId | None = None
    """Taken over from this run: it cost nothing here, and `saved_usd` there."""
    saved_usd: Usd = 0.0
    cached: bool = False
    """Answered from the cache: it cost nothing here, and `saved_usd` when it was asked."""

    def outline(self) -> "CallSettled":
        text = self.text or ""
        return self.model_copy(update={"text": text[:OUTLINE_CHARS], "text_chars": len(text), "embeddings": None})

    @property
    def chars(self) -> int:
        """How long the whole text is."""
        return len(self.text or "") if self.text_chars is None else self.text_chars

    def as_spent(self) -> Spent:
        """Return what this call alone cost."""
        return Spent(
            calls=1,
            cost_usd=self.cost_usd,
            usage=self.usage,
            simulated=self.simulated,
            cost_known=self.cost_known,
            reused=1 if self.reused_from is not None or self.cached else 0,
            saved_usd=self.saved_usd,
        )


class ResponseDeleted(Message):
    """The caller wants a response no more: it is not shown to him again. `event.….deleted`, by the gateway.

    The run stays on the log: what it did and cost is not undone.
    """

    run: Run


class FailedTask(Part):
    """A task that failed, in a run's end."""

    task: str
    """Its output's name."""
    code: str
    message: str


class Failure(Part):
    """What failed, what is kept of it, and what can be done now: as data."""

    failed: tuple[FailedTask, ...] = ()
    kept: tuple[str, ...] = ()
    """Outputs that are there; a retry pays for none of them again."""
    not_done: tuple[str, ...] = ()
    """Outputs of tasks that were not begun, or not ended."""
    next_steps: tuple[str, ...] = ()


class RunEnded(Message):
    """The one end of a run. `event.<tenant>.<run>.ended`, by the finisher."""

    run: Run
    outcome: Literal["completed", "failed", "denied", "cancelled"]
    category: Category | None = None
    text: str | None = None
    acknowledgement: str | None = None
    result: dict[str, JsonValue] | None = None
    """A workflow's variables and outputs by name."""
    artifacts: tuple[Artifact, ...] = ()
    """Images and videos that its calls made, in the order of the tasks."""
    tool_calls: tuple[ToolCall, ...] | None = None
    """Functions of the caller's that are to be called; he comes back with their results."""
    finish_reason: str | None = None
    """Of the one call that answered, as its provider says."""
    fault: Fault | None = None
    failure: Failure | None = None
    """Of a workflow that failed, was cancelled or ran out of time."""
    note: str | None = None
    role: str | None = None
    model: str | None = None
    spent: Spent = Field(default_factory=Spent)
    baseline_usd: Usd | None = None
    """What the answer would have cost as one call to the baseline model; None: there is none, or it has no price."""
    ended_at: AwareDatetime

    def outline(self) -> "RunEnded":
        return self.model_copy(
            update={"text": (self.text or "")[:OUTLINE_CHARS], "result": dict.fromkeys(self.result or ())}
        )


class Turn(Part):
    """One question and its answer in a session."""

    run_id: str
    user: ChatMessage
    assistant: ChatMessage | None = None
    asked_at: AwareDatetime
    answered_at: AwareDatetime


class Session(Message):
    """A conversation, kept in the `sessions` bucket under `<tenant>.<session>`; written by the finisher."""

    created_at: AwareDatetime
    turns: tuple[Turn, ...] = ()
