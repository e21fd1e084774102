"""What can be scripted to go wrong, for which requests and how often."""

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, StringConstraints

from simulator.chat_request import ChatRequest, Kind
from simulator.plans import BrokenPlan

HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]+$")]
HeaderValue = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]*$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Fault(_Part):
    delay_s: float = Field(default=0.0, ge=0, le=3_600)
    """Seconds before anything of the answer is sent, whatever it will be."""


class Status(_Fault):
    """An error status with OpenRouter's error body; `error_type` follows from the status where it is not given."""

    kind: Literal["status"]
    status: int = Field(ge=400, le=599)
    code: int | str | None = None
    error_type: str | None = None
    message: str | None = None
    retry_after_s: float | None = Field(default=None, ge=0)
    fallback_models: tuple[str, ...] = ()
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict)


class RateLimit(_Fault):
    """429, with or without Retry-After; `platform`: with X-RateLimit headers, as only OpenRouter's own limits have."""

    kind: Literal["rate_limit"]
    retry_after_s: float | None = Field(default=None, ge=0)
    platform: bool = False


class Timeout(_Fault):
    """No byte for `for_s` (None: until the client goes), then the connection is closed."""

    kind: Literal["timeout"]
    for_s: float | None = Field(default=None, gt=0)


class Delay(_Fault):
    """Only late: `delay_s`, then the answer as it would have been."""

    kind: Literal["delay"]


class Reset(_Fault):
    """The connection is reset before the first byte."""

    kind: Literal["reset"]


class CutStream(_Fault):
    """The answer ends in the middle: `clean` like a finished HTTP response (but without `[DONE]`), `close` or `reset`.

    An answer that is not streamed is cut in the middle of its body, `clean` meaning `close`.
    """

    kind: Literal["cut_stream"]
    after_chunks: int = Field(default=2, ge=0)
    how: Literal["clean", "close", "reset"] = "clean"


class Stall(_Fault):
    """The stream stops after some chunks, for `for_s` (None: until the client goes)."""

    kind: Literal["stall"]
    after_chunks: int = Field(default=2, ge=0)
    for_s: float | None = Field(default=None, gt=0)


class ErrorInStream(_Fault):
    """An error event after some chunks. An answer that is not streamed is given as `error_in_200`."""

    kind: Literal["error_in_stream"]
    after_chunks: int = Field(default=2, ge=0)
    code: int | str = 502
    error_type: str = "provider_unavailable"
    message: str = "[simulated] the upstream provider went away"


class ErrorIn200(_Fault):
    """Status 200 with `choices[0].error`."""

    kind: Literal["error_in_200"]
    code: int | str = 502
    error_type: str = "provider_unavailable"
    message: str = "[simulated] the upstream provider went away"


class Empty(_Fault):
    """Nothing said: an empty text, `null`, no choices at all, or an empty body."""

    kind: Literal["empty"]
    what: Literal["text", "null", "choices", "body"] = "text"


class Malformed(_Fault):
    """Status 200 and something that is not the protocol: half of the JSON, an HTML page, or a garbled event."""

    kind: Literal["malformed"]
    what: Literal["json", "html", "event"] = "json"


class Oversized(_Fault):
    """A text of this many bytes, whatever `max_tokens` says."""

    kind: Literal["oversized"]
    bytes: int = Field(default=5_000_000, ge=1, le=200_000_000)


class Refusal(_Fault):
    """The model will not: `content_filter` as a finish reason, or status 400 with error_type `refusal`."""

    kind: Literal["refusal"]
    how: Literal["content_filter", "status"] = "content_filter"
    message: str = "[simulated] I cannot help with that."


class WrongLetter(_Fault):
    """The categorizer says this instead of a letter. Other requests are left alone."""

    kind: Literal["wrong_letter"]
    text: str = "It could be several of these."


class InvalidPlan(_Fault):
    """The plan cannot run. Other requests are left alone."""

    kind: Literal["invalid_plan"]
    how: BrokenPlan = "broken_json"


class Scripted(_Fault):
    """Exactly this text."""

    kind: Literal["answer"]
    text: str
    finish_reason: Literal["stop", "length", "content_filter", "tool_calls"] = "stop"


class ServedBy(_Fault):
    """Another model answered, and is billed."""

    kind: Literal["served_by"]
    model: str


