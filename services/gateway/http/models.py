"""The bodies that the HTTP API takes and gives. Fields may be added, never renamed."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, NonNegativeInt

from shared.contracts.ids import Category, Priority, SessionId
from shared.contracts.message import Artifact, ErrorType, Usage

MOST_IMAGES = 16


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("the message is empty; say what you want to know")
    return text


def _image(url: str) -> str:
    if not url.startswith(("https://", "http://", "data:image/")):
        raise ValueError("an image is an http(s) URL or a data:image/… URL")
    return url


class Body(BaseModel):
    """A frozen body. What it does not know it ignores."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    def to_json(self) -> bytes:
        return self.__pydantic_serializer__.to_json(self)


class ChatBody(Body):
    """`POST /chat`"""

    message: Annotated[str, AfterValidator(_said)] = Field(examples=["Why is the sky blue?"])
    session_id: SessionId | None = Field(
        default=None, description="Goes on with this conversation; without it a new one begins."
    )
    context_tokens: Annotated[int, Field(ge=0, le=1_000_000_000)] | None = Field(
        default=None, description="Tokens of context that come on top of the message and the session."
    )
    priority: Priority = Priority.MEDIUM
    images: tuple[Annotated[str, AfterValidator(_image)], ...] = Field(default=(), max_length=MOST_IMAGES)
    stream: bool = Field(default=False, description="Answer with server-sent events.")
    in_background: bool = Field(
        default=False, alias="async", description="Answer at once (202) with the run's id, and look at it later."
    )
    timeout_s: float | None = Field(
        default=None, gt=0, le=86_400, description="Seconds until the run's deadline; absent: the configuration's."
    )
    callback_url: str | None = Field(
        default=None, description="The answer is POSTed there, signed, when the run has ended: docs/callbacks.md."
    )


class PlanBody(Body):
    """`POST /plan`: a message to plan for; or a workflow, or a template, to look at before it runs."""

    message: Annotated[str, AfterValidator(_said)] | None = Field(
        default=None, examples=["Compare three electric bikes, then recommend one"]
    )
    workflow: list[JsonValue] | None = Field(default=None, description="Instead: queues, as in `POST /workflow`.")
    template: str | None = Field(default=None, max_length=128, description="Instead: a template's name.")
    variables: dict[str, JsonValue] = Field(default_factory=dict, description="Of the workflow or the template.")
    images: tuple[Annotated[str, AfterValidator(_image)], ...] = Field(default=(), max_length=MOST_IMAGES)
    priority: Priority = Priority.MEDIUM


class BegunAnswer(Body):
    """A run that has begun: nobody waits for it here."""

    run_id: str
    session_id: str | None
    status_url: str = Field(description="Where it is, and what it needs.")
    events_url: str = Field(description="What happens to it, as it happens.")


class UsageBody(Body):
    """Tokens as the providers counted them, of all calls of the run."""

    prompt_tokens: NonNegativeInt
    completion_tokens: NonNegativeInt
    total_tokens: NonNegativeInt

    @classmethod
    def of(cls, usage: Usage) -> "UsageBody":
        return cls(
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.total_tokens,
        )


class ArtifactBody(Body):
    """An image or a video that a model made."""

    url: str = Field(description="Where it is, on this server.")
    media_type: str
    bytes: NonNegativeInt
    expires_at: AwareDatetime = Field(description="Until when it is kept.")

    @classmethod
    def every(cls, artifacts: Sequence[Artifact]) -> "list[ArtifactBody]":
        return [
            cls(url=one.path, media_type=one.media_type, bytes=one.bytes, expires_at=one.expires_at)
            for one in artifacts
        ]


class ChatAnswer(Body):
    """The answer to a message."""

    session_id: str | None
    response: str
    category: Category | None
    timestamp: AwareDatetime
    model_used: str | None
    run_id: str
    acknowledgement: str | None = Field(description="What the caller was told at once, for orchestrated requests.")
    result: dict[str, JsonValue] | None = Field(
        default=None,
        description="Of an orchestrated request: what each step put out, whole, by name; one that is too long to travel"
        " says where it is (`href`).",
    )
    cost_usd: float
    cost_known: bool = Field(default=True, description="False: some call's price is not known, so the cost is more.")
    baseline_usd: float | None = Field(
        default=None, description="What the answer would have cost as one call to `orchestration.baselineModel`."
    )
    saving_usd: float | None = Field(default=None, description="The baseline less the cost; negative: it cost more.")
    usage: UsageBody
    took_s: float
    simulated: bool = Field(description="A simulated provider answered, at least in part.")
    calls: NonNegativeInt
    note: str | None = Field(description="Why the request was answered in another way than it would be usually.")
    artifacts: list[ArtifactBody] = Field(default=[], description="Images and videos that were made for it.")


