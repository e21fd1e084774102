"""Bodies over 256 KB travel by reference: the message carries the digest, an object store the bytes.

The object is stored before the message that names it and is named by its content, so that a repeated
write costs nothing and changes nothing. Objects age with the log.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from shared.bus.errors import BusError
from shared.bus.jetstream import JetStream
from shared.bus.objects import ObjectBroken, Objects
from shared.topology import MAX_MESSAGE_BYTES, PAYLOADS

HEADER = "Segue-Payload"
CACHE_BYTES = 32 * 1024 * 1024
REFRESHED_AFTER = timedelta(hours=1)
"""An older object is stored anew when a message is to name it, so that it lives as long as the message."""


class PayloadMissing(BusError):
    """A message names a payload that the store does not have (any more)."""

    why = "it is older than the log or was removed"

    def __init__(self, name: str) -> None:
        super().__init__(f"payload {name} is not in the object store {PAYLOADS!r}: {self.why}")
        self.name = name


class PayloadCorrupt(PayloadMissing):
    """What the store has under a payload's name is something else."""

    why = "what is there has another digest; restore the store from its replicas or a backup"


@dataclass(frozen=True, slots=True)
class _Entry:
    """An object as it is remembered."""

    body: bytes
    stored_at: datetime

    @property
    def is_young(self) -> bool:
        return datetime.now(UTC) - self.stored_at < REFRESHED_AFTER


class Payloads:
    """One per connection. Remembers the last few objects: the same one is often read twice in a row."""

    def __init__(self, jetstream: JetStream, *, threshold: int = MAX_MESSAGE_BYTES) -> None:
        self._objects = Objects(PAYLOADS, jetstream)
        self._threshold = threshold
        self._cache: OrderedDict[str, _Entry] = OrderedDict()
        self._cached_bytes = 0

    async def pack(self, body: bytes) -> tuple[bytes, dict[str, str] | None]:
        """Return what to publish for `body`: itself, or nothing and the header that names it."""
        if len(body) <= self._threshold:
            return body, None
        name = hashlib.sha256(body).hexdigest()
        known = self._cache.get(name)
        if known is None or not known.is_young:
            info = await self._objects.info(name)
            stored_at = None if info is None else info.stored_at
            if stored_at is None or not _Entry(body, stored_at).is_young:
                stored_at = await self._objects.store(name, body)
            self._remember(name, _Entry(body, stored_at))
        return b"", {HEADER: name}

    async def unpack(self, body: bytes, headers: Mapping[str, str] | None) -> bytes:
        """Return the body that a message stands for. Raises `PayloadMissing`, `PayloadCorrupt`."""
        name = headers.get(HEADER) if headers else None
        if name is None:
            return body
        if (known := self._cache.get(name)) is not None:
            self._cache.move_to_end(name)
            return known.body
        entry = await self._load(name)
        self._remember(name, entry)
        return entry.body

    async def _load(self, name: str) -> _Entry:
        try:
            found = await self._objects.load(name)
        except ObjectBroken as error:
            raise PayloadCorrupt(name) from error
        if found is None:
            raise PayloadMissing(name)
        info, data = found
        if info.digest != name:  # which the bytes have, as they were read
            raise PayloadCorrupt(name)
        return _Entry(data, info.stored_at or datetime.now(UTC))

    def _remember(self, name: str, entry: _Entry) -> None:
        if (before := self._cache.pop(name, None)) is not None:
            self._cached_bytes -= len(before.body)
        if len(entry.body) > CACHE_BYTES // 2:
            return
        self._cache[name] = entry
        self._cached_bytes += len(entry.body)
        while self._cached_bytes > CACHE_BYTES:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= len(dropped.body)
