"""Bodies over 256 KB travel by reference: the message carries the digest, an object store the bytes.

The object is stored before the message that names it and is named by its content, so that a repeated
write costs nothing and changes nothing. Objects age with the log. They are laid out as NATS clients expect
(ADR-20) and read in one go (ADR-31): nats-py's own reading takes twenty times as long, and for ever when an
object has lost its chunks.
"""

import asyncio
import base64
import hashlib
import json
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.bus.errors import BusError
from shared.bus.jetstream import JetStream
from shared.topology import MAX_MESSAGE_BYTES, PAYLOADS

HEADER = "Segue-Payload"
CACHE_BYTES = 32 * 1024 * 1024
CHUNK_BYTES = 128 * 1024
STREAM = f"OBJ_{PAYLOADS}"
REFRESHED_AFTER = timedelta(hours=1)
"""An older object is stored anew when a message is to name it, so that it lives as long as the message."""
REPLICA_BEHIND_S = (0.02, 0.1, 0.4)
"""A replica may not have yet what the leader has: pauses before it is asked again."""


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
        self._jetstream = jetstream
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
            info = await self._info(name)
            stored_at = None if info is None else _stored_at(info)
            if stored_at is None or not _Entry(body, stored_at).is_young:
                stored_at = await self._store(name, body)
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

    async def _info(self, name: str) -> dict[str, Any] | None:
        """Return what the store's leader says of an object; None when it is not there."""
        stored = await self._jetstream.last(STREAM, _meta(name))
        if stored is None:
            return None
        info: dict[str, Any] = json.loads(stored.data)
        return None if info.get("deleted") else info

    async def _load(self, name: str) -> _Entry:
        for pause_s in (0.0, *REPLICA_BEHIND_S):
            await asyncio.sleep(pause_s)
            info = await self._info(name)
            if info is None:
                raise PayloadMissing(name)
            chunks = await self._jetstream.direct_on(STREAM, _chunks(info["nuid"]), limit=info["chunks"])
            if len(chunks) == info["chunks"]:
                data = b"".join(chunk.data for chunk in chunks)
                if hashlib.sha256(data).hexdigest() != name:
                    raise PayloadCorrupt(name)
                return _Entry(data, _stored_at(info) or datetime.now(UTC))
        raise PayloadMissing(name)

    async def _store(self, name: str, body: bytes) -> datetime:
        """Store the chunks, then the word that they are there. A write whose answer is lost is not stored twice."""
        nuid = secrets.token_hex(11)
        now = datetime.now(UTC)
        pieces = range(0, len(body), CHUNK_BYTES)
        for number, start in enumerate(pieces):
            headers = {"Nats-Msg-Id": f"{nuid}-{number}"}
            await self._jetstream.publish(_chunks(nuid), body[start : start + CHUNK_BYTES], headers=headers)
        digest = base64.urlsafe_b64encode(bytes.fromhex(name)).decode()
        info = {
            "name": name,
            "bucket": PAYLOADS,
            "nuid": nuid,
            "size": len(body),
            "mtime": now.isoformat(),
            "chunks": len(pieces),
            "digest": f"SHA-256={digest}",
            "options": {"max_chunk_size": CHUNK_BYTES},
        }
        await self._jetstream.publish(_meta(name), json.dumps(info).encode(), headers={"Nats-Rollup": "sub"})
        return now

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


def _meta(name: str) -> str:
    return f"$O.{PAYLOADS}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"


def _chunks(nuid: str) -> str:
    return f"$O.{PAYLOADS}.C.{nuid}"


def _stored_at(info: Mapping[str, Any]) -> datetime | None:
    try:
        at = datetime.fromisoformat(str(info.get("mtime")))
    except ValueError:
        return None
    return at if at.tzinfo is not None else None
