"""Which calls wait for a limit, as executors tell each other: hints, in memory, that end by themselves. Pure.

A call is told of when it is refused, with how long that is good for, and again when it gets its place. An executor that
has just started has heard nothing yet, one that died may have told of a call that is gone: then a share is too large or
too small for as long as a hint lasts. The limit itself does not depend on any of this.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from services.executor.fairness import Claim, Owner

MOST: Final = 2_048
"""Calls of one limit that are remembered; then only `LEAST` of each owner, so that one that floods hides nobody."""
MOST_OF_ONE: Final = 512
LEAST: Final = 8
FORGETS_EVERY_S: Final = 1.0
TOKENS: Final = "tokens"
"""The window of tokens a minute, beside those of requests."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A call that was refused."""

    window: str
    """The window that had no place: `second`, `minute`, `day` or `tokens`."""
    wants: int
    """Requests (1), or tokens."""
    until_s: float


@dataclass(slots=True)
class Waiting:
    """The calls that wait for one limit."""

    calls: dict[Owner, dict[str, Wait]] = field(default_factory=dict)
    _looked_s: float = 0.0

    def note(self, owner: Owner, call: str, wait: Wait, *, now_s: float) -> None:
        """Remember that a call waits, or that it still does."""
        self._forget_old(now_s)
        own = self.calls.get(owner, {})
        most = MOST_OF_ONE if sum(map(len, self.calls.values())) < MOST else LEAST
        if call in own or (len(own) < most and (own or len(self.calls) < MOST)):
            self.calls.setdefault(owner, {})[call] = wait

    def forget(self, owner: Owner, call: str) -> bool:
        """Forget a call that waits no more; whether it was known."""
        own = self.calls.get(owner, {})
        known = own.pop(call, None) is not None
        if known and not own:
            del self.calls[owner]
        return known

    def knows(self, owner: Owner, call: str) -> bool:
        """Whether others have been told of a call."""
        return call in self.calls.get(owner, ())

    def others_s(self, owner: Owner, *, now_s: float) -> float:
        """Return for how long it is known that somebody else waits."""
        ends = (wait.until_s for other, calls in self.calls.items() if other != owner for wait in calls.values())
        return max(0.0, max(ends, default=now_s) - now_s)

    def of(self, owner: Owner, *, now_s: float) -> int:
        """Return how many of an owner's calls wait."""
        return sum(1 for wait in self.calls.get(owner, {}).values() if wait.until_s > now_s)

    def claims(
        self, windows: frozenset[str], held: Mapping[Owner, int], who: Owner, call: str, wants: int, *, now_s: float
    ) -> dict[Owner, Claim]:
        """Return everybody's claim on a window: what is held, and what those calls want that `windows` refused.

        The call that is decided upon wants too, whether it was refused before or not.
        """
        found = {owner: Claim(amount) for owner, amount in held.items()}
        for owner, sizes in self._wanted(windows, (who, call), now_s):
            found[owner] = Claim(held.get(owner, 0), sum(sizes), max(sizes))
        own = found.get(who, Claim())
        found[who] = Claim(own.held, own.waiting + wants, max(own.largest, wants))
        return found

    def _wanted(
        self, windows: frozenset[str], but: tuple[Owner, str], now_s: float
    ) -> Iterator[tuple[Owner, list[int]]]:
        for owner, calls in self.calls.items():
            sizes = [
                wait.wants
                for call, wait in calls.items()
                if wait.until_s > now_s and wait.window in windows and (owner, call) != but
            ]
            if sizes:
                yield owner, sizes

    def _forget_old(self, now_s: float) -> None:
        if now_s < self._looked_s + FORGETS_EVERY_S:
            return
        self._looked_s = now_s
        for owner, calls in list(self.calls.items()):
            left = {call: wait for call, wait in calls.items() if wait.until_s > now_s}
            if left:
                self.calls[owner] = left
            else:
                del self.calls[owner]
