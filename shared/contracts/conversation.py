"""A conversation that its caller carries himself, and how he wants it answered: OpenAI's shape of a request."""

from typing import Literal

from pydantic import Field, JsonValue, PositiveInt

from shared.contracts.message import ChatMessage, Part


class Parameters(Part):
    """How a model is to be asked, over what its role says. What is absent is the role's."""

    temperature: float | None = None
    max_tokens: PositiveInt | None = None
    top_p: float | None = None
    stop: tuple[str, ...] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_format: dict[str, JsonValue] | None = None
    """`{"type": "json_object"}`, or `{"type": "json_schema", "json_schema": {…}}`."""
    tools: tuple[dict[str, JsonValue], ...] | None = None
    """Functions of the caller's, each `{"type": "function", "function": {…}}`."""
    tool_choice: str | dict[str, JsonValue] | None = None
    parallel_tool_calls: bool | None = None
    extra: dict[str, JsonValue] | None = None
    """Whatever else was said: handed on as it is to servers that speak OpenAI's protocol."""

    @property
    def needs_one_call(self) -> bool:
        """Whether only the model itself can do it: no workflow calls the caller's functions or keeps to his schema."""
        return bool(self.tools) or self.response_format is not None


Embedded = str | tuple[int, ...]
"""A text, or its tokens."""


class Conversation(Part):
    """What an OpenAI client sends: the whole list of messages each time, the last of them to be answered."""

    api: Literal["chat", "responses", "embeddings"] = "chat"
    model: str
    """As the caller named it."""
    role: str | None = None
    """The role that he chose; None: it is ours to choose."""
    messages: tuple[ChatMessage, ...] = ()
    instructions: str | None = None
    """Said before the messages, and not carried on to the next turn (Responses)."""
    embed: tuple[Embedded, ...] | None = None
    """What is to be embedded; there are no messages then."""
    parameters: Parameters = Field(default_factory=Parameters)
    store: bool = True
    """Responses: it may be read and gone on from later."""
    echo: dict[str, JsonValue] | None = None
    """Responses: what is said back as it was said: metadata, previous_response_id, …"""

    @property
    def told(self) -> tuple[ChatMessage, ...]:
        """The messages with the instructions before them."""
        if self.instructions is None:
            return self.messages
        return (ChatMessage(role="system", content=self.instructions), *self.messages)
