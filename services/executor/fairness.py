"""Whose turn it is within a limit that more is wanted of than it allows: max-min fair shares. Pure.

Everyone is entitled to an equal share of a window (by weights, where they differ), and what somebody does not want is
shared by the others: Bertsekas and Gallager, "Data Networks", 6.5.2. What is held counts as wanted, so that shares
settle where the window is full, and it is never taken away: who holds more than a share waits until it holds less.
"""

from bisect import bisect_left
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, inf
from typing import TypeVar

K = TypeVar("K", bound=Hashable)

Owner = tuple[str, str]
"""A tenant, and the priority of its calls."""
_LEAST = 1e-9


@dataclass(frozen=True, slots=True)
class Claim:
    """What one of several has of a window, and would have. In requests, or in tokens."""

    held: float = 0
    waiting: float = 0
    """What its waiting calls want, the one that is decided upon among them."""
    largest: float = 0
    """What the largest of them wants: a share that is smaller would never do."""
    weight: float = 1

    @property
    def wanted(self) -> float:
        return self.held + self.waiting

    def at(self, level: float) -> float:
        """Return its share when a weight of 1 is entitled to `level`."""
        return min(self.wanted, max(self.largest, level * self.weight))


def shares(most: float, claims: Mapping[K, Claim]) -> dict[K, float]:
    """Return what each is entitled to. Together that is all that they want, or `most`; more only where the largest
    calls alone come to more."""
    found = _level(most, list(claims.values()))
    return {key: claim.at(found) for key, claim in claims.items()}


def may_take(
    most: float, claims: Mapping[Owner, Claim], who: Owner, weights: Mapping[str, float], wants: int = 1
) -> bool:
    """Whether a tenant's call of some priority may take what it wants, if that is free.

    A tenant may as long as it holds less than its share, whatever the priorities of its calls are. What it may have is
    divided between its priorities by the same rule, with their `weights`. While something is free, somebody who waits
    may take it.
    """
    tenant, priority = who
    tenants: dict[str, Claim] = {}
    own: dict[str, Claim] = {}
    for (name, rank), claim in claims.items():
        tenants[name] = _with(tenants.get(name, Claim()), claim)
        if name == tenant:
            own[rank] = Claim(claim.held, claim.waiting, claim.largest, weights.get(rank, 1))
    allotted = _allotted(most, tenants, tenant, wants)
    return allotted is not None and _allotted(allotted, own, priority, wants) is not None


def _allotted(most: float, claims: Mapping[K, Claim], who: K, wants: int) -> float | None:
    """Return up to how much one of several may hold now; None: nothing more is its own.

    What stays within its whole share is its own, and so is what the whole shares of others leave. What a share does
    not hold a whole call of goes to whoever lacks most: small calls do not eat what a larger one waits for.
    """
    entitled = shares(most, claims)
    whole = {key: floor(share + _LEAST) for key, share in entitled.items()}
    held, lacks = claims[who].held, entitled[who] - claims[who].held
    if lacks <= _LEAST:
        return None
    if held + wants <= whole[who]:
        return whole[who]
    free = most - sum(claim.held for claim in claims.values())
    owed = sum(max(0.0, whole[key] - claim.held) for key, claim in claims.items() if key != who)
    if free - owed >= wants:
        return held + free - owed
    others = (entitled[key] - claim.held for key, claim in claims.items() if key != who and claim.waiting)
    return held + wants if lacks >= max(others, default=0.0) - _LEAST else None


def _with(one: Claim, other: Claim) -> Claim:
    return Claim(one.held + other.held, one.waiting + other.waiting, max(one.largest, other.largest), one.weight)


def _level(most: float, claims: Sequence[Claim]) -> float:
    """Return how much a weight of 1 is entitled to, so that all shares together are `most`; `inf`: all get all."""

    def total(level: float) -> float:
        return sum(claim.at(level) for claim in claims)

    # Shares grow evenly between the levels at which somebody begins to get more than the largest call, or has it all.
    bends = sorted(
        {0.0, *(size / claim.weight for claim in claims for size in (min(claim.largest, claim.wanted), claim.wanted))}
    )
    above = bisect_left(bends, most, key=total)
    if above == len(bends):
        return inf
    if above == 0:
        return 0.0
    low, high = bends[above - 1], bends[above]
    return low + (high - low) * (most - total(low)) / (total(high) - total(low))
