"""What OpenAI's clients send. What we do not know is ignored, as their servers do."""

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, JsonValue

from services.gateway.http.models import Body
from services.gateway.http.openai import functions
from shared.contracts.conversation import Parameters
from shared.contracts.ids import Priority
from shared.workflows.validation import Problem

MOST_MESSAGES: Final = 10_000
PASSED_ON: Final = (
    "logit_bias",
    "min_p",
    "prompt_cache_key",
    "reasoning",
    "reasoning_effort",
    "repetition_penalty",
    "safety_identifier",
    "top_k",
    "user",
    "verbosity",
)
"""Fields that we do nothing with and the model's server may. Nothing else is: what names other models or providers
would go around our limits and prices."""


class StreamOptions(Body):
    include_usage: bool = False


class Asking(Body):
    """What both ways of asking have in common."""

    model_config = ConfigDict(allow_inf_nan=False)  # JSON has neither, and what cannot be written cannot be handed on

    model: Annotated[str, Field(min_length=1, max_length=200, examples=["segue-auto"])]
    stream: bool | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    tools: Annotated[list[dict[str, JsonValue]], Field(max_length=functions.MOST)] | None = None
    tool_choice: str | dict[str, JsonValue] | None = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, JsonValue] | None = None
    store: bool | None = None
    priority: Priority = Field(default=Priority.MEDIUM, description="Ours: how it is served under load.")
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] | None = Field(
        default=None, description="Ours: seconds until the run's deadline."
    )
    logit_bias: dict[str, JsonValue] | None = None
    min_p: float | None = None
    prompt_cache_key: str | None = None
    reasoning: dict[str, JsonValue] | None = None
    reasoning_effort: str | None = None
    repetition_penalty: float | None = None
    safety_identifier: str | None = None
    top_k: int | None = None
    user: str | None = None
    verbosity: str | None = None

    def passed_on(self) -> dict[str, JsonValue] | None:
        """Return what goes on to the model's server as it is."""
        return {name: value for name in PASSED_ON if (value := getattr(self, name)) is not None} or None


class ChatCompletionBody(Asking):
    """`POST /v1/chat/completions`"""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MOST_MESSAGES)]
    stream_options: StreamOptions | None = None
    n: int | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    seed: int | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    response_format: dict[str, JsonValue] | None = None
    functions: list[JsonValue] | None = None

    def problems(self) -> tuple[Problem, ...]:
        """Return what we cannot do, before anything is read of the messages."""
        found = list[Problem]()
        if self.n not in (None, 1):
            found.append(Problem("$.n", "unsupported_value", "one answer a request is given: n must be 1"))
        if self.functions:
            found.append(Problem("$.functions", "unsupported_parameter", "functions are given as `tools` now"))
        found += tool_problems(self.tools)
        kind = (self.response_format or {"type": "text"}).get("type")
        if kind not in ("text", "json_object", "json_schema"):
            said = f"{kind!r} is not known: text, json_object or json_schema"
            found.append(Problem("$.response_format.type", "unsupported_value", said))
        if kind == "json_schema":
            shape = (self.response_format or {}).get("json_schema")
            if not isinstance(shape, dict) or not isinstance(shape.get("schema"), dict):
                said = "a JSON Schema is wanted here: {name, schema}"
                found.append(Problem("$.response_format.json_schema", "missing_schema", said))
        return tuple(found)

    def parameters(self) -> Parameters:
        wanted = self.response_format
        return Parameters(
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_completion_tokens or self.max_tokens,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop) if self.stop else None,
            seed=self.seed,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            response_format=wanted if wanted is not None and wanted.get("type") != "text" else None,
            tools=tuple(self.tools) if self.tools else None,
            tool_choice=self.tool_choice,
            parallel_tool_calls=self.parallel_tool_calls,
            extra=self.passed_on(),
        )


class TextFormat(Body):
    format: dict[str, JsonValue] | None = None
    verbosity: str | None = None


class ResponsesBody(Asking):
    """`POST /v1/responses`"""

    input: str | Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MOST_MESSAGES)]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    previous_response_id: str | None = None
    conversation: JsonValue = None
    background: bool | None = None
    text: TextFormat | None = None
    truncation: Literal["auto", "disabled"] | None = None

    def problems(self) -> tuple[Problem, ...]:
        found = list[Problem]()
        if self.conversation is not None:
            said = "conversations are gone on with by previous_response_id"
            found.append(Problem("$.conversation", "unsupported_parameter", said))
        if self.background and self.store is False:
            said = "what runs in the background is read later, so it must be stored"
            found.append(Problem("$.store", "unsupported_value", said))
        if self.input == "":
            found.append(Problem("$.input", "empty_input", "the input is empty; say what you want to know"))
        wrong = functions.problems(self.tools)
        found += wrong or functions.choice_problems(self.tools, self.tool_choice)
        kind = self._format().get("type")
        if kind not in ("text", "json_object", "json_schema"):
            said = f"{kind!r} is not known: text, json_object or json_schema"
            found.append(Problem("$.text.format.type", "unsupported_value", said))
        if kind == "json_schema" and not isinstance(self._format().get("schema"), dict):
            found.append(Problem("$.text.format.schema", "missing_schema", "a JSON Schema is wanted here"))
        return tuple(found)

    def _format(self) -> dict[str, JsonValue]:
        return (self.text.format if self.text is not None else None) or {"type": "text"}

    def parameters(self) -> Parameters:
        shape = self._format()
        wanted: dict[str, JsonValue] | None = None
        if shape.get("type") == "json_object":
            wanted = {"type": "json_object"}
        elif shape.get("type") == "json_schema":
            wanted = {"type": "json_schema", "json_schema": {k: v for k, v in shape.items() if k != "type"}}
        return Parameters(
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_output_tokens,
            response_format=wanted,
            tools=functions.offered(self.tools, self.tool_choice),
            tool_choice=functions.choice(self.tool_choice),
            parallel_tool_calls=self.parallel_tool_calls,
            extra=self._said_to_the_server(),
        )

    def _said_to_the_server(self) -> dict[str, JsonValue] | None:
        said = dict(self.passed_on() or {})
        effort = said.pop("reasoning", None)
        if isinstance(effort, dict) and effort.get("effort") is not None:
            said["reasoning_effort"] = effort["effort"]
        if self.text is not None and self.text.verbosity is not None:
            said["verbosity"] = self.text.verbosity
        return said or None

    def echo(self) -> dict[str, JsonValue]:
        """Return what is said back in the response as it was said here."""
        said: dict[str, JsonValue] = {
            "background": self.background,
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "metadata": self.metadata,
            "parallel_tool_calls": self.parallel_tool_calls,
            "previous_response_id": self.previous_response_id,
            "temperature": self.temperature,
            "tool_choice": self.tool_choice,
            "tools": list(self.tools) if self.tools else None,
            "top_p": self.top_p,
            "user": self.user,
            "text": {"format": dict(self._format())} if self.text is not None else None,
        }
        return {name: value for name, value in said.items() if value is not None}


def tool_problems(tools: list[dict[str, JsonValue]] | None) -> list[Problem]:
    """Return what is wrong with the functions of a chat request."""
    found = list[Problem]()
    for place, tool in enumerate(tools or ()):
        function = tool.get("function")
        if (
            tool.get("type") != "function"
            or not isinstance(function, dict)
            or not isinstance(function.get("name"), str)
        ):
            said = "only functions of your own: {type: function, function: {name, parameters}}"
            found.append(Problem(f"$.tools[{place}]", "unsupported_tool", said))
    return found
