"""A stream goes on only as long as the credential counts that opened it.

When a credential ends by itself is known as it is taken: the stream's place has an end. That a key is revoked, rotated
or deleted is heard (`Records`); only then, on a reconnect, and once in a while is a key looked at again, once for all
streams that it has open, and what is looked at is the record that this process knows: no event and no heartbeat reads
anything. The runs behind go on.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from services.gateway.guard import NotKnown, TooManyTries
from services.gateway.principal import Principal
from services.gateway.waiting import Place
from shared.access.records import Records
from shared.bus.errors import BusError
from shared.contracts.message import Unreadable

LOOKED_AT_EVERY_S: Final = 5.0
"""Without being told. A record is read again only once it is older than `records.FRESH_S`."""


class CredentialOver(Exception):
    """The credential that opened a stream does not count any more."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"this stream ends here, as its credential does: {reason}. What was begun goes on")


@dataclass(frozen=True, slots=True)
class Asker:
    """Who opened a connection, and how to ask who that is at this moment."""

    principal: Principal
    credential: str = field(repr=False)
    again: Callable[[], Awaitable[Principal]]
    """Raises what `Authenticator.principal_of` does."""


@dataclass(slots=True)
class _Tenure:
    """The open streams of one credential."""

    asker: Asker
    until: datetime | None
    places: set[Place] = field(default_factory=set)


class Tenures:
    """The open streams of a process whose credentials can end. One per process."""

    def __init__(self, records: Records, now: Callable[[], datetime]) -> None:
        self._records, self._now = records, now
        self._of: dict[str, dict[str, _Tenure]] = {}
        """By key, by credential: a key that was rotated has two for a while."""
        self._due: set[str] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return sum(len(one.places) for tenures in self._of.values() for one in tenures.values())

    async def start(self) -> None:
        """Watch from now on. After `Records.start`, whose forgetting comes first."""
        self._records.on_change.append(self._heard)
        self._records.bus.on_reconnect.append(self._reconnected)
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @contextmanager
    def holding(self, place: Place, asker: Asker | None) -> Iterator[None]:
        """Have `CredentialOver` raised in a place once its credential ends. None: nobody was asked who they are."""
        if asker is None:
            yield
            return
        principal = asker.principal
        if principal.until is not None:
            self._end_by(place, principal.until)
        if principal.key is None:  # a token's word stands until it ends
            yield
            return
        tenures = self._of.setdefault(principal.key, {})
        tenure = tenures.setdefault(asker.credential, _Tenure(asker, principal.until))
        tenure.places.add(place)
        self._look_soon(principal.key)  # it may have changed since the request came, before anybody listened here
        try:
            yield
        finally:
            tenure.places.discard(place)
            if not tenure.places and tenures.get(asker.credential) is tenure:
                del tenures[asker.credential]
                if not tenures and self._of.get(principal.key) is tenures:
                    del self._of[principal.key]

    def _heard(self, record: str) -> None:
        kind, _, name = record.partition(".")
        if kind == "key" and name in self._of:
            self._look_soon(name)

    async def _reconnected(self) -> None:
        for key in self._of:
            self._look_soon(key)

    def _look_soon(self, key: str) -> None:
        self._due.add(key)
        self._wake.set()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        every_at = loop.time() + LOOKED_AT_EVERY_S
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(every_at):
                    await self._wake.wait()
            self._wake.clear()
            due, self._due = self._due, set()
            if loop.time() >= every_at:
                every_at, due = loop.time() + LOOKED_AT_EVERY_S, set(self._of)
            for key in due:
                for tenure in list(self._of.get(key, {}).values()):
                    await self._look(tenure)
                    await asyncio.sleep(0)  # of very many, the streams themselves go on in between

    async def _look(self, tenure: _Tenure) -> None:
        """End a credential's streams if it does not count any more, or when it will not."""
        try:
            until = (await tenure.asker.again()).until
        except NotKnown as error:
            for place in list(tenure.places):
                place.end_at(0.0, CredentialOver(str(error)))
        except (TooManyTries, BusError, Unreadable):
            pass  # nobody can say now: it is looked at again in a while, as long as it is open
        else:
            if until is not None and until != tenure.until:
                tenure.until = until
                for place in list(tenure.places):
                    self._end_by(place, until)

    def _end_by(self, place: Place, until: datetime) -> None:
        left_s = (until - self._now()).total_seconds()
        reason = f"it ended at {until:%Y-%m-%d %H:%M:%S} UTC"
        place.end_at(asyncio.get_running_loop().time() + left_s, CredentialOver(reason))
