"""What executors tell each other about whom they ask, and who waits to."""

from typing import Literal

from pydantic import AwareDatetime, Field, NonNegativeFloat, NonNegativeInt

from shared.contracts.message import Message


class BreakerState(Message):
    """Whether a provider's model is left alone. In the `breakers` bucket under a digest of both; by executors.

    It is there from the first failure in a row until the model answers again.
    """

    provider: str
    model: str
    state: Literal["closed", "open", "half_open"] = "closed"
    failures: NonNegativeInt = 0
    """In a row, over all executors."""
    until: AwareDatetime | None = None
    """Open: until nobody asks. Half-open: until the calls that try it have to be back."""
    probes: NonNegativeInt = 0
    """Half-open: calls that may still be let through."""
    passed: NonNegativeInt = 0
    """Half-open: calls that were let through and answered."""
    reason: str = ""
    """The latest failure."""
    code: str = ""
    """Its code; `model_not_found`: the provider has no such model (any more)."""
    opened: NonNegativeInt = 0
    """How often it has opened since it was last closed."""


class CallsAtOnce(Message):
    """Calls to one role that go on, over all executors. In the `limits` bucket under `calls.<digest of the role>`."""

    held: dict[str, AwareDatetime] = Field(default_factory=dict)
    """By executor and call, until when it is believed without being renewed."""


class TokenWindow(Message):
    """Tokens that one limit's calls hold or have used, by the second. In the `limits` bucket; by executors."""

    seconds: dict[str, NonNegativeInt] = Field(default_factory=dict)
    """By the second since 1970 in which they were asked for."""
    owners: dict[str, dict[str, NonNegativeInt]] = Field(default_factory=dict)
    """The same by `<tenant>.<priority>`, under the first of several seconds: whose turn it is goes by that."""
    writes: tuple[str, ...] = ()
    """Random names of the latest writes: one whose answer was lost is found again by it."""


class LimitWait(Message):
    """A call waits for a limit of its provider, or does no more. Heard by all executors; a hint.

    Its subject says which limit, and the call's tenant and priority.
    """

    call: str
    """`<run>.<call>`"""
    window: str
    """Which of the limit's windows had no place: `second`, `minute`, `day` or `tokens`."""
    wants: NonNegativeInt = 1
    """Requests, or tokens."""
    lasts_s: NonNegativeFloat
    """It comes back within so many seconds; 0: it waits no more."""
