"""Whether a run may begin: requests a minute, runs at the same time, and what of a budget is left.

Exact over all gateways: requests are counted by the server (ADR-49), running runs in a compare-and-set record that the
finisher gives places back in. Money is kept by the executors; here a run is refused early when nothing is left. Whoever
has no limits costs the bus nothing.
"""

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from services.gateway.births import Birth
from services.gateway.principal import Account
from shared import subjects
from shared.access import accounts
from shared.bus.connection import Bus
from shared.bus.errors import Unavailable
from shared.contracts.access import Account as Money
from shared.contracts.access import Places
from shared.observe import metrics

MINUTE_S: Final = 60
OVERSTAYS: Final = timedelta(seconds=30)
"""A run that has not given its place back this long after its deadline does not have it any more."""
LOOK_AGAIN_S: Final = 2.0
MOST_CLOSED: Final = 10_000


class OverLimit(Exception):
    """A limit is used up; nothing was begun."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.status, self.code, self.retry_after_s = status, code, retry_after_s


@dataclass(slots=True)
class Admission:
    """One a process."""

    bus: Bus
    now: Callable[[], datetime]
    _closed: "OrderedDict[str, tuple[int, int]]" = field(default_factory=OrderedDict)
    """Accounts that are over their requests: in which minute, and what the limit was."""

    async def admit(self, birth: Birth) -> None:
        """Count a run that begins. Raises `OverLimit`, and then it counts nowhere but among the requests."""
        for account in birth.accounts:
            if (most := account.allowance.requests_per_minute) is not None:
                await self._count(account, most)
        for account in birth.accounts:
            if account.allowance.is_budget:
                await self._look(account)
        taken: list[str] = []
        for account in birth.accounts:
            if (most := account.allowance.concurrent_runs) is not None:
                if not await self._take_place(account.name, birth, most):
                    await self._leave(birth, taken)
                    whose = _whose(account)
                    raise self._refused(
                        429,
                        "too_many_runs",
                        f"{most} runs of {whose} go on, which is all that may at the same time; "
                        "wait for one to end, then send the request again: nothing was kept",
                        LOOK_AGAIN_S,
                    )
                taken.append(account.name)

    async def take_back(self, birth: Birth) -> None:
        """Give back the places of a run that could not begin."""
        await self._leave(birth, birth.run.places or ())

    async def _count(self, account: Account, most: int) -> None:
        seconds = time.time()
        minute = int(seconds // MINUTE_S)
        if self._closed.get(account.name) != (minute, most):
            if await self._counted(subjects.rate(account.name, minute)) <= most:
                return
            self._closed[account.name] = (minute, most)
            if len(self._closed) > MOST_CLOSED:
                self._closed.popitem(last=False)
        left_s = MINUTE_S - seconds % MINUTE_S
        raise self._refused(
            429,
            "rate_limited",
            f"{_whose(account)} may begin {most} requests a minute, and has; the next minute begins in {left_s:.0f} s",
            left_s,
        )

    async def _counted(self, subject: str) -> int:
        """Count one more, and return how many there are by now."""
        began = time.monotonic()
        try:
            msg = await self.bus.jetstream.request(subject, b"", headers={"Nats-Incr": "1"})
        except TimeoutError as error:
            raise Unavailable(f"the counter {subject!r}", time.monotonic() - began) from error
        answer = json.loads(msg.data or b"{}")
        if "val" not in answer:
            raise Unavailable(f"the counter {subject!r}: {answer.get('error', {}).get('description')}", 0.0)
        return int(answer["val"])

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

    async def _take_place(self, name: str, birth: Birth, most: int) -> bool:
        run, now = birth.run, self.now()
        found: Places | None = None

        def changed(places: Places | None) -> Places | None:
            nonlocal found
            found = accounts.taken(places, run.run_id, most, now=now, until=run.deadline_at + OVERSTAYS)
            return found

        await self.bus.budgets.update(f"runs.{name}", Places, changed)
        return found is not None

    async def _leave(self, birth: Birth, names: "list[str] | tuple[str, ...]") -> None:
        for name in names:
            await self.bus.budgets.update(f"runs.{name}", Places, lambda at: accounts.left(at, birth.run.run_id))

    def _refused(self, status: int, code: str, message: str, retry_after_s: float) -> OverLimit:
        metrics.LIMITED.labels(code).inc()
        return OverLimit(status, code, message, retry_after_s)


def _whose(account: Account) -> str:
    kind, _, name = account.name.partition(".")
    return "this key" if kind == "key" else f"tenant {name!r}"
