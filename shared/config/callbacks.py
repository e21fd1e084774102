"""The section about callbacks: how often, how fast and for how long an answer is POSTed to its caller."""

from typing import Self

from pydantic import Field, model_validator

from shared.config.section import CamelSection


class CallbackRules(CamelSection):
    """How answers are POSTed to callback URLs."""

    max_attempts: int = Field(default=12, ge=1, le=20, description="POSTs of one answer, until it is given up.")
    timeout_s: float = Field(
        default=10, alias="timeoutSeconds", gt=0, le=60, description="Seconds that a receiver has to answer."
    )
    first_retry_s: float = Field(
        default=5,
        alias="firstRetrySeconds",
        gt=0,
        le=3_600,
        description="Seconds from a failed POST to the next one; three times as many with every further one.",
    )
    max_retry_s: float = Field(
        default=7_200, alias="maxRetrySeconds", gt=0, le=86_400, description="Most seconds from one POST to the next."
    )
    give_up_s: float = Field(
        default=86_400,
        alias="giveUpAfterSeconds",
        gt=0,
        le=604_800,
        description="Seconds after which an answer that could not be delivered is given up, whatever was tried.",
    )
    max_body_bytes: int = Field(
        default=1_000_000,
        ge=2_000,
        le=8_000_000,
        description="Bytes of a POST: what is longest in a larger answer is cut to its beginning, and named.",
    )

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if self.first_retry_s > self.max_retry_s:
            raise ValueError(
                f"firstRetrySeconds ≤ maxRetrySeconds, not {self.first_retry_s:g} and {self.max_retry_s:g}"
            )
        return self
