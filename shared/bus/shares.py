"""Whom to ask for work: the places of one pool, divided between the consumers that feed it.

Pure: no clock, no I/O. Time is given in seconds, from any start.

A pool has `places`; a place is working, asked for, or free, and what is asked for is never more than what is free. Each
source has at most one open request. Sources with a backlog get places in the order of start-time fair queuing (Goyal,
Vin, Cheng: "Start-time Fair Queueing", SIGCOMM 1996): each place taken moves the source's finish tag on by 1/share, and
the smallest start tag is next. A source without a known backlog is probed with a request for one message, so that its
work is heard of; that probe waits its turn like any other, so a trickle cannot take more than its share either.

Where places are few, probes stand only shortly, and under load not all at once, so that they hold up no work. Where
they are many and nobody has a backlog, a source whose probes are used up quickly is asked for a few at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

STANDING_S = 2.0
"""How long a probe may stand when there are places enough that nobody misses the one it holds. It costs no more than
one that stands for long and is heartbeated by the server, and can be seen to its end when a pool stops."""
PATIENT_S = 0.25
"""How long when a backlog elsewhere would want its place back soon."""
TURN_S = 0.025
"""How long when other sources wait for their probe; also the least time between two polls of one source."""
WARM_S = 1.0
"""How long a probe for several messages stands."""
_QUICKLY_S = 0.25
_MOST_PROBED = 8
_PLACES_PER_PROBE = 4
"""Of the places, one in so many may wait on quiet sources while another source has a backlog."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to send: `batch` messages of that source."""

    source: int
    batch: int
    expires_s: float
    """How long it may wait for them; 0: take what is there now."""


@dataclass(slots=True)
class _Claim:
    share: float
    finish: float = 0.0
    waiting: int = 0
    """Messages that the consumer still had when it last spoke; above 0 is a backlog."""
    open: int = 0
    probe: int = 1
    """How many it is probed for."""
    probe_limit: int = 1
    used_up: bool = False
    """Whether the request before was answered in full."""
    asked_at_s: float = float("-inf")
    barred_until_s: float = float("-inf")


