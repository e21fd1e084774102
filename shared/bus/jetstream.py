"""The JetStream calls that the hot path makes, on a nats-py connection: write, write once, read from the leader.

nats-py's own `js.publish` does the same with a task, a timer and a random token per call; here one inbox
serves all, with a counter, which is what keeps a durable write near 50 µs of client CPU.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError, ConnectionReconnectingError, OutboundBufferLimitError

from shared.bus.errors import NotProvisioned, QueueFull, Refused, Unavailable
from shared.bus.reader import Reader
from shared.moments import rfc3339

WRONG_LAST_SEQUENCE: Final = 10071
STORE_FAILED: Final = 10077
"""`maximum messages exceeded`, of the stream or per subject, or of bytes; but also a full disk or a closing store."""
UNSETTLED: Final = frozenset({10158, 10164})
"""Of three replicas: another write on the subject, or the same message id, is on its way, and may yet be dropped."""
NO_MESSAGE: Final = 10037
STREAM_NOT_FOUND: Final = 10059
_UNSETTLED_S: Final = 0.004
PAGE: Final = 500
WRITER: Final = "Segue-Writer"
"""Header that tells a write whose answer was lost from the same one by another, or in an earlier try."""
ONCE: Final[Mapping[str, str]] = {"Nats-Expected-Last-Subject-Sequence": "0"}


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as its stream keeps it."""

    subject: str
    data: bytes
    headers: Mapping[str, str] | None
    seq: int
    time: str = ""
    """When it was stored, by the server's clock, RFC 3339; only of messages that were read directly."""


