"""Sections about faults, limits and watching: `error_handling`, `rate_limiting`, `monitoring`.

The reference describes what these hold, not each key's name: unknown keys are warnings here, and other usual shapes
are read.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, JsonValue, model_validator

from shared.config.operation import LogLevel, with_level
from shared.config.section import Section

ErrorKind = Literal["transient", "persistent", "resource", "logical", "fatal"]


class _Ours(Section):
    names_are_given = False


class ErrorType(_Ours):
    """What is done about one kind of error."""

    description: str = Field(default="", description="What belongs to this kind, in words.")
    strategy: str = Field(
        default="",
        description="What is done: retry_with_backoff, alert, reduce, fallback or open_breaker; other words are notes.",
    )
    max_retries: int = Field(
        default=0,
        ge=0,
        le=50,
        validation_alias=AliasChoices("max_retries", "retries"),
        description="Further attempts after the first.",
    )
    examples: tuple[str, ...] = Field(default=(), description="Names of errors of this kind.")

    @classmethod
    def shaped(cls, value: JsonValue) -> JsonValue:
        return {"examples": value} if isinstance(value, list) else value


def _error_types() -> Mapping[ErrorKind, ErrorType]:
    return {
        "transient": ErrorType(strategy="retry_with_backoff", max_retries=5),
        "persistent": ErrorType(strategy="alert", max_retries=1),
        "resource": ErrorType(strategy="reduce", max_retries=2),
        "logical": ErrorType(strategy="fallback", max_retries=3),
        "fatal": ErrorType(strategy="open_breaker", max_retries=0),
    }


class RetryConfig(_Ours):
    """How long to wait before the next attempt: base × factor^n, at most the maximum, scattered."""

    base_delay_ms: int = Field(default=1000, ge=1, le=600_000, description="Milliseconds before the second attempt.")
    factor: float = Field(
        default=2,
        ge=1,
        le=10,
        validation_alias=AliasChoices("factor", "multiplier", "backoff_factor", "exponential_base"),
        description="By how much each further wait is longer.",
    )
    max_delay_ms: int = Field(default=30_000, ge=1, le=3_600_000, description="Most milliseconds of one wait.")
    jitter: bool = Field(default=True, description="Whether waits are scattered, so that not everyone returns at once.")
    retryable_statuses: tuple[Annotated[int, Field(ge=400, le=599)], ...] = Field(
        default=(408, 429, 500, 502, 503, 504),
        validation_alias=AliasChoices("retryable_statuses", "retryable_status_codes", "retry_on_status"),
        description="HTTP statuses of a provider that are worth another attempt.",
    )

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if self.base_delay_ms > self.max_delay_ms:
            raise ValueError(f"base_delay_ms ≤ max_delay_ms, not {self.base_delay_ms} and {self.max_delay_ms}")
        return self


class CircuitBreaker(_Ours):
    """When a provider's model is left alone for a while, and how it is tried again."""

    failure_threshold: int = Field(default=5, ge=1, le=10_000, description="Failures in a row that open it.")
    open_s: float = Field(
        default=60,
        gt=0,
        le=86_400,
        validation_alias=AliasChoices("timeout_seconds", "open_seconds", "recovery_timeout", "timeout"),
        description="Seconds that it stays open.",
    )
    half_open_requests: int = Field(
        default=3,
        ge=1,
        le=10_000,
        validation_alias=AliasChoices("half_open_requests", "half_open_max_calls", "half_open_max_requests"),
        description="Calls that are let through to try whether it works again.",
    )


class ErrorHandling(_Ours):
    """What is done when something fails."""

    error_types: Mapping[ErrorKind, ErrorType] = Field(
        default_factory=_error_types, description="What is done about each kind of error."
    )
    retry_config: RetryConfig = Field(default_factory=RetryConfig, description="How long to wait between attempts.")
    circuit_breaker: CircuitBreaker = Field(default_factory=CircuitBreaker, description="When a model is left alone.")


class RateLimit(Section):
    """How much one provider may be asked, by all executors together."""

    requests_per_minute: int | None = Field(
        default=None, ge=1, description="Requests in any 60 seconds; absent: no limit."
    )
    tokens_per_minute: int | None = Field(default=None, ge=1, description="Tokens in any 60 seconds; absent: no limit.")
    requests_per_day: int | None = Field(default=None, ge=1, description="Requests in any 24 hours; absent: no limit.")
    algorithm: str = Field(
        default="sliding_window",
        description="How it is counted. Segue always counts in sliding windows, whatever stands here.",
    )
    burst_allowance: int | None = Field(
        default=None, ge=1, description="Most requests in one second; absent: no limit."
    )


class MetricsSettings(_Ours):
    """What Prometheus can fetch."""

    enabled: bool = Field(default=True, description="Whether every service serves /metrics.")
    collect: tuple[str, ...] = Field(
        default=(), description="Names of metrics that dashboards rely on. A record; all are served."
    )

    @classmethod
    def shaped(cls, value: JsonValue) -> JsonValue:
        if isinstance(value, bool):
            return {"enabled": value}
        return {"collect": value} if isinstance(value, list) else value


class LoggingSettings(_Ours):
    """What is written to standard error."""

    level: LogLevel | None = Field(default=None, description="How much is logged; absent: system.logLevel.")
    format: str = Field(default="json", description="Segue logs one JSON object a line, whatever stands here.")
    include_content: bool = Field(default=False, description="Whether prompts and answers may appear in logs.")

    @classmethod
    def shaped(cls, value: JsonValue) -> JsonValue:
        return with_level({"level": value} if isinstance(value, str) else value, "level")


class Thresholds(_Ours):
    """Where an alert begins."""

    error_rate: float = Field(default=0.05, gt=0, le=1, description="Share of runs that fail.")
    response_time_p95_ms: float = Field(
        default=5000, gt=0, description="Milliseconds within which 95 % of answers come."
    )
    queue_depth: int = Field(default=5000, ge=1, description="Requests that wait.")


class Alerting(_Ours):
    """When a person is told."""

    enabled: bool = Field(default=True, description="Whether alert rules are active.")
    thresholds: Thresholds = Field(default_factory=Thresholds, description="Where an alert begins.")
    channels: tuple[str, ...] = Field(
        default=("email", "webhook"), description="How a person is told; addresses belong to the alert manager."
    )

    @classmethod
    def shaped(cls, value: JsonValue) -> JsonValue:
        if isinstance(value, dict) and isinstance(value.get("channels"), dict):
            return {**value, "channels": list(value["channels"])}  # type: ignore[arg-type]  # checked just before
        return value


class Monitoring(_Ours):
    """How the system is watched."""

    metrics: MetricsSettings = Field(default_factory=MetricsSettings, description="What can be fetched.")
    logging: LoggingSettings = Field(default_factory=LoggingSettings, description="What is written.")
    alerting: Alerting = Field(default_factory=Alerting, description="When a person is told.")
