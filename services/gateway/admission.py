"""Whether a run may begin: requests a minute, runs at the same time, and what of a budget is left.

Exact over all gateways: requests are numbered by the server (ADR-49) and looked at in a window that slides (`window`),
running runs in a compare-and-set record that the
finisher gives places back in. Money is kept by the executors; here a run is refused early when nothing is left. Whoever
has no limits costs the bus nothing.
"""

import contextlib
import json
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from services.gateway.births import Birth
from services.gateway.principal import Account
from services.gateway.window import WINDOW_S, Entry, Fits, Full, Known, is_settled, judge
from shared import subjects
from shared.access import accounts
from shared.bus.connection import Bus
from shared.bus.errors import BusError, Unavailable
from shared.bus.jetstream import Stored
from shared.contracts.access import Account as Money
from shared.contracts.access import Places
from shared.observe import metrics
from shared.topology import RATE_LIVES_S, RATES

MARGIN_S: Final = 30.0
"""What was seen of a count is forgotten so long before the bus forgets it."""
LOOKS_AT: Final = 16
"""Of a window's entries, from its beginning: what tells how many lie in it, and which leaves it first.

More where the first that are there were all taken back, and until whoever was refused as the window began has taken
himself back.
"""
PAGE: Final = 1_000
"""Of those that are read then, the most at a time."""
MOST_LOOKED_AT: Final = 10_000
TAKES_BACK: Final = "Segue-Takes-Back"
OVERSTAYS: Final = timedelta(seconds=30)
"""A run that has not given its place back this long after its deadline does not have it any more."""
LOOK_AGAIN_S: Final = 2.0
CLOSED_S: Final = 1.0
"""For how long a full account is refused at least without asking, until it may open."""
SETTLED_S: Final = 2.0
"""What was counted so long ago and not taken back began: nothing opens before the oldest of those has left."""
MOST_KNOWN: Final = 10_000
NONE_AT_ALL: Final = "which will not change by waiting: whoever looks after keys and tenants can set another limit"