class Usage(_Fault):
    """Usage as it sometimes comes: not at all, without a cost, or with part of the prompt from a cache."""

    kind: Literal["usage"]
    missing: bool = False
    without_cost: bool = False
    cached_tokens: int = Field(default=0, ge=0)


class JobFails(_Fault):
    """A video is taken on, and then comes to nothing: an error, the safety filter, or a job that nobody knows of."""

    kind: Literal["job"]
    how: Literal["error", "filtered", "lost"] = "error"


Fault = Annotated[
    Status
    | RateLimit
    | Timeout
    | Delay
    | Reset
    | CutStream
    | Stall
    | ErrorInStream
    | ErrorIn200
    | Empty
    | Malformed
    | Oversized
    | Refusal
    | WrongLetter
    | InvalidPlan
    | Scripted
    | ServedBy
    | JobFails
    | Usage,
    Field(discriminator="kind"),
]

_ONLY_FOR: Final[dict[str, Kind]] = {"wrong_letter": "letter", "invalid_plan": "plan", "job": "video"}
"""Faults that mean nothing to other requests: those do not count."""


class Match(_Part):
    """Which requests; everything that is given must hold."""

    model: str | None = None
    """The model's id, `*` and `?` as in file names."""
    contains: str | None = None
    """Part of the last user message or of the system prompt."""
    answers: Kind | None = None
    """What is asked for: letter, plan, json (another schema), prose, image, video."""
    stream: bool | None = None
    header: dict[str, str] = Field(default_factory=dict)
    """Headers and their whole values, names in any case."""
    index: int | tuple[int, ...] | None = None
    """Only the n-th request (from 0) of those for which everything else holds."""


class Rule(_Part):
    """A fault, for which requests, and how often."""

    fault: Fault
    match: Match = Field(default_factory=Match)
    times: PositiveInt | Literal["forever"] = 1
    probability: float = Field(default=1.0, gt=0, le=1)
    """The share of the matching requests that it hits; which ones follows from the seed."""


@dataclass(slots=True)
class Scheduled:
    """A rule and what became of it."""

    number: int
    rule: Rule
    seen: int = 0
    used: int = 0

    def takes(self, request: ChatRequest, headers: Mapping[str, str], seed: int) -> bool:
        """Return whether this rule hits a request, and count it."""
        rule = self.rule
        if rule.times != "forever" and self.used >= rule.times:
            return False
        if not matches(rule, request, headers):
            return False
        place = self.seen
        self.seen += 1
        index = rule.match.index
        if index is not None and place not in ((index,) if isinstance(index, int) else index):
            return False
        if rule.probability < 1 and zlib.crc32(f"{self.number}:{place}".encode(), seed) / 2**32 >= rule.probability:
            return False
        self.used += 1
        return True

    def shown(self) -> dict[str, Any]:
        told = self.rule.model_dump(mode="json", exclude_defaults=True)
        return {"number": self.number, **told, "seen": self.seen, "used": self.used}


def matches(rule: Rule, request: ChatRequest, headers: Mapping[str, str]) -> bool:
    """Return whether a rule is about a request, its count apart. `headers` have lower-case names."""
    match = rule.match
    only_for = _ONLY_FOR.get(rule.fault.kind)
    return (
        (only_for is None or request.kind == only_for)
        and (match.model is None or fnmatchcase(request.model, match.model))
        and (match.answers is None or request.kind == match.answers)
        and (match.stream is None or request.stream == match.stream)
        and (match.contains is None or match.contains in request.text or match.contains in request.system)
        and all(headers.get(name.lower()) == value for name, value in match.header.items())
    )


class Script:
    """The rules in the order in which they were given: the first that takes a request decides."""

    def __init__(self) -> None:
        self.scheduled: list[Scheduled] = []
        self._given = 0

    def add(self, rules: Iterable[Rule]) -> None:
        for rule in rules:
            self.scheduled.append(Scheduled(self._given, rule))
            self._given += 1

    def clear(self) -> None:
        """Forget all rules; the next begins with number 0 again, so that the same script hits the same requests."""
        self.scheduled.clear()
        self._given = 0

    def take(self, request: ChatRequest, headers: Mapping[str, str], seed: int) -> Fault | None:
        """Return the fault that hits a request, None for none."""
        for scheduled in self.scheduled:
            if scheduled.takes(request, headers, seed):
                return scheduled.rule.fault
        return None