class JetStream:
    """One per connection. Answers arrive on a single inbox; lost ones end in `Unavailable`."""

    def __init__(self, client: Client, *, timeout_s: float = 2.0, patience_s: float = 20.0) -> None:
        self.client = client
        self.publishes = 0
        """Durable writes asked for by this process: what `bench` counts."""
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._pending: dict[str, asyncio.Future[Msg]] = {}
        self._numbers = count(1)
        self._inbox = ""

    async def start(self) -> None:
        """Open the inbox. Once, after connecting; nats-py renews it on reconnect."""
        inbox = self.client.new_inbox()
        self._inbox = f"{inbox}."
        await self.client.subscribe(f"{inbox}.*", future=Reader(self._answered))

    def _answered(self, msg: Msg) -> None:
        future = self._pending.pop(msg.subject[len(self._inbox) :], None)
        if future is not None and not future.done():
            future.set_result(msg)

    def reconnected(self) -> None:
        """To be called when the connection was made again: answers to what was asked before it broke never come."""
        for token in list(self._pending):
            self._expired(token)

    def _expired(self, token: str) -> None:
        future = self._pending.pop(token, None)
        if future is not None and not future.done():
            future.set_exception(TimeoutError())

    async def request(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Msg:
        """Ask once. Raises `TimeoutError` when there is no answer in time or no connection to ask over."""
        token = str(next(self._numbers))
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Msg] = loop.create_future()
        self._pending[token] = future
        timer = loop.call_later(self._timeout_s if timeout_s is None else timeout_s, self._expired, token)
        try:
            await self.client.publish(
                subject, data, reply=self._inbox + token, headers=dict(headers) if headers else None
            )
            return await future
        except (ConnectionClosedError, ConnectionReconnectingError, OutboundBufferLimitError) as error:
            raise TimeoutError from error
        finally:
            timer.cancel()
            self._pending.pop(token, None)

    async def _insist(self, subject: str, data: bytes, headers: Mapping[str, str] | None) -> dict[str, Any]:
        """Ask until there is an answer that decides something, or patience is over."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        pause_s = 0.05
        repeated = False
        while True:
            with contextlib.suppress(TimeoutError):
                msg = await self.request(subject, data, headers=headers)
                if msg.data:
                    answer: dict[str, Any] = json.loads(msg.data)
                    error = answer.get("error")
                    if error is None:
                        return answer
                    if not _passing(error):
                        error["repeated"] = repeated
                        return answer
                    if error.get("err_code") in UNSETTLED:
                        pause_s = _UNSETTLED_S
            repeated = True
            waited_s = loop.time() - began
            if waited_s > self._patience_s:
                raise Unavailable(f"write or read of {subject!r}", waited_s)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.5)

    async def publish(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> int:
        """Write durably; returns the sequence. Repeats the same write until it is answered.

        Raises `QueueFull`, `NotProvisioned`, `Refused` or, when patience is over, `Unavailable`.
        """
        self.publishes += 1
        answer = await self._insist(subject, data, headers)
        if (error := answer.get("error")) is not None:
            raise _refusal(subject, error)
        return int(answer["seq"])

    async def publish_once(
        self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None, behind: int = 0
    ) -> int | None:
        """Write if nothing is on the subject. Returns the sequence, or None when there is something already.

        None may also mean that an earlier try of this very write was stored although its answer was lost.
        `behind`: write if the last on the subject is the one with this sequence.
        """
        once = ONCE if behind == 0 else {"Nats-Expected-Last-Subject-Sequence": str(behind)}
        try:
            return await self.publish(subject, data, headers=once if headers is None else {**once, **headers})
        except Refused as refused:
            if refused.err_code == WRONG_LAST_SEQUENCE:
                return None
            raise

    async def last(self, stream: str, subject: str) -> Stored | None:
        """Read the last message on a subject as the stream's leader has it: never stale. None when there is none."""
        if alone(self.client) and (msg := await self._directly(stream, subject)) is not None:
            headers = msg.headers or {}
            if "Status" in headers:
                return None
            return Stored(headers["Nats-Subject"], msg.data, _payload_headers(headers), int(headers["Nats-Sequence"]))
        body = json.dumps({"last_by_subj": subject}).encode()
        answer = await self._insist(f"$JS.API.STREAM.MSG.GET.{stream}", body, None)
        if (error := answer.get("error")) is not None:
            if error.get("err_code") == NO_MESSAGE:
                return None
            raise _refusal(stream, error)
        message = answer["message"]
        headers = message.get("hdrs")
        return Stored(
            subject=message["subject"],
            data=base64.b64decode(message.get("data", "")),
            headers=_headers(base64.b64decode(headers)) if headers else None,
            seq=int(message["seq"]),
        )

    async def _directly(self, stream: str, subject: str) -> Msg | None:
        """Ask for the last message, or a 404, without the JetStream API; None when that is not what comes back.

        Where there are no replicas this is as true as asking the leader, at a third of the server's CPU.
        """
        with contextlib.suppress(TimeoutError):
            msg = await self.request(f"$JS.API.DIRECT.GET.{stream}.{subject}")
            if (msg.headers or {}).get("Status") in {None, "404"}:
                return msg
        return None

    async def purge(self, stream: str, subject: str, *, below: int | None = None) -> None:
        """Remove what is on a subject, or of that what has a sequence under `below`. Removing nothing is fine."""
        asked = {"filter": subject} if below is None else {"filter": subject, "seq": below}
        body = json.dumps(asked).encode()
        answer = await self._insist(f"$JS.API.STREAM.PURGE.{stream}", body, None)
        if (error := answer.get("error")) is not None:
            raise _refusal(stream, error)

    async def subjects_of(self, stream: str, pattern: str) -> list[str]:
        """Return the subjects in a stream that match, without their messages; of very many, those of the first page."""
        body = json.dumps({"subjects_filter": pattern}).encode()
        answer = await self._insist(f"$JS.API.STREAM.INFO.{stream}", body, None)
        if (error := answer.get("error")) is not None:
            raise _refusal(stream, error)
        return list((answer["state"].get("subjects") or {}).keys())

    async def direct_all(self, stream: str, subjects: list[str], *, limit: int = 1024) -> list[Stored]:
        """Read the last message of every matching subject in one go (ADR-31), oldest first.

        From any replica: what it returns is true, what it does not return may exist all the same.
        Raises `Refused` (413) for more than 1024 subjects, `Unavailable`.
        """
        return await self._direct(stream, {"multi_last": subjects, "batch": limit})

    async def direct_page(
        self, stream: str, subject: str, *, after: int, limit: int, max_bytes: int | None = None
    ) -> list[Stored]:
        """Read the next `limit` messages on matching subjects behind a sequence, oldest first; from any replica.

        Fewer when they come to more than `max_bytes`; none only when there is none.
        """
        asked: dict[str, Any] = {"seq": after + 1, "next_by_subj": subject, "batch": limit}
        return await self._direct(stream, asked if max_bytes is None else {**asked, "max_bytes": max_bytes})

    async def direct_each(self, stream: str, subject: str, *, page: int = PAGE) -> AsyncIterator[Stored]:
        """Yield every message on matching subjects, oldest first, `page` of them read at a time; from any replica."""
        after = 0
        while found := await self.direct_page(stream, subject, after=after, limit=page):
            for stored in found:
                yield stored
            if len(found) < page:
                return
            after = found[-1].seq

    async def direct_since(self, stream: str, subject: str, since: datetime, *, limit: int) -> list[Stored]:
        """Read the first `limit` messages on a subject that were stored at a time or later; from any replica."""
        asked = {"start_time": rfc3339(since), "next_by_subj": subject, "batch": limit}
        return await self._direct(stream, asked)

    async def direct_on(self, stream: str, subject: str, *, limit: int) -> list[Stored]:
        """Read the first `limit` messages on a subject in one go, oldest first; from any replica, like `direct_all`."""
        return await self._direct(stream, {"seq": 1, "next_by_subj": subject, "batch": limit})

    async def _direct(self, stream: str, asked: dict[str, Any]) -> list[Stored]:
        """Ask until a replica has answered to the end, or patience is over."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        pause_s = 0.05
        while True:
            with contextlib.suppress(TimeoutError):
                return await self._direct_once(stream, asked)
            waited_s = loop.time() - began
            if waited_s > self._patience_s:
                raise Unavailable(f"read of stream {stream}", waited_s)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.5)

    async def _direct_once(self, stream: str, asked: dict[str, Any]) -> list[Stored]:
        """Raises `TimeoutError` when the server falls silent before the end, or nobody is there to answer."""
        loop = asyncio.get_running_loop()
        inbox = self.client.new_inbox()
        found: list[Stored] = []
        done: asyncio.Future[None] = loop.create_future()
        heard_s = loop.time()

        def take(msg: Msg) -> None:
            nonlocal heard_s
            heard_s = loop.time()
            headers = msg.headers or {}
            status = headers.get("Status")
            if status is None:
                found.append(
                    Stored(
                        headers["Nats-Subject"],
                        msg.data,
                        _payload_headers(headers),
                        int(headers["Nats-Sequence"]),
                        headers["Nats-Time-Stamp"],
                    )
                )
            elif not done.done():
                if status in {"204", "404"}:
                    done.set_result(None)
                elif status in {"503", "408"}:
                    done.set_exception(TimeoutError())
                else:
                    done.set_exception(Refused(stream, int(status), 0, headers.get("Description", "")))

        try:
            subscription = await self.client.subscribe(inbox, future=Reader(take))
            try:
                await self.client.publish(f"$JS.API.DIRECT.GET.{stream}", json.dumps(asked).encode(), reply=inbox)
                while not done.done():
                    if loop.time() - heard_s > self._timeout_s:
                        raise TimeoutError
                    await asyncio.wait({done}, timeout=self._timeout_s)
                done.result()
            finally:
                if not self.client.is_closed:
                    await subscription.unsubscribe()
        except (ConnectionClosedError, ConnectionReconnectingError, OutboundBufferLimitError) as error:
            raise TimeoutError from error
        return found


def alone(client: Client) -> bool:
    """Whether the server that we are connected to has JetStream for itself: no stream can have replicas.

    A leaf node without JetStream of its own is in no cluster either, but the streams behind it may be.
    """
    server: Mapping[str, Any] = client._server_info  # nats-py shows it nowhere else; read anew on every connection
    return "cluster" not in server and bool(server.get("jetstream"))


def _passing(error: dict[str, Any]) -> bool:
    """Whether JetStream's error is of the moment (no leader, not ready), so that the same write is tried again."""
    return error.get("err_code") in UNSETTLED or (error.get("code") in {503, 408} and not _is_full(error))


def _is_full(error: dict[str, Any]) -> bool:
    return error.get("err_code") == STORE_FAILED and str(error.get("description", "")).startswith("maximum ")


def _refusal(subject: str, error: dict[str, Any]) -> Exception:
    err_code = int(error.get("err_code", 0))
    if _is_full(error):
        # One error number for both bounds: only the words tell a subject's from the stream's.
        return QueueFull(subject, of_subject="per subject" in str(error.get("description", "")))
    if err_code == STREAM_NOT_FOUND:
        return NotProvisioned(f"the stream for {subject!r}")
    description, repeated = str(error.get("description", "")), bool(error.get("repeated"))
    return Refused(subject, int(error.get("code", 0)), err_code, description, repeated=repeated)


def _headers(raw: bytes) -> dict[str, str]:
    """Parse a stored message's header block (`NATS/1.0` and lines)."""
    lines = raw.decode().split("\r\n")[1:]
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines if line)}


def _payload_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if not name.startswith("Nats-")}