class Shares:
    """The places of one pool and who may have them next."""

    def __init__(self, places: int, shares: Sequence[float]) -> None:
        if places < 1 or not shares or min(shares) <= 0:
            raise ValueError(f"a pool needs a place and sources with shares above 0, not {places} and {list(shares)}")
        total = sum(shares)
        self._claims = [
            _Claim(
                share / total, probe_limit=max(1, min(_MOST_PROBED, int(places * share / total / _PLACES_PER_PROBE)))
            )
            for share in shares
        ]
        self._clock = 0.0  # the virtual time: start tag of who was last given a place
        self._reserve = min(len(shares) - 1, places // _PLACES_PER_PROBE)
        self._closed = len(shares)
        self.places = places
        self.running = 0
        self.asked = 0

    @property
    def free(self) -> int:
        return self.places - self.running - self.asked

    @property
    def hungry(self) -> bool:
        """Whether `plan` may have something to ask."""
        return self._closed > 0 and self.running + self.asked < self.places

    def open(self, source: int) -> int:
        """Messages asked for and not delivered yet."""
        return self._claims[source].open

    def plan(self, now_s: float) -> list[Ask]:
        """Give away free places: returns the requests to send, counted as sent."""
        free = self.free
        closed = [
            (i, claim) for i, claim in enumerate(self._claims) if not claim.open and claim.barred_until_s <= now_s
        ]
        if free <= 0 or not closed:
            return []
        if any(claim.waiting and claim.barred_until_s <= now_s for claim in self._claims):
            return self._plan_pressed(free, dict(closed), now_s)
        return self._plan_quiet(free, closed, now_s)

    def taken(self, source: int, pending: int) -> None:
        """A message that was asked for came; `pending` is what the consumer still has."""
        claim = self._claims[source]
        if not claim.open:
            raise ValueError(f"source {source} has no open request")
        claim.open -= 1
        self.asked -= 1
        if not claim.open:
            self._closed += 1
            claim.used_up = True
        self._begin(claim, pending)

    def uninvited(self, source: int, pending: int) -> bool:
        """A message came that nobody asked for any more. False: there is no place for it."""
        claim = self._claims[source]
        if self.free <= 0:
            return False
        self._give(claim, self._start(claim))
        self._begin(claim, pending)
        return True

    def done(self) -> None:
        """One that was taken is settled."""
        self.running -= 1

    def emptied(self, source: int) -> None:
        """The open request ended with nothing more to give: the source has no backlog."""
        self._claims[source].waiting = 0
        self.voided(source)

    def voided(self, source: int) -> None:
        """The open request is gone, unanswered: its places are free again."""
        claim = self._claims[source]
        if claim.open:
            claim.finish -= claim.open / claim.share
            self.asked -= claim.open
            claim.open = 0
            self._closed += 1

    def bar(self, source: int, until_s: float) -> None:
        """Do not ask this source before that time."""
        self._claims[source].barred_until_s = until_s

    def _begin(self, claim: _Claim, pending: int) -> None:
        if not claim.waiting:  # it was quiet until now: the time when its probe stood there unanswered is not saved up
            claim.finish = max(claim.finish, self._clock)
        claim.waiting = pending
        self.running += 1

    def _plan_quiet(self, free: int, closed: list[tuple[int, _Claim]], now_s: float) -> list[Ask]:
        """Nobody is known to have a backlog: probe all, in turns when there are not places enough."""
        closed.sort(key=lambda item: item[1].asked_at_s)
        expires_s = TURN_S
        if len(closed) <= free:
            expires_s = STANDING_S if self._reserve >= len(self._claims) - 1 else PATIENT_S
        asks = []
        for after, (i, claim) in zip(range(len(closed) - 1, -1, -1), closed[:free], strict=False):
            if not claim.used_up:
                claim.probe = 1
            elif now_s - claim.asked_at_s < _QUICKLY_S:
                claim.probe = min(2 * claim.probe, claim.probe_limit)
            batch = min(claim.probe, self.free - after) if expires_s == STANDING_S else 1
            for _ in range(batch):
                self._give(claim, self._start(claim))
            asks.append(self._ask(i, claim, batch, expires_s if batch == 1 else WARM_S, now_s))
        return asks

    def _plan_pressed(self, free: int, closed: dict[int, _Claim], now_s: float) -> list[Ask]:
        """Somebody has a backlog: places go by start tag; quiet sources are probed when it is their turn."""
        quiet = sum(1 for claim in self._claims if not claim.waiting)
        reserve = self._reserve - sum(1 for claim in self._claims if claim.open and not claim.waiting)
        # Whose request is on its way cannot be asked for more before that is answered. The others may get ahead of it
        # by one turn meanwhile, not by more: when work is short it would never catch up.
        owed = min((claim.finish for claim in self._claims if claim.open and claim.waiting), default=float("inf"))
        given: dict[int, int] = {}
        asks: list[Ask] = []
        while free > 0:
            best = None
            for i, claim in closed.items():
                if claim.waiting:
                    if given.get(i, 0) >= claim.waiting:
                        continue
                elif reserve <= 0 and (self._reserve >= quiet or now_s - claim.asked_at_s < TURN_S):
                    continue
                start = self._start(claim)
                if start > owed + 1 / claim.share:
                    continue
                key = (start, claim.waiting > 0, claim.asked_at_s)
                if best is None or key < best[0]:
                    best = (key, i, claim)
            if best is None:
                break
            (start, _, _), i, claim = best
            self._give(claim, start)
            free -= 1
            if claim.waiting:
                given[i] = given.get(i, 0) + 1
                continue
            del closed[i]
            expires_s = 0.0 if reserve <= 0 else STANDING_S if self._reserve >= quiet else TURN_S
            reserve -= 1
            asks.append(self._ask(i, claim, 1, expires_s, now_s))
        asks.extend(self._ask(i, self._claims[i], batch, 0.0, now_s) for i, batch in given.items())
        return asks

    def _start(self, claim: _Claim) -> float:
        """Return the start tag; who had no backlog has nothing saved up from that time."""
        return claim.finish if claim.waiting else max(self._clock, claim.finish)

    def _give(self, claim: _Claim, start: float) -> None:
        claim.finish = start + 1 / claim.share
        self._clock = start

    def _ask(self, source: int, claim: _Claim, batch: int, expires_s: float, now_s: float) -> Ask:
        claim.open = batch
        claim.used_up = False
        claim.asked_at_s = now_s
        self.asked += batch
        self._closed -= 1
        return Ask(source, batch, expires_s)
