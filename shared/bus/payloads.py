"""Bodies over 256 KB travel by reference: the message carries the digest, an object store the bytes.

The object is stored before the message that names it and is named by its content, so that a repeated
write costs nothing and changes nothing. Objects age with the log.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping

import nats.js.errors
from nats.aio.client import Client
from nats.js.object_store import ObjectStore

from shared.bus.errors import BusError
from shared.topology import MAX_MESSAGE_BYTES, PAYLOADS

HEADER = "Segue-Payload"
CACHE_BYTES = 32 * 1024 * 1024


class PayloadMissing(BusError):
    """A message names a payload that the store does not have (any more)."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"payload {name} is not in the object store {PAYLOADS!r}: it is older than the log or was removed"
        )
        self.name = name


class Payloads:
    """One per connection. Remembers the last few objects: the same one is often read twice in a row."""

    def __init__(self, client: Client, *, threshold: int = MAX_MESSAGE_BYTES) -> None:
        self._jetstream = client.jetstream(timeout=30)
        self._threshold = threshold
        self._store: ObjectStore | None = None
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._cached_bytes = 0

    async def pack(self, body: bytes) -> tuple[bytes, dict[str, str] | None]:
        """Return what to publish for `body`: itself, or nothing and the header that names it."""
        if len(body) <= self._threshold:
            return body, None
        name = hashlib.sha256(body).hexdigest()
        if name not in self._cache:
            store = await self._bound()
            try:
                await store.get_info(name)
            except nats.js.errors.ObjectNotFoundError:
                await store.put(name, body)
            self._remember(name, body)
        return b"", {HEADER: name}

    async def unpack(self, body: bytes, headers: Mapping[str, str] | None) -> bytes:
        """Return the body that a message stands for. Raises `PayloadMissing`."""
        name = headers.get(HEADER) if headers else None
        if name is None:
            return body
        if (cached := self._cache.get(name)) is not None:
            self._cache.move_to_end(name)
            return cached
        store = await self._bound()
        try:
            data = (await store.get(name)).data
        except (nats.js.errors.ObjectNotFoundError, nats.js.errors.ObjectDeletedError) as error:
            raise PayloadMissing(name) from error
        if data is None or hashlib.sha256(data).hexdigest() != name:
            raise PayloadMissing(name)
        self._remember(name, data)
        return data

    async def _bound(self) -> ObjectStore:
        if self._store is None:
            self._store = await self._jetstream.object_store(PAYLOADS)
        return self._store

    def _remember(self, name: str, body: bytes) -> None:
        if name in self._cache or len(body) > CACHE_BYTES // 2:
            return
        self._cache[name] = body
        self._cached_bytes += len(body)
        while self._cached_bytes > CACHE_BYTES:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= len(dropped)
