"""Sections about how the system runs: identity, endpoints, orchestration, queues, scaling."""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, JsonValue, SecretStr, model_validator

from shared.config.section import CamelSection, HttpUrl, Section

RATIO_TOLERANCE = 0.01


LogLevel = Literal["debug", "info", "warning", "error", "critical"]


def with_level(value: JsonValue, key: str) -> JsonValue:
    """Return a part with its log level as `LogLevel` writes it (`WARN` is `warning`)."""
    level = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(level, str):
        return value
    lowered = level.lower()
    return {**value, key: "warning" if lowered == "warn" else lowered}


class System(CamelSection):
    """What this installation calls itself."""

    name: str = Field(default="Segue", min_length=1, description="Name of the installation, shown by `GET /`.")
    version: str = Field(
        default="1.0.0", min_length=1, description="Version of this configuration, not of the program."
    )
    environment: str = Field(
        default="production", min_length=1, description="Free label, such as production or staging."
    )
    region: str = Field(default="local", min_length=1, description="Free label of where it runs.")
    log_level: LogLevel = Field(default="info", description="How much is logged; SEGUE_LOG_LEVEL wins over it.")

    @classmethod
    def shaped(cls, value: JsonValue) -> JsonValue:
        return with_level(value, "logLevel")


class ApiKeys(Section):
    """Keys of the providers. Accepted with a warning: they belong in the environment."""

    openrouter: SecretStr | None = Field(default=None, description="Better: OPENROUTER_API_KEY in the environment.")
    google_ai: SecretStr | None = Field(default=None, description="Better: GOOGLE_AI_API_KEY in the environment.")


class ApiEndpoints(Section):
    """Where the providers are."""

    openrouter: HttpUrl = Field(
        default="https://openrouter.ai/api/v1",
        description="Base URL of OpenRouter's API; an ending `/chat/completions` is understood.",
    )
    google_imagen: HttpUrl = Field(
        default="https://generativelanguage.googleapis.com/v1beta",
        description="Base URL of Google's Gemini API for images; an ending `/models/…` is understood.",
    )
    google_veo: HttpUrl = Field(
        default="https://generativelanguage.googleapis.com/v1beta",
        description="Base URL of Google's Gemini API for video; an ending `/models/…` is understood.",
    )


class WorkflowLimits(CamelSection):
    """How large a workflow may be, whoever wrote it: a caller, a template or a model."""

    max_tasks: int = Field(default=500, ge=1, le=10_000, description="Tasks, those of inner workflows included.")
    max_depth: int = Field(default=2, ge=0, le=5, description="Workflows within a workflow's tasks.")
    max_fan_out: int = Field(default=1_000, ge=1, le=100_000, description="Items of one `for_each`.")
    max_task_s: float = Field(
        default=86_400, alias="maxTaskSeconds", gt=0, le=86_400, description="Most seconds that a task may name."
    )
    max_cost_usd: float | None = Field(
        default=None,
        ge=0,
        description="US dollars that a workflow's tasks may cost: beyond it nothing more is started; absent: no bound.",
    )


class Orchestration(CamelSection):
    """How much runs at once, for how long, and how long it is remembered."""

    max_concurrent_workflows: int = Field(
        default=1000, ge=1, le=1_000_000, description="Workflows that run at the same time; more wait in order."
    )
    default_timeout_s: float = Field(
        default=300,
        alias="defaultTimeoutSeconds",
        gt=0,
        le=86_400,
        description="Seconds until a run's deadline when its request names none.",
    )
    max_retries: int = Field(
        default=3, ge=0, le=20, description="Further attempts of a call that failed, over all models."
    )
    checkpoint_interval: int = Field(
        default=5,
        ge=1,
        description="Steps between checkpoints. Kept for files that set it: Segue stores every step, whatever it says.",
    )
    state_retention_days: float = Field(
        default=30, gt=0, le=3650, description="Days that runs and their facts are kept before they are removed."
    )
    artifact_retention_days: float = Field(
        default=7, gt=0, le=3650, description="Days that images and videos which models made are kept."
    )
    cache_s: float = Field(
        default=3_600,
        alias="cacheSeconds",
        ge=0,
        le=2_592_000,
        description="Seconds for which an answer stands for the very same call, where a task asks for it "
        "(config.cache) or the temperature is 0; 0: never.",
    )
    baseline_model: str = Field(
        default="google/gemini-2.5-pro",
        max_length=200,
        description="What every run's cost is compared with: its answer as one call to this model, at OpenRouter's "
        "price; empty: nothing.",
    )
    limits: WorkflowLimits = Field(default_factory=WorkflowLimits, description="How large a workflow may be.")


class Queuing(CamelSection):
    """How waiting requests share the places of the services."""

    high_priority_ratio: float = Field(
        default=0.6, gt=0, lt=1, description="Share of the places for high priority under load."
    )
    medium_priority_ratio: float = Field(default=0.3, gt=0, lt=1, description="Share for medium priority under load.")
    low_priority_ratio: float = Field(default=0.1, gt=0, lt=1, description="Share for low priority under load.")
    max_queue_depth: int = Field(
        default=10_000,
        ge=1,
        le=10_000_000,
        description="Requests that may wait. One more is answered 503 with Retry-After; 429 when a tenant has half.",
    )

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        total = sum(self.shares.values())
        if abs(total - 1) > RATIO_TOLERANCE:
            raise ValueError(
                f"highPriorityRatio + mediumPriorityRatio + lowPriorityRatio = 1 (±0.01); they sum to {total:g}"
            )
        return self

    @property
    def shares(self) -> Mapping[str, float]:
        """The ratios by the priority's name."""
        return {"high": self.high_priority_ratio, "medium": self.medium_priority_ratio, "low": self.low_priority_ratio}


class Scaling(CamelSection):
    """Between how many copies an autoscaler moves the executors, and when."""

    min_instances: int = Field(default=3, ge=0, le=10_000, description="Fewest copies of the executor.")
    max_instances: int = Field(default=20, ge=1, le=10_000, description="Most copies of the executor.")
    scale_up_threshold: float = Field(
        default=0.75, gt=0, le=1, description="Share of places in use above which one is added."
    )
    scale_down_threshold: float = Field(
        default=0.25, ge=0, lt=1, description="Share in use below which one is taken away."
    )

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if self.min_instances > self.max_instances:
            raise ValueError(f"minInstances ≤ maxInstances, not {self.min_instances} and {self.max_instances}")
        if self.scale_down_threshold >= self.scale_up_threshold:
            given = f"{self.scale_down_threshold} and {self.scale_up_threshold}"
            raise ValueError(f"scaleDownThreshold < scaleUpThreshold, not {given}")
        return self
