"""A provider that does what a test tells it to, byte by byte: hostile wire behaviour needs a raw socket."""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from services.executor.providers.inquiries import SIMULATED_PATH

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Seen:
    """One request, as it came in."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]


def raw(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
    """Answer in one piece."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        lines = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        writer.write(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body)

    return reply


def json_reply(status: int, body: object, headers: Mapping[str, str] | None = None) -> Reply:
    return raw(status, json.dumps(body).encode(), headers)


def completion(text: str | None = "hello", *, cost: float | None = 0.001, **choice: object) -> dict[str, Any]:
    usage: dict[str, Any] = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    if cost is not None:
        usage["cost"] = cost
    message = {"role": "assistant", "content": text}
    return {
        "id": "gen-1",
        "model": "served/model",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message, **choice}],
        "usage": usage,
    }


def answer(text: str | None = "hello", *, cost: float | None = 0.001, **choice: object) -> Reply:
    return json_reply(200, completion(text, cost=cost, **choice))


def refuse(status: int, message: str = "no", headers: Mapping[str, str] | None = None, **error: object) -> Reply:
    return json_reply(status, {"error": {"code": status, "message": message, **error}}, headers)


def event(body: object) -> bytes:
    return b"data: " + (body if isinstance(body, bytes) else json.dumps(body).encode()) + b"\n\n"


def delta(text: str = "", **choice: object) -> bytes:
    return event({"model": "served/model", "choices": [{"index": 0, "delta": {"content": text}, **choice}]})


USAGE = event({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5, "cost": 0.002}})
DONE = event(b"[DONE]")


def streamed(*pieces: bytes, pause_s: float = 0.0, end: bool = True, then: Reply | None = None) -> Reply:
    """Answer as a stream of chunks; `end` False breaks the connection instead of ending the body."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for piece in pieces:
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(pause_s)
        if then is not None:
            await then(writer)
        if end:
            writer.write(b"0\r\n\r\n")
        else:
            writer.close()

    return reply


def text_stream(*texts: str, pause_s: float = 0.0) -> Reply:
    return streamed(*(delta(text) for text in texts), delta(finish_reason="stop"), USAGE, DONE, pause_s=pause_s)


async def hang(writer: asyncio.StreamWriter) -> None:
    """Say nothing for ever."""
    await asyncio.sleep(3600)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Break the connection without a word."""
    writer.transport.abort()


def when(event_: asyncio.Event, reply: Reply) -> Reply:
    """Answer once the test says so."""

    async def waited(writer: asyncio.StreamWriter) -> None:
        await event_.wait()
        await reply(writer)

    return waited


@dataclass
class Standin:
    """`async with Standin() as provider:`; answers what is scripted, in order, then `default`."""

    default: Reply = field(default_factory=answer)
    script: deque[Reply] = field(default_factory=deque)
    seen: list[Seen] = field(default_factory=list)
    aborted: int = 0
    """Connections that the client closed before the answer was whole."""
    connections: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def then(self, *replies: Reply) -> None:
        self.script.extend(replies)

    def prompts(self) -> Sequence[str]:
        return [seen.body["messages"][-1]["content"] for seen in self.seen]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            self.aborted += 1
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b""
        if not head:
            return False
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        path = first.split(" ")[1]
        if path.startswith(SIMULATED_PATH):
            # An attempt of unknown cost is asked after two seconds later: no test has scripted that, or counts it.
            await refuse(404, "this is no simulator")(writer)
            return True
        self.seen.append(Seen(path, headers, json.loads(body or b"{}")))
        self.asked.set()
        reply = self.script.popleft() if self.script else self.default
        answering = asyncio.ensure_future(reply(writer))
        try:
            while not answering.done():
                await asyncio.wait({answering}, timeout=0.005)
                if not answering.done() and (reader.at_eof() or reader.exception() is not None):
                    self.aborted += 1
                    return False
            await answering
            await writer.drain()
            return not writer.is_closing()
        finally:
            answering.cancel()
