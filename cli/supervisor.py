"""Keeps child processes running: starts them, starts them again when they die, stops them in order."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cli.log_file import LogFile
from cli.log_lines import worth_showing
from cli.nursery.order import Order
from cli.processes import Process, Starter

FIRST_PAUSE_S = 0.2
MOST_PAUSE_S = 5.0
GOOD_FOR_S = 10.0
"""Who ran for so long has not failed to start."""

LAST_LINES_S = 0.3

Say = Callable[[str, bytes | str], None]
"""Takes who speaks and what it says: bytes are a line of its log."""


def pause_s(deaths: int) -> float:
    """Return how long to wait before starting a child again that has died so many times in a row."""
    return min(MOST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(max(0, deaths - 1), 16))


def deaths_in_a_row(before: int, ran_s: float) -> int:
    """Return how often a child has now died in a row, itself included: a good run begins a new row."""
    return 1 if ran_s >= GOOD_FOR_S else before + 1


def why(code: int) -> str:
    """Return how a process ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


@dataclass(slots=True)
class Child:
    """One process to keep. `ready` returns whether it works, where that can be asked."""

    name: str
    order: Order
    log: Path
    ready: Callable[[], Awaitable[bool]] | None = None
    process: Process | None = None
    deaths: int = 0
    last_words: Sequence[str] = ()
    """What it wrote last before it died."""


@dataclass(slots=True)
class Supervisor:
    """`say` gets what a person should see of the children: warnings and worse, and whatever goes to standard error."""

    starter: Starter
    say: Say
    broke: Callable[[str, BaseException], None]
    """Called when keeping a child has failed in a way that was not foreseen: it is not kept any more."""
    show_all: bool = False
    children: list[Child] = field(default_factory=list)
    _keepers: list[asyncio.Task[None]] = field(default_factory=list)
    _stopping: bool = False

    def keep(self, child: Child) -> None:
        """Start a child and keep it running until `stop`."""
        self.children.append(child)
        keeper = asyncio.create_task(self._keep(child))
        keeper.add_done_callback(lambda done: self._noticed(child, done))
        self._keepers.append(keeper)

    def _noticed(self, child: Child, keeper: "asyncio.Task[None]") -> None:
        if not keeper.cancelled() and (error := keeper.exception()) is not None:
            self.broke(child.name, error)

    async def _keep(self, child: Child) -> None:
        log = LogFile(child.log)
        try:
            while not self._stopping:
                began = time.monotonic()
                process = child.process = await self.starter.start(child.order)
                watch = asyncio.create_task(self._back(child, process)) if child.deaths else None
                await asyncio.gather(
                    self._copy(child, log, process.output, shown=False),
                    self._copy(child, log, process.errors, shown=True),
                )
                code = await process.wait()
                if watch is not None:
                    watch.cancel()
                if self._stopping:
                    return
                child.last_words = log.tail(5)
                child.deaths = deaths_in_a_row(child.deaths, time.monotonic() - began)
                wait_s = pause_s(child.deaths)
                self.say("up", f"{child.name} (process {process.pid}) ended: {why(code)}; again in {wait_s:.1f} s")
                await asyncio.sleep(wait_s)
        finally:
            log.close()

    async def _copy(self, child: Child, log: LogFile, stream: asyncio.StreamReader, *, shown: bool) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # longer than the limit: what follows comes as lines of its own
                continue
            if not line:
                return
            try:
                log.write(line)
            except OSError as error:  # a full disk: the child goes on, and may not be held up by a full pipe
                self.say("up", f"cannot write {log.path}: {error.strerror}")
            if self.show_all or shown or worth_showing(line):
                self.say(child.name, line)

    async def _back(self, child: Child, process: Process) -> None:
        """Say when a child that died works again."""
        if child.ready is None:
            return
        began = time.monotonic()
        while not process.ended:
            if await child.ready():
                self.say(
                    "up", f"{child.name} is back (process {process.pid}), ready in {time.monotonic() - began:.1f} s"
                )
                return
            await asyncio.sleep(0.05)

    async def stop(self, groups: Sequence[tuple[Collection[str], float]]) -> None:
        """Stop group after group with SIGTERM; who has not ended by a group's time, in s from now, is killed."""
        self._stopping = True
        began = time.monotonic()
        for names, until_s in groups:
            group = [child for child in self.children if child.name in names]
            await asyncio.gather(*(self._end(child, began + until_s) for child in group))
        await self.close()

    async def _end(self, child: Child, deadline: float) -> None:
        process = child.process
        if process is None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), max(0.1, deadline - time.monotonic()))
        except TimeoutError:
            self.say("up", f"{child.name} did not stop in time; killing it")
            process.kill()
            await process.wait()

    async def close(self) -> None:
        """Kill whoever still runs and let go of everything."""
        self._stopping = True
        for child in self.children:
            if child.process is not None:
                child.process.kill()
        if self._keepers:
            await asyncio.wait(self._keepers, timeout=LAST_LINES_S)
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await self.starter.close()
