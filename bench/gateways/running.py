"""Other people's servers as processes of ours: started for the bench, stopped with it, at home in its folder."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp

from bench.gateways.others import Other
from bench.gateways.targets import Target

READY_WITHIN_S = 120.0
STOPS_WITHIN_S = 10.0


class NotReady(Exception):
    """A server ended, or did not answer in time."""

    def __init__(self, name: str, log: Path) -> None:
        super().__init__(f"{name} did not become ready; its log ends with: {log.read_text(errors='replace')[-2000:]}")
        self.name = name


@contextlib.asynccontextmanager
async def running(other: Other, folder: Path, session: aiohttp.ClientSession) -> AsyncIterator[Target]:
    """Yield the target once it answers. Raises `NotReady`."""
    name = other.target.name
    home, log = folder / f"{name}-home", folder / f"{name}.log"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "TMPDIR": str(home), "NO_PROXY": "127.0.0.1", **other.environment}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *other.command,
            cwd=home,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + READY_WITHIN_S
        while not await _answers(session, other.ready_url):
            if process.returncode is not None or time.monotonic() > until:
                raise NotReady(name, log)
            await asyncio.sleep(0.1)
        yield replace(other.target, roots=(process.pid,))
    finally:
        await _stop(process)


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=5)) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End the process and what it started, which is the group that began with it."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), STOPS_WITHIN_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
