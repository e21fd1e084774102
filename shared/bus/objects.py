"""An object store: bytes under a name, in chunks, laid out as NATS clients expect (ADR-20) and read in one go (ADR-31).

nats-py's own reading takes twenty times as long, and for ever when an object has lost its chunks.
"""

import asyncio
import base64
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from shared.bus.errors import BusError
from shared.bus.jetstream import JetStream
from shared.moments import from_rfc3339

CHUNK_BYTES: Final = 128 * 1024
PAGE_CHUNKS: Final = 16
"""Read at a time of an object that is streamed: 2 MB."""
REPLICA_BEHIND_S: Final = (0.02, 0.1, 0.4)
"""A replica may not have yet what the leader has: pauses before it is asked again."""


class ObjectBroken(BusError):
    """An object's chunks are not all there, or are something else."""

    def __init__(self, bucket: str, name: str, why: str) -> None:
        super().__init__(f"object {name!r} of the object store {bucket!r} cannot be read: {why}")


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store says of an object."""

    name: str
    nuid: str
    size: int
    chunks: int
    digest: str
    """SHA-256 of the bytes, as hexadecimal digits."""
    stored_at: datetime | None
    metadata: Mapping[str, str] = field(default_factory=dict)


class Objects:
    """One bucket of objects."""

    def __init__(self, bucket: str, jetstream: JetStream) -> None:
        self._bucket = bucket
        self._stream = f"OBJ_{bucket}"
        self._jetstream = jetstream

    async def info(self, name: str) -> Stored | None:
        """Return what the store's leader says of an object; None when it is not there."""
        found = await self._jetstream.last(self._stream, self._meta(name))
        if found is None:
            return None
        info: dict[str, Any] = json.loads(found.data)
        if info.get("deleted"):
            return None
        digest = str(info.get("digest", "")).removeprefix("SHA-256=")
        return Stored(
            name=name,
            nuid=info["nuid"],
            size=int(info["size"]),
            chunks=int(info["chunks"]),
            digest=base64.urlsafe_b64decode(digest).hex(),
            stored_at=from_rfc3339(str(info.get("mtime"))),
            metadata=info.get("metadata") or {},
        )

    async def store(self, name: str, body: bytes, metadata: Mapping[str, str] | None = None) -> datetime:
        """Store the chunks, then the word that they are there. A write whose answer is lost is not stored twice.

        An object of the same name is replaced. Returns when it was stored.
        """
        nuid = secrets.token_hex(11)
        now = datetime.now(UTC)
        pieces = range(0, len(body), CHUNK_BYTES)
        for number, start in enumerate(pieces):
            headers = {"Nats-Msg-Id": f"{nuid}-{number}"}
            await self._jetstream.publish(self._chunks(nuid), body[start : start + CHUNK_BYTES], headers=headers)
        info = {
            "name": name,
            "bucket": self._bucket,
            "nuid": nuid,
            "size": len(body),
            "mtime": now.isoformat(),
            "chunks": len(pieces),
            "digest": f"SHA-256={base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode()}",
            "options": {"max_chunk_size": CHUNK_BYTES},
            **({"metadata": dict(metadata)} if metadata else {}),
        }
        await self._jetstream.publish(self._meta(name), json.dumps(info).encode(), headers={"Nats-Rollup": "sub"})
        return now

    async def load(self, name: str) -> tuple[Stored, bytes] | None:
        """Return an object whole; None when it is not there, or its chunks are not. Raises `ObjectBroken`."""
        for pause_s in (0.0, *REPLICA_BEHIND_S):
            await asyncio.sleep(pause_s)
            info = await self.info(name)
            if info is None:
                return None
            chunks = await self._jetstream.direct_on(self._stream, self._chunks(info.nuid), limit=info.chunks)
            if len(chunks) == info.chunks:
                data = b"".join(chunk.data for chunk in chunks)
                if hashlib.sha256(data).hexdigest() != info.digest:
                    raise ObjectBroken(self._bucket, name, "what is there has another digest")
                return info, data
        return None

    async def read(self, info: Stored, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Yield the bytes from `start` up to `end` (not included), a page at a time. Raises `ObjectBroken`."""
        end = info.size if end is None else min(end, info.size)
        at, after, pauses = 0, 0, iter(REPLICA_BEHIND_S)
        while at < end:
            page = await self._jetstream.direct_page(
                self._stream, self._chunks(info.nuid), after=after, limit=PAGE_CHUNKS
            )
            if not page:
                pause_s = next(pauses, None)
                if pause_s is None:
                    raise ObjectBroken(self._bucket, info.name, f"it ends after {at} of {info.size} bytes")
                await asyncio.sleep(pause_s)
            for chunk in page:
                after = chunk.seq
                low, high = max(0, start - at), min(len(chunk.data), end - at)
                at += len(chunk.data)
                if low < high:
                    yield chunk.data[low:high]
                if at >= end:
                    break

    def _meta(self, name: str) -> str:
        return f"$O.{self._bucket}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"

    def _chunks(self, nuid: str) -> str:
        return f"$O.{self._bucket}.C.{nuid}"
