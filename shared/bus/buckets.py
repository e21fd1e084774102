"""Keys that change: read from the leader, written by compare-and-set."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Final, TypeVar

from shared.bus.errors import BusError, Refused
from shared.bus.jetstream import PAGE, WRITER, WRONG_LAST_SEQUENCE, JetStream, Stored
from shared.bus.payloads import Payloads
from shared.contracts.message import Message, Unreadable

log = logging.getLogger("segue.bus")

M = TypeVar("M", bound=Message)

ON_TOP_OF: Final = "Nats-Expected-Last-Subject-Sequence"
"""Header of a write: the revision that it is put on top of, or refused."""
DELETED = {"KV-Operation": "DEL"}
TRIES = 50


def _say(key: str, error: Unreadable) -> None:
    log.error("bucket.left_out", extra={"key": key, "error": str(error)})


class Contended(BusError):
    """Somebody else changed the key every time."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key!r} was changed by others {TRIES} times while this change was tried")


class UnreadableValue(Unreadable):
    """A key's value is none of its kind; it can be written over at `revision`."""

    def __init__(self, reason: str, revision: int) -> None:
        super().__init__(reason)
        self.revision = revision


@dataclass(slots=True)
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted: int = 0


class Bucket:
    """One key-value bucket of messages of one kind."""

    def __init__(self, name: str, jetstream: JetStream, payloads: Payloads) -> None:
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."
        self._jetstream = jetstream
        self._payloads = payloads
        self._turns: dict[str, _Turn] = {}
        self._name = secrets.token_hex(6)
        self._writes = count(1)

    async def get(self, key: str, kind: type[M]) -> tuple[M | None, int]:
        """Return the value and its revision; (None, revision) when it is not there, revision 0 when it never was."""
        stored = await self._jetstream.last(self._stream, self._prefix + key)
        if stored is None:
            return None, 0
        if _deleted(stored):
            return None, stored.seq
        try:
            return kind.decode(await self._payloads.unpack(stored.data, stored.headers)), stored.seq
        except Unreadable as error:
            raise UnreadableValue(str(error), stored.seq) from error

    async def readable(self, key: str, kind: type[M]) -> tuple[M | None, int]:
        """Return as `get` does; a value that nobody can read counts as none, and can be written over."""
        try:
            return await self.get(key, kind)
        except UnreadableValue as unreadable:
            _say(key, unreadable)
            return None, unreadable.revision

    async def every(
        self, prefix: str, kind: type[M], *, unreadable: Callable[[str, Unreadable], None] = _say
    ) -> dict[str, M]:
        """Return values by key, of keys that begin with `prefix.` (all, without one); as some replica has them.

        A value that cannot be read is left out, so that the others can be had, and told to `unreadable`.
        """
        return {key: value for key, (value, _) in (await self.entries(prefix, kind, unreadable=unreadable)).items()}

    async def entries(
        self, prefix: str, kind: type[M], *, unreadable: Callable[[str, Unreadable], None] = _say
    ) -> dict[str, tuple[M, int]]:
        """Return values with their revisions, as `every` does."""
        found: dict[str, tuple[M, int]] = {}
        wrong: dict[str, Unreadable] = {}
        subject = f"{self._prefix}{prefix}.>" if prefix else f"{self._prefix}>"
        async for stored in self._jetstream.direct_each(self._stream, subject):
            key = stored.subject[len(self._prefix) :]
            found.pop(key, None)  # an earlier value of the key is not what it has now
            wrong.pop(key, None)
            if _deleted(stored):
                continue
            try:
                found[key] = kind.decode(await self._payloads.unpack(stored.data, stored.headers)), stored.seq
            except Unreadable as error:
                wrong[key] = error
        for key, why in wrong.items():
            unreadable(key, why)
        return found

    async def versions(self, key: str, kind: type[M]) -> list[M]:
        """Return the values that a key has had, as far as the bucket keeps them, oldest first; from some replica."""
        stored = await self._jetstream.direct_on(self._stream, self._prefix + key, limit=PAGE)
        found = []
        for one in stored:
            if not one.data and not one.headers:
                continue
            try:
                found.append(kind.decode(await self._payloads.unpack(one.data, one.headers)))
            except Unreadable as error:
                _say(key, error)
        return found

    async def put(self, key: str, value: Message, revision: int) -> int | None:
        """Write if the key is still at `revision` (0: not there). Returns the new revision, None if it moved on."""
        body, headers = await self._payloads.pack(value.encode())
        return await self._put(key, body, {ON_TOP_OF: str(revision), **(headers or {})})

    async def _put(self, key: str, body: bytes, headers: dict[str, str]) -> int | None:
        """Write on top of a revision. One whose answer was lost is known for one's own by who wrote it."""
        writer = f"{self._name}.{next(self._writes)}"
        try:
            return await self._jetstream.publish(self._prefix + key, body, headers={**headers, WRITER: writer})
        except Refused as refused:
            if refused.err_code != WRONG_LAST_SEQUENCE:
                raise
            if not refused.repeated:
                return None
        stored = await self._jetstream.last(self._stream, self._prefix + key)
        mine = stored is not None and (stored.headers or {}).get(WRITER) == writer
        return stored.seq if stored is not None and mine else None

    async def delete(self, key: str) -> bool:
        """Remove the key; whether it was there.

        The marker that says so goes too: the bucket's own count of keys is then what is there. A value that is written
        after the marker stays.
        """
        for _ in range(TRIES):
            stored = await self._jetstream.last(self._stream, self._prefix + key)
            if stored is None or _deleted(stored):
                return False
            headers = {ON_TOP_OF: str(stored.seq), **DELETED}
            marker = await self._put(key, b"", headers)
            if marker is not None:
                await self._jetstream.purge(self._stream, self._prefix + key, below=marker + 1)
                return True
        raise Contended(key)

    async def forget(self, key: str, *, revision: int | None = None) -> None:
        """Remove the key at once, whatever it holds, if it is there; with `revision` what was written later stays.

        A change on top of it is then refused.
        """
        below = revision + 1 if revision is not None else None
        await self._jetstream.purge(self._stream, self._prefix + key, below=below)

    async def update(
        self, key: str, kind: type[M], change: Callable[[M | None], M | None], *, fresh: bool = False
    ) -> M | None:
        """Apply a pure `change` until it is written on top of what it saw. None from `change` leaves the key alone.

        `fresh` says that the key is probably not there, which saves the first read. A write whose answer was
        lost, and on top of which another wrote, is seen as somebody else's, so `change` must be idempotent.
        """
        async with self._turn(key):
            current, revision = (None, 0) if fresh else await self.get(key, kind)
            for _ in range(TRIES):
                changed = change(current)
                if changed is None:
                    return current
                if await self.put(key, changed, revision) is not None:
                    return changed
                current, revision = await self.get(key, kind)
        raise Contended(key)

    @asynccontextmanager
    async def _turn(self, key: str) -> AsyncIterator[None]:
        """Wait for this process's other changes of the key: all but one of them would only lose."""
        turn = self._turns.setdefault(key, _Turn())
        turn.wanted += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.wanted -= 1
            if not turn.wanted:
                del self._turns[key]


def _deleted(stored: Stored) -> bool:
    """Whether what is stored is the mark of a key that was removed."""
    return stored.headers is not None and stored.headers.get("KV-Operation") in {"DEL", "PURGE"}
