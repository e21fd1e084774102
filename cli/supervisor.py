"""Keeps child processes running: starts them, starts them again when they die, stops them in order."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

FIRST_PAUSE_S = 0.2
MOST_PAUSE_S = 5.0
GOOD_FOR_S = 10.0
"""Who ran at least so long starts again at once."""
STOP_WITHIN_S = 18.0
LOG_BYTES = 20 * 1024 * 1024


def pause_s(deaths: int) -> float:
    """Return how long to wait before starting a child again that has died so many times in a row."""
    return min(MOST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** max(0, deaths - 1))


@dataclass(slots=True)
class Child:
    """One process to keep."""

    name: str
    module: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    process: asyncio.subprocess.Process | None = None
    deaths: int = 0
    started_s: float = 0.0


@dataclass(slots=True)
class Supervisor:
    """`say(name, line)` gets what a child prints that a person should see."""

    say: Callable[[str, str], None]
    show_all: bool = False
    children: list[Child] = field(default_factory=list)
    _keepers: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _stopping: bool = False

    def keep(self, child: Child) -> None:
        """Start a child and keep it running until `stop`."""
        self.children.append(child)
        self._keepers[child.name] = asyncio.create_task(self._keep(child))

    async def _keep(self, child: Child) -> None:
        _rotate(child.log)
        while not self._stopping:
            child.started_s = time.monotonic()
            child.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "cli.child",
                str(os.getpid()),
                child.module,
                *child.arguments,
                env={**os.environ, **child.environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is ours to hand on, in order
                limit=1 << 20,
            )
            await self._copy(child)
            code = await child.process.wait()
            if self._stopping:
                return
            child.deaths = 1 if time.monotonic() - child.started_s > GOOD_FOR_S else child.deaths + 1
            wait_s = pause_s(child.deaths)
            self.say("up", f"{child.name} ended ({_why(code)}); starting it again in {wait_s:.1f} s")
            await asyncio.sleep(wait_s)

    async def _copy(self, child: Child) -> None:
        """Copy what a child prints to its log file; warnings and errors also to the console."""
        assert child.process is not None
        assert child.process.stdout is not None
        with child.log.open("ab") as log:
            while True:
                try:
                    line = await child.process.stdout.readline()
                except ValueError:  # longer than the limit: the rest of it follows as lines of its own
                    continue
                if not line:
                    return
                log.write(line)
                log.flush()
                if self.show_all or _worth_showing(line):
                    self.say(child.name, line.decode(errors="replace").rstrip())

    async def stop(self, *, first: Sequence[str] = ()) -> None:
        """Stop everything with SIGTERM, those named `first` before the others; whoever is deaf is killed."""
        self._stopping = True
        deadline = time.monotonic() + STOP_WITHIN_S
        for group in (
            [child for child in self.children if child.name in first],
            [child for child in self.children if child.name not in first],
        ):
            await asyncio.gather(*(self._end(child, deadline) for child in group))
        for keeper in self._keepers.values():
            keeper.cancel()
        await asyncio.gather(*self._keepers.values(), return_exceptions=True)

    async def _end(self, child: Child, deadline: float) -> None:
        process = child.process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), max(0.5, deadline - time.monotonic()))
        except TimeoutError:
            self.say("up", f"{child.name} did not stop in time; killing it")
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _why(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def _worth_showing(line: bytes) -> bool:
    """Whether a line is no JSON log (something printed), or one of a warning or worse."""
    if not line.startswith(b"{"):
        return bool(line.strip())
    return any(level in line for level in (b'"level": "warning"', b'"level": "error"', b'"level": "critical"'))


def _rotate(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
