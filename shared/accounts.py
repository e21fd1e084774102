"""What each attempt of a call has to do with the call's cost. Pure: read from the facts, by everyone in the same way.

A call's settlement says what it knows of its attempts; what others know besides comes as `late` or `reconciled`. No
attempt is in two of these with a cost, so sums are exact. (ADR 0019)
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from shared.contracts.commands import UnknownAttempt
from shared.contracts.events import CallSettled, CallWrittenOff
from shared.contracts.message import Usage

ANSWERED: Final = "answered"


@dataclass(frozen=True, slots=True)
class Share:
    """One attempt's part."""

    attempt: int
    role: str
    provider: str
    model: str
    code: str
    """How it ended: `answered`, a fault's code, or `unknown`."""
    cost_usd: float | None
    """None: nobody knows."""
    usage: Usage = field(default_factory=Usage)
    reserved_usd: float = 0.0
    """Of one whose cost is not known: the most that it can be."""
    started_at: datetime | None = None
    generation_id: str | None = None

    def as_unknown(self) -> UnknownAttempt:
        return UnknownAttempt(
            attempt=self.attempt,
            reserved_usd=self.reserved_usd,
            role=self.role,
            provider=self.provider,
            model=self.model,
            code=self.code,
            started_at=self.started_at,
            generation_id=self.generation_id,
        )


def shares(fact: CallSettled | CallWrittenOff) -> tuple[Share, ...]:
    """Return the parts of the attempts that a fact tells apart, in order."""
    if isinstance(fact, CallWrittenOff):
        return tuple(_unknown(one) for one in fact.unknown)
    found = [_unknown(one) for one in fact.unknown]
    found += [
        Share(
            one.attempt,
            one.role,
            one.provider,
            one.model,
            one.fault.code,
            one.cost_usd if one.cost_known else None,
            one.usage,
            one.reserved_usd,
            one.started_at,
            one.generation_id,
        )
        for one in fact.failed
    ]
    if _asked(fact):
        cost_usd = max(0.0, fact.cost_usd - sum(one.cost_usd for one in fact.failed)) if not unpriced(fact) else None
        usage = _less(fact)
        said = (fact.attempts, fact.role, fact.provider or "", fact.model or "", ANSWERED, cost_usd, usage)
        found.append(Share(*said, generation_id=fact.generation_id))
    return tuple(sorted(found, key=lambda one: one.attempt))


def of(attempt: UnknownAttempt) -> tuple[Share, ...]:
    """Return the part of one attempt of unknown cost."""
    return (_unknown(attempt),)


def open_shares(fact: CallSettled | CallWrittenOff) -> tuple[Share, ...]:
    """Return the attempts whose cost a fact leaves open, and for which a reconciliation can come.

    An answer that nobody has a price for, and nobody is asked about, is none of them: its call's cost is unknown.
    """
    return tuple(
        one for one in shares(fact) if one.cost_usd is None and (one.code != ANSWERED or one.attempt in fact.asks)
    )


def priceless(fact: CallSettled | CallWrittenOff) -> bool:
    """Whether a fact's own cost is not known, the attempts that it leaves open apart."""
    if fact.cost_known:
        return False
    if isinstance(fact, CallWrittenOff):
        return not fact.unknown
    if unpriced(fact):
        return fact.attempts not in fact.asks
    return not open_shares(fact)


def unpriced(fact: CallSettled) -> bool:
    """Whether an answer came without a cost, of a model that nobody has a price for."""
    return _asked(fact) and not fact.cost_known and fact.priced_by is None


def not_in(mine: Iterable[Share], theirs: Iterable[Share]) -> tuple[list[Share], list[Share]]:
    """Return which of my shares somebody else's do not have, and those that I know the cost of and they do not."""
    there = {one.attempt: one for one in theirs}
    own = list(mine)
    missing = [one for one in own if one.attempt not in there]
    better = [
        one for one in own if one.cost_usd is not None and one.attempt in there and there[one.attempt].cost_usd is None
    ]
    return missing, better


def _unknown(one: UnknownAttempt) -> Share:
    return Share(
        one.attempt,
        one.role,
        one.provider,
        one.model,
        one.code,
        None,
        Usage(),
        one.reserved_usd,
        one.started_at,
        one.generation_id,
    )


def _asked(fact: CallSettled) -> bool:
    """Whether a model was asked for the answer, here and now."""
    return fact.outcome == "answered" and fact.attempts > 0 and not fact.cached and fact.reused_from is None


def _less(fact: CallSettled) -> Usage:
    """Return a call's usage without that of the attempts that failed."""
    left = fact.usage.model_dump()
    for one in fact.failed:
        for name, value in one.usage.model_dump().items():
            left[name] = max(0, left[name] - value)
    return Usage.model_validate(left)
