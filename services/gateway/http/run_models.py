"""The bodies about runs: how they are seen, and what can be wanted of them."""

from typing import Literal

from pydantic import AwareDatetime, Field, JsonValue, NonNegativeInt

from services.gateway.http.models import Body, ErrorBody
from shared.contracts.callbacks import CallbackAttempt
from shared.contracts.commands import Edit
from shared.contracts.events import Failure
from shared.contracts.ids import Category

ListedState = Literal[
    "accepted",
    "planning",
    "waiting",
    "running",
    "paused",
    "awaiting_approval",
    "completed",
    "failed",
    "denied",
    "cancelled",
]
RunState = Literal["queued", ListedState]
TaskState = Literal["waiting", "running", "awaiting_approval", "repairing", "done", "failed", "skipped", "substituted"]


class AttemptView(Body):
    """One request to one provider."""

    attempt: int
    role: str
    model: str
    started_at: AwareDatetime
    outcome: str = Field(description="`answered`, a fault's code, `unknown` (its executor died), or `running`.")
    cost_usd: float | None = Field(default=None, description="null: nobody knows, or it is not over.")
    reserved_usd: float | None = Field(
        default=None, description="Of an attempt whose cost nobody knows: the most that it can be."
    )
    asked_after: bool = Field(default=False, description="Its provider is asked what it cost, until it says.")
    reconciled: Literal["found", "never_arrived"] | None = Field(
        default=None, description="What was found of an attempt of unknown cost: `cost_usd` is from there."
    )


class TaskView(Body):
    """A task of the workflow, or a call beside it."""

    name: str
    output: str | None = None
    state: TaskState
    role: str | None = None
    model: str | None = None
    after: list[str] = Field(default=[], description="Outputs of the tasks that it comes after.")
    attempts: list[AttemptView] = Field(default=[], description="Requests to providers, oldest first.")
    items: dict[str, int] | None = Field(default=None, description="Of a `for_each`: how many are in which state.")
    tasks: list["TaskView"] = Field(default=[], description="Those of the workflow that it stands for.")
    took_s: float | None = None
    cost_usd: float = 0.0
    tokens: NonNegativeInt = 0
    reused_from: str | None = None
    output_href: str | None = Field(default=None, description="Where the whole output is.")
    output_chars: NonNegativeInt | None = None
    preview: str | None = None
    error: ErrorBody | None = None
    question: str | None = Field(default=None, description="What a person is asked.")


class Ledger(Body):
    """What the run cost, by what is on its log now."""

    calls: NonNegativeInt
    cost_usd: float
    cost_known: bool
    unknown_attempts: NonNegativeInt = Field(
        default=0, description="Attempts whose cost nobody knows, not in the sum; see `GET /unknown-attempts`."
    )
    reserved_usd: float = Field(default=0.0, description="The most that those can cost.")
    tokens: NonNegativeInt
    baseline_usd: float | None = Field(
        description="The answer as one call to `orchestration.baselineModel`; once ended."
    )
    saving_usd: float | None = Field(description="The baseline less the cost; negative: it cost more.")
    reused: NonNegativeInt = Field(description="Calls whose answers were taken over from an earlier run.")
    saved_usd: float


class DeliveryView(Body):
    """One delivery of the answer to the callback's URL."""

    number: int
    state: Literal["waiting", "delivered", "given_up"]
    reason: str | None = Field(default=None, description="Why it was given up.")
    message_id: str | None = Field(default=None, description="The `webhook-id` that the receiver got.")
    attempts: list[CallbackAttempt]
    settled_at: AwareDatetime | None = None


class CallbackView(Body):
    """Where the answer is POSTed, and what has become of that."""

    url: str
    deliveries: list[DeliveryView] = Field(description="Oldest first; none before the run has ended.")


class RunView(Body):
    """A run, as the log has it now."""

    run_id: str
    state: RunState
    waits_for: str | None = Field(description="Of a run that has not ended: for what.")
    waits_until: AwareDatetime | None = Field(description="And until when at the most.")
    kind: Literal["chat", "workflow"] | None = Field(description="null: nobody has taken the run up.")
    category: Category | None
    template: str | None
    plan: str | None = Field(description="Where its workflow comes from: model, template, request or direct.")
    note: str | None
    session_id: str | None
    priority: str
    born_at: AwareDatetime
    deadline_at: AwareDatetime
    ended_at: AwareDatetime | None
    parent: str | None = Field(description="The run that this one is a retry or a fork of.")
    lineage: Literal["retry", "fork"] | None
    tasks: list[TaskView]
    calls: list[TaskView]
    ledger: Ledger
    error: ErrorBody | None
    failure: Failure | None
    callback: CallbackView | None = None


class Span(Body):
    """Something that took time. Seconds from the run's birth."""

    what: Literal["attempt", "approval"]
    name: str
    label: str
    from_s: float
    to_s: float | None = Field(description="null: it is not over.")
    outcome: str


class TimelineView(Body):
    """What took how long."""

    run_id: str
    total_s: float
    spans: list[Span]


class Wanted(Body):
    """`POST /runs/{id}/cancel`, `pause`, `resume`, `approve`, `reject`"""

    reason: str | None = Field(default=None, max_length=2_000)
    task: str | None = Field(default=None, description="`approve`, `reject`: the output of the task that waits.")


class RetryBody(Body):
    """`POST /runs/{id}/retry`"""

    callback_url: str | None = Field(
        default=None,
        description="Where the new run's answer is POSTed; null: nowhere; absent: where the parent's was to be.",
    )


class ForkBody(Body):
    """`POST /runs/{id}/fork`"""

    callback_url: str | None = Field(
        default=None, description="Where the new run's answer is POSTed; the parent's callback is not taken over."
    )

    start_at: tuple[str, ...] = Field(default=(), description="Outputs of tasks to do again, with what follows.")
    edits: dict[str, Edit] = Field(default_factory=dict, description="By output: another prompt, model or config.")
    variables: dict[str, JsonValue] = Field(default_factory=dict, description="Variables with other values.")
