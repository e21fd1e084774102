"""What outside systems say to Segue over the bus, each in its own account, and what they are told. (docs/bus.md)

Fields may be added, never renamed. Whose a request is says the account that it comes from, never its body.
"""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, JsonValue, NonNegativeInt, StringConstraints

from shared.contracts.answer import RunAnswer
from shared.contracts.callbacks import MOST_URL_CHARS
from shared.contracts.ids import Priority, SessionId
from shared.contracts.message import Part

MOST_IMAGES = 16


class Asked(Part):
    """What all requests may say."""

    priority: Priority = Field(default=Priority.MEDIUM, description="Who goes first under load.")
    timeout_s: float | None = Field(
        default=None, gt=0, le=86_400, description="Seconds until the run's deadline; absent: the configuration's."
    )
    callback_url: str | None = Field(
        default=None,
        max_length=MOST_URL_CHARS + 1,
        description="The answer is POSTed there too, see docs/callbacks.md.",
    )


class AskChat(Asked):
    """A message to be answered: directly, or by a workflow of several models where that helps."""

    message: Annotated[str, StringConstraints(pattern=r"\S")] = Field(description="What somebody wants to know.")
    session_id: SessionId | None = Field(
        default=None, description="Goes on with this conversation; without it a new one begins."
    )
    context_tokens: int = Field(
        default=0, ge=0, le=1_000_000_000, description="Tokens of context that come on top of message and session."
    )
    images: tuple[Annotated[str, StringConstraints(pattern=r"^(https?://|data:image/)")], ...] = Field(
        default=(), max_length=MOST_IMAGES, description="http(s) URLs or data:image/… URLs."
    )


class AskWorkflow(Asked):
    """A workflow to be run as it is; docs/workflows.md says what it may have."""

    workflow: list[JsonValue] = Field(description="Queues of tasks, as in `POST /workflow`.")
    variables: dict[str, JsonValue] = Field(default_factory=dict, description="What `{name}` in prompts stands for.")


class AskTemplate(Asked):
    """A template to be run. Its name is part of the subject."""

    variables: dict[str, JsonValue] = Field(default_factory=dict, description="The template's parameters.")


class AskControl(Part):
    """What is wanted of a run that goes on. The run and the verb are part of the subject."""

    reason: str | None = Field(default=None, max_length=2_000, description="Why; it is kept with the run.")
    task: str | None = Field(default=None, description="`approve`, `reject`: the output of the task that waits.")


class AskRead(Part):
    """Where a run is, and its answer. The run is part of the subject."""

    part: str | None = Field(
        default=None,
        max_length=200,
        description="Of an answer that is too long for one message: `response` or `result.<name>`, piece by piece.",
    )
    offset: NonNegativeInt = Field(default=0, description="Characters of the part that are there already.")


class Begun(Part):
    """The request is stored: it will be answered, whatever crashes. A repeated one (`Nats-Msg-Id`) is the same run."""

    ok: Literal[True] = True
    run_id: str
    session_id: str | None = None
    deadline_at: AwareDatetime = Field(description="When the run has ended at the latest.")


class Steered(Part):
    """The wish is stored; it counts as soon as the run's live events say so."""

    ok: Literal[True] = True
    run_id: str
    verb: str
    state: str = Field(description="The run's state when it was asked.")


class RunRead(Part):
    """Where a run is, by the log."""

    ok: Literal[True] = True
    run_id: str
    state: str = Field(
        description="queued, accepted, planning, waiting, running, paused, awaiting_approval; at the end completed, "
        "failed, denied or cancelled."
    )
    waits_for: str | None = None
    waits_until: AwareDatetime | None = None
    answer: RunAnswer | None = Field(default=None, description="Once the run has ended.")


class PieceRead(Part):
    """A piece of a part of an answer."""

    ok: Literal[True] = True
    run_id: str
    part: str
    text: str
    offset: NonNegativeInt
    next_offset: NonNegativeInt | None = Field(default=None, description="Ask on from here; absent: that was all.")


class Wrong(Part):
    """One thing that is wrong with a request."""

    path: str = Field(description="JSON path from the body's root.")
    code: str
    message: str


class Refused(Part):
    """The request was not taken, and nothing of it is kept."""

    ok: Literal[False] = False
    status: int = Field(
        description="As over HTTP: 422 change it, 403 not yours, 404, 409, 429 and 503 come back later."
    )
    detail: str | tuple[Wrong, ...] = Field(description="What is wrong and what to do.")
    retry_after_s: float | None = None