class OverLimit(Exception):
    """A limit is used up; nothing was begun."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: float | None) -> None:
        """`retry_after_s`: when it is worth asking again; None: waiting changes nothing."""
        super().__init__(message)
        self.status, self.code, self.retry_after_s = status, code, retry_after_s


@dataclass(slots=True)
class Admission:
    """One a process."""

    bus: Bus
    now: Callable[[], datetime]
    window_s: float = WINDOW_S
    _known: "OrderedDict[str, Known]" = field(default_factory=OrderedDict)
    """What was seen of the accounts' requests."""

    async def admit(self, birth: Birth) -> Sequence[str]:
        """Count a run that begins; returns the accounts in which it takes a place that it did not have.

        Raises `OverLimit` or a `BusError`, and then it has no place.
        """
        for account in birth.accounts:
            if (most := account.allowance.requests_per_minute) is not None:
                await self._count(account, most)
        for account in birth.accounts:
            if account.allowance.is_budget:
                await self._look(account)
        taken: list[str] = []
        try:
            for account in birth.accounts:
                if (most := account.allowance.concurrent_runs) is not None:
                    taken.append(account.name)  # before the answer, which may be lost
                    if not await self._take_place(account, birth, most):
                        taken.pop()
        except BaseException:  # also when the caller goes meanwhile: what is not begun has no place
            await self.take_back(birth, taken)
            raise
        return taken

    async def take_back(self, birth: Birth, names: Sequence[str]) -> None:
        """Give back the places of a run that surely does not begin. One that cannot be given back ends by itself."""
        for name in names:
            with contextlib.suppress(BusError):
                await self.bus.budgets.update(f"runs.{name}", Places, lambda at: accounts.left(at, birth.run.run_id))

    async def _count(self, account: Account, most: int) -> None:
        """Count a request in its window. One that is refused counts against none that comes later."""
        known, now_s, clock_s = self._known_of(account.name), time.time(), time.monotonic()
        if most == 0 or known.is_closed(most, clock_s):
            raise self._too_many(account, most, known)
        subject = subjects.rate(account.name)
        seq, total = await self._counted(subject, {"Nats-Incr": "1"})
        if known.at_most(total, clock_s) <= most:
            known.saw(total, clock_s, time.monotonic())
            return
        match await self._judged(subject, seq, total, most, now_s - self.window_s):
            case Fits(before):
                known.began(before, clock_s - self.window_s)
            case Full(oldest_at):
                with contextlib.suppress(Unavailable):  # then it counts, until it leaves the window
                    await self._counted(subject, {"Nats-Incr": "-1", TAKES_BACK: str(seq)})
                opens_at = None if oldest_at is None else oldest_at + self.window_s
                left_s = CLOSED_S if opens_at is None else opens_at - time.time()
                if left_s > self.window_s - SETTLED_S:  # it may be another's who is being refused at this moment
                    left_s = min(left_s, CLOSED_S)
                known.close(most, time.monotonic() + left_s, opens_at)
                raise self._too_many(account, most, known)

    async def _judged(self, subject: str, seq: int, total: int, most: int, since_s: float) -> Fits | Full:
        jetstream, limit = self.bus.jetstream, LOOKS_AT
        stored = await jetstream.direct_since(RATES, subject, datetime.fromtimestamp(since_s, UTC), limit=limit)
        view = [_entry(one) for one in stored]
        while len(stored) == limit and len(view) < MOST_LOOKED_AT:
            if is_settled(view, since_s, self.window_s):
                verdict = judge(seq, total, view, most)
                if verdict != Full(None) or len(view) >= PAGE:
                    return verdict
            limit = min(PAGE, 16 * limit)
            stored = await jetstream.direct_page(RATES, subject, after=view[-1].seq, limit=limit)
            view += [_entry(one) for one in stored]
        return judge(seq, total, view, most)

    def _known_of(self, name: str) -> Known:
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = Known(self.window_s, RATE_LIVES_S - MARGIN_S)
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
        self._known.move_to_end(name)
        return known

    def _too_many(self, account: Account, most: int, known: Known) -> OverLimit:
        left_s = None
        if most == 0:
            when = NONE_AT_ALL
        else:
            left_s = CLOSED_S if known.opens_at is None else max(0.0, known.opens_at - time.time())
            when = f"and has; the next may begin in {math.ceil(left_s)} s"
        told = f"{_whose(account)} may begin {most} requests in any {self.window_s:.0f} s, {when}"
        return self._refused(429, "rate_limited", told, left_s)

    async def _counted(self, subject: str, headers: Mapping[str, str]) -> tuple[int, int]:
        """Change a count; returns the number of the change, and the count with it."""
        began = time.monotonic()
        try:
            msg = await self.bus.jetstream.request(subject, b"", headers=headers)
        except TimeoutError as error:
            raise Unavailable(f"the counter {subject!r}", time.monotonic() - began) from error
        answer = json.loads(msg.data or b"{}")
        if "val" not in answer:
            raise Unavailable(f"the counter {subject!r}: {answer.get('error', {}).get('description')}", 0.0)
        return int(answer["seq"]), int(answer["val"])

    async def _look(self, account: Account) -> None:
        now = self.now()
        money, _ = await self.bus.budgets.get(f"money.{account.name}", Money)
        over = accounts.over(money, account.allowance, now)
        if over is not None:
            raise self._refused(
                402 if over.money else 429,
                "budget_exceeded",
                f"the budget of {_whose(account)} is used up: {over.what}; it begins anew at "
                f"{over.turns_at:%Y-%m-%d %H:%M} UTC",
                (over.turns_at - now).total_seconds(),
            )

    async def _take_place(self, account: Account, birth: Birth, most: int) -> bool:
        """Take a place for a run. Returns whether it is this birth's to give back. Raises `OverLimit`.

        A keyed run that has one has it from whoever bears it too, or did before and may have sent it.
        """
        run, now = birth.run, self.now()
        had, full = False, False

        def changed(places: Places | None) -> Places | None:
            nonlocal had, full
            had = places is not None and run.run_id in places.runs
            found = accounts.taken(places, run.run_id, most, now=now, until=run.deadline_at + OVERSTAYS)
            full = found is None
            return found

        await self.bus.budgets.update(f"runs.{account.name}", Places, changed)
        if full and most == 0:
            told = f"{_whose(account)} may have 0 runs go on at the same time, {NONE_AT_ALL}"
            raise self._refused(429, "too_many_runs", told, None)
        if full:
            raise self._refused(
                429,
                "too_many_runs",
                f"{most} runs of {_whose(account)} go on, which is all that may at the same time; "
                "wait for one to end, then send the request again: nothing was kept",
                LOOK_AGAIN_S,
            )
        return not (had and birth.keyed)

    def _refused(self, status: int, code: str, message: str, retry_after_s: float | None) -> OverLimit:
        metrics.LIMITED.labels(code).inc()
        return OverLimit(status, code, message, retry_after_s)


def _whose(account: Account) -> str:
    kind, _, name = account.name.partition(".")
    return "this key" if kind == "key" else f"tenant {name!r}"


def _entry(stored: Stored) -> Entry:
    takes_back = (stored.headers or {}).get(TAKES_BACK)
    at = datetime.fromisoformat(stored.time[:26].rstrip("Z") + "+00:00").timestamp()
    return Entry(stored.seq, int(json.loads(stored.data)["val"]), at, int(takes_back) if takes_back else None)
