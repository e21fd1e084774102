"""How many of an account's requests lie in the last minute, and when the next one may begin. Pure. (ADR 0025)

A counter of the server numbers an account's requests, and each number is kept for a while with its time. So what lies
in the window is what was counted by now less what had been counted when it began. A request that is refused takes
itself back, with an entry of its own that names the one it takes back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WINDOW_S: Final = 60.0
SETTLES_IN: Final = 1 / 6
"""Of a window: whoever is refused has taken himself back by then."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One change of an account's count, as it was stored."""

    seq: int
    total: int
    """The count with it."""
    at: float
    """Seconds since 1970, by the server's clock."""
    takes_back: int | None = None
    """The `seq` of the entry that it takes back: it counts one less. None: it counts one more."""


@dataclass(frozen=True, slots=True)
class Fits:
    """The request may begin. `before`: what had been counted when its window began."""

    before: int


@dataclass(frozen=True, slots=True)
class Full:
    """It may not. `oldest_at`: when the one began that leaves the window first; None: it is not in view."""

    oldest_at: float | None


def judge(seq: int, total: int, view: Sequence[Entry], most: int) -> Fits | Full:
    """Decide about the request that was counted as `total` under `seq`.

    `view`: what is stored since its window began, in order, as far as it was read; it may end before the request.
    Exact however many ask at once, as long as what was taken back is in view together with what takes it back (see
    `is_settled`). Where a limit was lowered within the minute, more than the oldest have to leave.
    """
    if not view:
        return Full(None)
    first = view[0]
    back = {one.takes_back for one in view if one.takes_back is not None}
    before = first.total + (1 if first.takes_back is not None else -1) - sum(1 for one in back if one < first.seq)
    gone_since = sum(1 for one in view if one.takes_back is not None and one.takes_back < seq < one.seq)
    if total - gone_since - before <= most:
        return Fits(before)
    stay = (one.at for one in view if one.takes_back is None and one.seq not in back and one.seq != seq)
    return Full(next(stay, None))


def is_settled(view: Sequence[Entry], since: float, window_s: float = WINDOW_S) -> bool:
    """Whether a view from a window's beginning that ends too early has all that is taken back of before the window."""
    return bool(view) and view[-1].at >= since + window_s * SETTLES_IN


@dataclass(slots=True)
class Known:
    """What a process has seen of an account's count: enough to let most requests begin without a look at the window.

    What had been counted a window ago or longer does not lie in it. Two such marks are kept, the younger for when the
    older one is too old. Of what a mark counts nothing may be taken back later, or the window would hold as much more.
    Times are seconds of a clock that never jumps. `lives_s`: how long entries are kept; what was
    marked before says nothing, as the count may have begun anew.
    """

    window_s: float = WINDOW_S
    lives_s: float = 3 * WINDOW_S
    opens_at: float | None = None
    """Of the latest refusal: when the next may begin, in seconds since 1970; None: soon, but nobody can say when."""
    _older: tuple[int, float] | None = None
    _younger: tuple[int, float] | None = None
    _closed: tuple[int, float] = (0, 0.0)

    def at_most(self, total: int, now: float) -> int:
        """Return how many requests the window can hold at the most, with the one that was counted as `total`."""
        base = self._base(total, now)
        return total if base is None else total - base[0]

    def saw(self, total: int, asked_at: float, now: float) -> None:
        """Remember what was counted by now, of a request that was asked at a time and began without a look.

        Somebody who was refused may not have taken himself back yet. He found as many in his window as may be: those
        are here too if what was known is older than his window by as long as that takes, and then nothing would have
        begun without a look. So what is known is not remembered sooner.
        """
        base = self._base(total, asked_at)
        if base is not None and asked_at - base[1] < self.window_s * (1 + SETTLES_IN):
            return
        if self._younger is not None and now - self._younger[1] >= self.window_s:
            self._older, self._younger = self._younger, (total, now)
        elif self._younger is None or total < self._younger[0]:
            self._younger = (total, now)

    def _base(self, total: int, now: float) -> tuple[int, float] | None:
        """Return the mark that says what had been counted before a window; None: everything may lie in it."""
        if self._older is None or self._older[0] > total or not self.window_s <= now - self._older[1] < self.lives_s:
            return None
        return self._older

    def began(self, before: int, at: float) -> None:
        """Remember what had been counted when a window began."""
        self._older = (before, at)

    def close(self, most: int, until: float, opens_at: float | None) -> None:
        """Refuse without asking for a moment: the account was full."""
        self._closed, self.opens_at = (most, until), opens_at

    def is_closed(self, most: int, now: float) -> bool:
        """Whether it was full a moment ago, by the same limit."""
        return self._closed[0] == most and now < self._closed[1]
