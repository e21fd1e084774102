"""An answer that is kept for calls that ask for the very same."""

from pydantic import AwareDatetime, Field, NonNegativeFloat

from shared.contracts.message import Artifact, Message, Usage, Usd


class CachedAnswer(Message):
    """In the `cache` bucket under `<tenant>.<digest of all that matters>`; by executors, and gone with its time."""

    text: str
    artifacts: tuple[Artifact, ...] = ()
    role: str
    provider: str
    model: str
    finish_reason: str | None = None
    usage: Usage = Field(default_factory=Usage)
    cost_usd: Usd = 0.0
    cost_known: bool = True
    simulated: bool = False
    took_s: NonNegativeFloat = 0.0
    answered_at: AwareDatetime
