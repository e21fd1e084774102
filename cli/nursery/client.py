"""The supervisor's side of a nursery: starts it, gives it orders, hears who ended."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from dataclasses import dataclass, field

from cli.nursery.order import Order
from cli.processes import LINE_BYTES, Process, Spawning

PADDING = "-" * 96
"""Room in the nursery's command line for the names of its children."""


class NurseryGone(RuntimeError):
    """The nursery ended; whoever wanted a child from it starts that another way."""


@dataclass(slots=True)
class Forked:
    """A child of the nursery."""

    pid: int
    output: asyncio.StreamReader
    errors: asyncio.StreamReader
    _code: "asyncio.Future[int]"

    @property
    def ended(self) -> bool:
        return self._code.done()

    async def wait(self) -> int:
        return await asyncio.shield(self._code)

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if not self.ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


@dataclass(slots=True)
class Nursery:
    """One nursery process. It begins to import when this is made, before there is an event loop even; `start` may be
    called at once."""

    _popen: "subprocess.Popen[bytes]" = field(init=False)
    _socket: socket.socket = field(init=False)
    _asked: "deque[asyncio.Future[tuple[int, asyncio.Future[int]]]]" = field(default_factory=deque)
    _children: "dict[int, asyncio.Future[int]]" = field(default_factory=dict)
    _listener: "asyncio.Task[None] | None" = None
    _order: asyncio.Lock = field(default_factory=asyncio.Lock)
    gone: bool = False

    def __post_init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "cli.nursery", str(theirs.fileno()), str(os.getpid()), PADDING],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        self._socket.setblocking(False)

    @property
    def pid(self) -> int:
        return self._popen.pid

    async def start(self, order: Order) -> Process:
        """Have a child forked. Raises `NurseryGone`."""
        loop = asyncio.get_running_loop()
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen())
        output, their_output = await _pipe()
        errors, their_errors = await _pipe()
        head, body = order.pack()
        started: asyncio.Future[tuple[int, asyncio.Future[int]]] = loop.create_future()
        try:
            async with self._order:
                if self.gone:
                    raise NurseryGone
                self._asked.append(started)
                while not self._sent(head, [their_output, their_errors]):
                    await self._writable()
                await loop.sock_sendall(self._socket, body)
        except OSError as error:
            raise NurseryGone from error
        finally:
            os.close(their_output)
            os.close(their_errors)
        pid, code = await started
        return Forked(pid, output, errors, code)

    def _sent(self, head: bytes, descriptors: list[int]) -> bool:
        """Send if there is room now; whether there was."""
        try:
            socket.send_fds(self._socket, [head], descriptors)
        except BlockingIOError:
            return False
        return True

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        room = asyncio.Event()
        loop.add_writer(self._socket, room.set)
        try:
            await room.wait()
        finally:
            loop.remove_writer(self._socket)

    async def _listen(self) -> None:
        """Take reports until the nursery has gone; its children go with it."""
        loop = asyncio.get_running_loop()
        buffer = b""
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(self._socket, 1 << 16):
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    self._take(json.loads(line))
        self.gone = True
        await asyncio.to_thread(self._popen.wait)
        for asked in self._asked:
            if not asked.done():
                asked.set_exception(NurseryGone())
        for code in self._children.values():
            if not code.done():
                code.set_result(-signal.SIGKILL)  # that is what the kernel does to them

    def _take(self, report: dict[str, int]) -> None:
        if "started" in report:
            pid, ends = report["started"], asyncio.get_running_loop().create_future()
            self._children[pid] = ends
            asked = self._asked.popleft()
            if not asked.done():
                asked.set_result((pid, ends))
        elif (code := self._children.pop(report["ended"], None)) is not None:
            code.set_result(report["code"])

    async def close(self) -> None:
        """End the nursery, and with it every child that still runs."""
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        self.kill()

    def kill(self) -> None:
        """The same without an event loop."""
        self._socket.close()
        self._popen.kill()
        self._popen.wait()


async def _pipe() -> tuple[asyncio.StreamReader, int]:
    """Return a reader here and a descriptor for a child to write to."""
    read_end, write_end = os.pipe()
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", buffering=0)
    )
    return reader, write_end


class Forking:
    """Starts processes from a nursery, from a new one when that has died, and plainly when that does not help."""

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery
        self._spawning = Spawning()

    async def start(self, order: Order) -> Process:
        for _ in range(2):
            if self._nursery.gone:
                self._nursery = Nursery()
            with contextlib.suppress(NurseryGone):
                return await self._nursery.start(order)
        return await self._spawning.start(order)

    async def close(self) -> None:
        await self._nursery.close()
