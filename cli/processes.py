"""A child process as its supervisor sees it, and the plain way to start one."""

import asyncio
import contextlib
import os
import sys
from dataclasses import dataclass
from typing import Protocol

from cli.nursery.order import Order

LINE_BYTES = 1 << 20
"""A longer line of a child's output is taken in pieces."""


class Process(Protocol):
    """A running child, with what it writes."""

    @property
    def pid(self) -> int: ...
    @property
    def output(self) -> asyncio.StreamReader: ...
    @property
    def errors(self) -> asyncio.StreamReader: ...
    @property
    def ended(self) -> bool: ...
    async def wait(self) -> int:
        """Return the exit code once it has ended; negative when a signal ended it."""
        ...

    def terminate(self) -> None:
        """Ask it to end (SIGTERM). Nothing when it has ended."""
        ...

    def kill(self) -> None:
        """End it at once. Nothing when it has ended."""
        ...


class Starter(Protocol):
    """Starts processes."""

    async def start(self, order: Order) -> Process: ...
    async def close(self) -> None:
        """Let go of what starting needed."""
        ...


@dataclass(frozen=True, slots=True)
class Spawned:
    """A child that asyncio started."""

    _process: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> asyncio.StreamReader:
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def errors(self) -> asyncio.StreamReader:
        assert self._process.stderr is not None
        return self._process.stderr

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None

    async def wait(self) -> int:
        return await self._process.wait()

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


class Spawning:
    """Starts every process from nothing, as `python -m` does: works everywhere."""

    async def start(self, order: Order) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cli.child",
            str(os.getpid()),
            order.module,
            *order.arguments,
            env=dict(order.environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is the supervisor's to hand on, in order
            limit=LINE_BYTES,
        )
        return Spawned(process)

    async def close(self) -> None:
        """Nothing was needed."""
