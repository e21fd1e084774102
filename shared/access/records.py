"""Keys and tenants as one process knows them: read from the bucket's leader once, forgotten when they change.

A change is heard once it is stored (the bucket republishes), so what is read on hearing it is the new word. What could
have been missed is not believed: everything is forgotten on a reconnect, and each record after `FRESH_S`. Nothing that
is looked up again and again costs the bus anything, whether it is there or not.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from nats.aio.msg import Msg

from shared import subjects
from shared.bus.connection import Bus
from shared.contracts.access import ApiKey, Tenant
from shared.contracts.message import Message

MOST_KNOWN: Final = 10_000
FRESH_S: Final = 60.0
M = TypeVar("M", bound=Message)


@dataclass(slots=True)
class _Known:
    record: Message | None
    read_at: float


@dataclass(slots=True)
class Records:
    """One a process."""

    bus: Bus
    most: int = MOST_KNOWN
    reads: int = 0
    """From the bus, so far."""
    on_change: list[Callable[[str], None]] = field(default_factory=list)
    """Called with a record's name (`key.<id>`, `tenant.<name>`) once it has changed, and is forgotten."""
    _known: OrderedDict[str, _Known] = field(default_factory=OrderedDict)
    _reading: dict[str, "asyncio.Task[Message | None]"] = field(default_factory=dict)

    async def start(self) -> None:
        """Hear of changes from now on."""
        await self.bus.client.subscribe(subjects.access(">"), cb=self._heard)
        self.bus.on_reconnect.append(self.reconnected)

    async def reconnected(self) -> None:
        """To be called when the connection was made again: what was said meanwhile was missed."""
        self._known.clear()
        self._reading.clear()

    def has_key(self, id: str) -> bool:
        """Whether a key can be looked up without asking the bus."""
        known = self._known.get(f"key.{id}")
        return known is not None and time.monotonic() - known.read_at < FRESH_S

    async def key(self, id: str) -> ApiKey | None:
        """Return a key's record; None when there is none. Raises `BusError`."""
        return await self._get(f"key.{id}", ApiKey)

    async def tenant(self, name: str) -> Tenant | None:
        """Return a tenant's record; None for one without. Raises `BusError`."""
        return await self._get(f"tenant.{name}", Tenant)

    async def _heard(self, msg: Msg) -> None:
        name = subjects.record_of(msg.subject)
        self._known.pop(name, None)
        self._reading.pop(name, None)  # what is being read may be the word before
        for changed in self.on_change:
            changed(name)

    async def _get(self, name: str, kind: type[M]) -> M | None:
        known = self._known.get(name)
        if known is not None and time.monotonic() - known.read_at < FRESH_S:
            self._known.move_to_end(name)
            assert known.record is None or isinstance(known.record, kind)
            return known.record
        reading = self._reading.get(name)
        if reading is None:
            reading = self._reading[name] = asyncio.create_task(self._read(name, kind))
        found = await asyncio.shield(reading)
        assert found is None or isinstance(found, kind)
        return found

    async def _read(self, name: str, kind: type[M]) -> M | None:
        """Read a record; it is known from then on unless it changed while it was read."""
        self.reads += 1
        me = asyncio.current_task()
        try:
            began = time.monotonic()
            found, _ = await self.bus.keys.get(name, kind)
            if self._reading.get(name) is me:
                self._known[name] = _Known(found, began)
                self._known.move_to_end(name)
                if len(self._known) > self.most:
                    self._known.popitem(last=False)
            return found
        finally:
            if self._reading.get(name) is me:
                del self._reading[name]
