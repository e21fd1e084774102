"""Two hundred readers of one run: whoever comes back has every event exactly once, and the gateway stays small."""

import asyncio
import contextlib
import os
import random
import re
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared import subjects
from shared.bus.connection import Bus, open_bus
from shared.contracts.commands import ChatRequest
from shared.contracts.events import AttemptStarted, CallSettled, RunAccepted, RunEnded
from shared.contracts.ids import Purpose
from shared.contracts.message import Run
from tests.system import Process, System, eventually

READERS = 200
STALLED = 20
RECONNECTS = 50
CALLS = 499
"""Each is two facts; with the beginning and the end that makes a thousand."""
TEXT = "Night trains save a hotel night. " * 60
MOST_GROWTH_MB = 400
WITHIN_S = 150
"""It takes about twenty seconds on two cores that others use, too; this is for busier ones."""
# A chunk of the transfer holds whole events, so its length stands on a line of its own before one.
ID = re.compile(rb"^id: (\d+)$", re.MULTILINE)
KIND = re.compile(rb"^event: (\w+)$", re.MULTILINE)
NOBODY = dict.fromkeys(("categorizer", "planner", "executor", "finisher"), 0)


@dataclass
class Story:
    """A run whose facts the test writes itself."""

    bus: Bus
    run: Run
    written: int = 0
    seqs: list[int] = field(default_factory=list)

    @property
    def facts(self) -> subjects.Facts:
        return subjects.facts(self.run)

    async def begin(self) -> None:
        request = ChatRequest(message="Why by night?")
        await self.bus.log.write(self.facts.accepted, RunAccepted(run=self.run, request=request, by="categorizer"))

    async def calls(self, first: int, last: int) -> None:
        """Write what happens to calls, with their texts as they come in."""
        for number in range(first, last):
            call, now = f"0-{number}", datetime.now(UTC)
            started = AttemptStarted(
                run=self.run, call=call, attempt=1, role="fast_ai", provider="p", model="m", claimed_by="a.b",
                started_at=now,
            )  # fmt: skip
            await self.bus.log.write(self.facts.attempt(Purpose.TASK, call, 1), started)
            delta = b'{"call": "%b", "attempt": 1, "offset": 0, "text": "%b"}' % (call.encode(), TEXT[:1000].encode())
            await self.bus.client.publish(subjects.token(self.run.tenant, self.run.run_id, call), delta)
            settled = CallSettled(
                run=self.run, call=call, purpose=Purpose.TASK, outcome="answered", text=TEXT, role="fast_ai",
                asked_role="fast_ai",
            )  # fmt: skip
            await self.bus.log.write(self.facts.settled(Purpose.TASK, call), settled)

    async def end(self) -> None:
        ended = RunEnded(run=self.run, outcome="completed", text="well", ended_at=datetime.now(UTC))
        await self.bus.log.write(self.facts.ended, ended)
        self.seqs = [one.seq for one in await self.bus.log.facts(self.run.tenant, self.run.run_id)]


@dataclass
class Reader:
    """Follows the run, however often it is cut off; `leaves`: after which events it goes by itself."""

    port: Callable[[], int]
    run_id: str
    tokens: bool = False
    leaves: set[int] = field(default_factory=set)
    stalls: Sequence[asyncio.Event] = ()
    """It reads a few events of a connection, then nothing until the next of these is set."""
    seen: list[int] = field(default_factory=list)
    hints: int = 0
    connections: int = 0
    stalled: int = 0

    async def follow(self) -> "Reader":
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                if await self._connection():
                    return self
            await asyncio.sleep(0.1)

    async def _connection(self) -> bool:
        """Read until the end (True), or until the connection is over."""
        connection = socket.socket()
        connection.setblocking(False)
        if self.stalls:  # what it does not take stays with the gateway, and not in its own buffers
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self.port()))
        except OSError:
            connection.close()
            raise
        reader, writer = await asyncio.open_connection(sock=connection, limit=4096)
        try:
            after = self.seen[-1] if self.seen else 0
            path = f"/runs/{self.run_id}/events?tokens={'true' if self.tokens else 'false'}"
            writer.write(f"GET {path} HTTP/1.1\r\nHost: h\r\nLast-Event-ID: {after}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head.split(b"\r\n")[0]:
                return False
            self.connections += 1
            return await self._read(reader)
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> bool:
        rest, here = b"", 0
        while chunk := await reader.read(65_536):
            *events, rest = (rest + chunk).split(b"\n\n")
            for event in events:
                kind = KIND.search(event)
                if (found := ID.search(event)) is not None:
                    self.seen.append(int(found[1]))
                    here += 1
                    if len(self.seen) in self.leaves:
                        self.leaves.remove(len(self.seen))
                        return False
                elif kind is not None and kind[1] == b"done":
                    return True
                elif kind is not None:
                    self.hints += 1
            stall = next((event for event in self.stalls if not event.is_set()), None)
            if stall is not None and here > 5:
                self.stalled += 1
                await stall.wait()
        return False


def resident_mb(process: Process) -> float:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.timeout(400)
async def test_every_reader_that_comes_back_has_every_event_once(tmp_path: Path) -> None:
    """A thousand events; 20 readers stall, 50 are cut off and come back, the gateway is killed and started again."""
    chance, now = random.Random(7), datetime.now(UTC)
    run = Run(run_id="many", tenant="default", born_at=now, deadline_at=now + timedelta(hours=1))
    async with System(tmp_path, copies=NOBODY) as system:
        story = Story(await open_bus(system.client), run)
        await story.begin()
        restarted, release, ports = asyncio.Event(), asyncio.Event(), [system.gateway.port]
        readers = [Reader(lambda: ports[-1], run.run_id, tokens=number < 40) for number in range(READERS)]
        for reader in readers[:STALLED]:
            reader.stalls = (restarted, release)
        for reader in chance.sample(readers[STALLED:], RECONNECTS):
            reader.leaves = {chance.randint(2, 2 * CALLS)}
        following = [asyncio.create_task(reader.follow()) for reader in readers]

        async def all_there() -> bool:
            return all(reader.connections for reader in readers)

        async def stalled(times: int) -> bool:
            return all(reader.stalled == times for reader in readers[:STALLED])

        await eventually(all_there)
        await story.calls(0, CALLS // 2)
        await eventually(lambda: stalled(1))
        old = system.gateway
        new = system.start("gateway")
        old.kill()
        await system.ready(new)
        ports.append(new.port)
        restarted.set()
        before_mb, began = resident_mb(new), time.monotonic()
        await story.calls(CALLS // 2, CALLS)
        await story.end()
        await asyncio.wait_for(asyncio.gather(*following[STALLED:]), WITHIN_S)
        read_s, mb = time.monotonic() - began, resident_mb(new)
        await eventually(lambda: stalled(2))
        assert not any(task.done() for task in following[:STALLED])
        release.set()
        await asyncio.wait_for(asyncio.gather(*following), WITHIN_S)
        assert len(story.seqs) == 2 * CALLS + 2
        for reader in readers:
            assert reader.seen == story.seqs, "each event once, and in order"
        assert all(reader.connections >= 2 for reader in readers), "the gateway was killed under every one"
        assert not any(reader.leaves for reader in readers)
        assert any(reader.hints for reader in readers[STALLED:40])
        assert mb - before_mb < MOST_GROWTH_MB
        print(f"read in {read_s:.1f} s; resident: {before_mb:.0f} MB before, {mb:.0f} MB with {READERS} readers")
        assert (await system.http.get(f"{new.url}/healthz")).status_code == 200