class PlannedTask(Body):
    """What one task will probably take."""

    output: str
    role: str | None
    starts_s: float = Field(description="Seconds from the beginning.")
    seconds: float
    calls: int
    tokens: int
    cost_usd: float
    cost_known: bool


class EstimateBody(Body):
    """What a workflow will probably take."""

    seconds: float = Field(description="Of the longest chain of tasks that wait for each other.")
    critical_path: list[str] = Field(description="Outputs of that chain's tasks, in order.")
    cost_usd: float
    cost_known: bool = Field(description="False: some price is not known, so that it costs more.")
    calls: int
    tokens: int
    basis: str = Field(description="`measured`: by this system's own calls; `assumed`: some figures are not.")
    notes: list[str] = Field(description="What is not counted, and what is assumed.")
    tasks: list[PlannedTask]


class PlanAnswer(Body):
    """A workflow that was planned and not carried out: send it, edited or not, to `POST /workflow`."""

    run_id: str | None = Field(description="Of the run that planned it; null: it was given, not planned.")
    workflow: list[JsonValue] | None = Field(description="null: no valid plan could be had, `note` says why.")
    variables: dict[str, JsonValue]
    note: str | None
    mermaid: str | None = Field(description="The workflow as a Mermaid flowchart.")
    estimate: EstimateBody | None = Field(description="What carrying it out will probably take.")
    cost_usd: float = Field(description="Of planning.")
    cost_known: bool
    took_s: float
    simulated: bool


class WorkflowAnswer(Body):
    """The result of a workflow."""

    status: str
    result: dict[str, JsonValue] = Field(description="Variables and outputs by name.")
    execution_time: float = Field(description="Seconds.")
    run_id: str
    cost_usd: float
    cost_known: bool = Field(default=True, description="False: some call's price is not known, so the cost is more.")
    baseline_usd: float | None = Field(
        default=None, description="What the answer would have cost as one call to `orchestration.baselineModel`."
    )
    saving_usd: float | None = Field(default=None, description="The baseline less the cost; negative: it cost more.")
    usage: UsageBody
    simulated: bool
    calls: NonNegativeInt
    note: str | None
    artifacts: list[ArtifactBody] = Field(default=[], description="Images and videos that were made.")


class ErrorBody(Body):
    """Why a run ended as it did, for programs."""

    type: ErrorType
    code: str
    message: str


class ProblemBody(Body):
    """One thing that is wrong with a request."""

    path: str = Field(description="JSON path from the body's root.")
    code: str
    message: str


class Failure(Body):
    """Every answer that is not a success has `detail`."""

    detail: str | list[ProblemBody]


class RunFailure(Body):
    """The answer for a run that did not succeed."""

    detail: str
    run_id: str
    session_id: str | None = None
    error: ErrorBody | None = None
    result: dict[str, JsonValue] | None = None
    cost_usd: float = 0.0
    cost_known: bool = True


class SessionMessage(Body):
    role: str
    content: str
    timestamp: AwareDatetime
    images: tuple[str, ...] = ()


class SessionAnswer(Body):
    session_id: str
    created_at: AwareDatetime
    messages: list[SessionMessage]


class SessionDeleted(Body):
    status: str
    session_id: str


class HealthAnswer(Body):
    status: str
    timestamp: AwareDatetime
    version: str
    models_available: NonNegativeInt
    name: str
    problem: str | None = None


class AddonsAnswer(Body):
    addons: list[str]
    count: NonNegativeInt


class StatsAnswer(Body):
    """What is going on, from the streams' own counts."""

    active_sessions: NonNegativeInt = Field(description="Conversations that are kept.")
    total_messages: NonNegativeInt = Field(
        description="Chat requests taken into the queue since the system was set up, over HTTP and from the bus."
    )
    uptime_seconds: float = Field(description="Of this gateway process.")
    timestamp: AwareDatetime
    waiting_requests: NonNegativeInt = Field(description="Requests that wait for their answer in this gateway process.")
    queued_requests: NonNegativeInt = Field(description="Chat requests that are queued or being categorised.")
    queued_workflows: NonNegativeInt = Field(description="Workflows that are queued or being planned.")
    queued_calls: NonNegativeInt = Field(description="Model calls that are queued or being made.")
    models_available: NonNegativeInt
    version: str
