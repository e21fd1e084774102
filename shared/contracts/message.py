"""What every message shares: the frozen model, its version and the run that it belongs to."""

from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, ValidationError

from shared.contracts.ids import Priority, RunId, SessionId, TenantId, Token

VERSION: Final = 1
"""The version that this build writes. It reads the same; a later one is refused, not guessed at."""


ARTIFACT_PATH: Final = "/artifacts/"
OUTLINE_CHARS: Final = 500
"""What an outline keeps of a long text."""


class Unreadable(Exception):
    """A message is not what its subject promises: not JSON, not of the schema, or of a later version."""


class Part(BaseModel):
    """A frozen part of a message."""

    # JSON has no infinity: it would go out as null, which the reader refuses.
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_bytes="base64", allow_inf_nan=False)


class Message(Part):
    """A whole message on the bus."""

    v: Literal[1] = VERSION

    def encode(self) -> bytes:
        """Return the message as JSON, UTF-8."""
        return self.__pydantic_serializer__.to_json(self, exclude_none=True)

    def outline(self) -> "Message | None":
        """Return this message with its long texts cut, for readers who need only the rest; None: there is none.

        It travels in place of a body that is too large for the bus, beside the reference to the whole.
        """
        return None

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a message, or raise `Unreadable` with every reason."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise Unreadable(f"not a readable {cls.__name__} (version {VERSION}): {_reasons(error)}") from error


def _reasons(error: ValidationError) -> str:
    """Return what is wrong by its place, never what was written there. Of another version everything may be wrong."""
    problems = error.errors(include_url=False)
    said = next((problem["input"] for problem in problems if problem["loc"] == ("v",)), None)
    if isinstance(said, int) and 0 <= said < 1_000_000:
        return f"it says that it is of version {said}"
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'body'}: {problem['msg']}" for problem in problems[:8]
    )


class Run(Part):
    """What never changes about a run, carried by every message about it."""

    run_id: RunId
    tenant: TenantId
    priority: Priority = Priority.MEDIUM
    session_id: SessionId | None = None
    born_at: AwareDatetime
    deadline_at: AwareDatetime
    key: Token | None = None
    """The API key that asked; None: nobody needed one, or the run came another way."""
    places: tuple[str, ...] | None = None
    """Accounts among whose running runs it is counted until it ends: `key.<id>`, `tenant.<name>`."""

    def left_s(self, now: datetime) -> float:
        """Return the seconds until the run's deadline; negative when it has passed."""
        return (self.deadline_at - now).total_seconds()


class Usage(Part):
    """What the provider counted: tokens, images, seconds of video."""

    prompt_tokens: NonNegativeInt = 0
    completion_tokens: NonNegativeInt = 0
    cached_tokens: NonNegativeInt = 0
    reasoning_tokens: NonNegativeInt = 0
    image_tokens: NonNegativeInt = 0
    """Of the completion's, those that are images: they have a price of their own."""
    images: NonNegativeInt = 0
    video_s: NonNegativeFloat = 0.0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def plus(self, other: "Usage") -> "Usage":
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            image_tokens=self.image_tokens + other.image_tokens,
            images=self.images + other.images,
            video_s=self.video_s + other.video_s,
        )


class Artifact(Part):
    """An image or a video that a model made. The bytes are in the object store `artifacts`; the gateway serves them."""

    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    media_type: str
    bytes: NonNegativeInt
    expires_at: AwareDatetime

    @property
    def path(self) -> str:
        """Where the gateway serves it; what stands for it in texts and in `input_image`."""
        return f"{ARTIFACT_PATH}{self.id}"


Usd = Annotated[NonNegativeFloat, Field(description="US dollars")]

ErrorType = Literal["transient", "persistent", "resource", "logical", "fatal"]


class Fault(Part):
    """Why something failed, for people and for programs."""

    type: ErrorType
    code: str
    """Stable and short: `provider_unavailable`, `deadline`, `plan_invalid`, …"""
    message: str
    status: int | None = None
    """The provider's HTTP status, where there was one."""


class ToolCall(Part):
    """A function of the caller's that a model wants called. The caller calls it, never we."""

    id: str
    name: str
    arguments: str
    """As the model wrote them: mostly JSON."""


class ChatMessage(Part):
    """One message of a conversation, in the form that OpenAI-compatible servers take."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | list[dict[str, object]]
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] | None = None
    """`assistant`: what it wanted called."""
    tool_call_id: str | None = None
    """`tool`: the call that this is the result of."""
