"""Changes of accounts: those of this process that wait for the same account are written together.

Each write is a compare-and-set on top of what this process wrote or read last, so that mostly it is the only question
to the bus; when somebody else was first, all of them are thought over again on top of that. What is decided without a
write (a budget that is used up) is decided by what the bucket's leader has.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from shared.bus.buckets import TRIES, Bucket, Contended
from shared.contracts.access import Account

MOST_KNOWN: Final = 1_000
Change = Callable[[Account | None], Account | None]
"""Returns the account after it; None leaves it as it is. It is called again on top of another's write."""
Waiting = list[tuple[Change, "asyncio.Future[None]"]]


@dataclass(slots=True)
class Booking:
    """One a process."""

    bucket: Bucket
    _known: OrderedDict[str, tuple[Account | None, int]] = field(default_factory=OrderedDict)
    _waiting: dict[str, Waiting] = field(default_factory=dict)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    async def change(self, account: str, change: Change) -> None:
        """Apply a change; returns when it is written. Raises `BusError`, and then it may be written or not."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.get(account)
        if waiting is not None:
            waiting.append((change, done))
        else:
            self._waiting[account] = [(change, done)]
            task = asyncio.create_task(self._work(account))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await done

    async def _work(self, account: str) -> None:
        while batch := self._waiting[account]:
            self._waiting[account] = []
            try:
                await self._write(account, batch)
            except Exception as error:  # noqa: BLE001 - whoever waits is told; the next batch has its own chance
                self._known.pop(account, None)
                for _, done in batch:
                    if not done.done():
                        done.set_exception(error)
            else:
                for _, done in batch:
                    if not done.done():
                        done.set_result(None)
        del self._waiting[account]

    async def _write(self, account: str, batch: Waiting) -> None:
        key = f"money.{account}"
        known = self._known.get(account)
        fresh = known is None
        for _ in range(TRIES):
            before, revision = known if known is not None else await self.bucket.get(key, Account)
            after = before
            for change, _ in batch:
                after = change(after) or after
            if after is before or after is None:
                if fresh or known is None:
                    self._know(account, before, revision)
                    return
            elif (written := await self.bucket.put(key, after, revision)) is not None:
                self._know(account, after, written)
                return
            known, fresh = None, True
        raise Contended(key)

    def _know(self, account: str, record: Account | None, revision: int) -> None:
        self._known[account] = (record, revision)
        self._known.move_to_end(account)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
