"""Executors as processes, killed at every step: one settlement, and at most one request more than was needed."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from shared import subjects
from shared.bus.server import free_port
from shared.contracts.commands import CancelRun
from tests.conftest import eventually
from tests.executor.conftest import World, call
from tests.executor.standin import answer, delta, hang, refuse, streamed, when

ROOT = Path(__file__).resolve().parents[2]
ROLES = (
    "categorizer_ai", "fast_ai", "medium_ai", "thinking_ai", "thinking_fast_response_ai", "finished_task_ai",
    "ai_workers_failed_ai", "image_analysis_ai", "image_model",
)  # fmt: skip
VIDEO = {"provider": "google_ai", "model": "veo", "config": {"duration": 8, "generate_audio": True}}
CONFIGURATION = {
    "ai_models": {
        **{role: {"provider": "openrouter", "model": f"vendor/{role}"} for role in ROLES},
        "veo_3_1": VIDEO,
    }
}


@dataclass
class Copy:
    """One executor process."""

    popen: subprocess.Popen[bytes]
    port: int
    log: Path

    async def died(self) -> int:
        """Wait until it is gone; return the exit code."""
        await eventually(lambda: self.popen.poll() is not None, within_s=10)
        return self.popen.returncode

    async def ready(self) -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            for _ in range(600):
                assert self.popen.poll() is None, self.log.read_text()[-2000:]
                try:
                    if (await client.get(f"http://127.0.0.1:{self.port}/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass  # not listening yet
                await asyncio.sleep(0.03)
        pytest.fail(f"not ready: {self.log.read_text()[-2000:]}")


@dataclass
class Copies:
    world: World
    folder: Path
    running: list[Copy] = field(default_factory=list)

    async def start(self, *, fault: str = "", key: str = "k", ready: bool = True) -> Copy:
        config = self.folder / "config.json"
        config.write_text(json.dumps(CONFIGURATION))
        log = self.folder / f"executor-{len(self.running)}.log"
        port = free_port()
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SEGUE_")},
            "SEGUE_NATS_URL": self.world.server.url,
            "SEGUE_CONFIG": str(config),
            "SEGUE_OPENAI_BASE_URL": self.world.provider.url,
            "SEGUE_OPENAI_API_KEY": key,
            "SEGUE_HEALTH_PORT": str(port),
            "SEGUE_FAULT": fault,
        }
        with log.open("wb") as output:
            popen = subprocess.Popen(  # noqa: ASYNC220 - ended by the fixture
                [sys.executable, "-m", "services.executor"],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        copy = Copy(popen, port, log)
        self.running.append(copy)
        if ready:
            await copy.ready()
        return copy


@pytest.fixture
async def copies(world: World, tmp_path: Path) -> AsyncIterator[Copies]:
    started = Copies(world, tmp_path)
    yield started
    for copy in started.running:
        if copy.popen.poll() is None:
            copy.popen.kill()
        copy.popen.wait()


@pytest.mark.parametrize(
    ("point", "asked", "attempts", "unknown"),
    [
        ("executor.taken", 1, 1, []),
        ("executor.claimed", 1, 2, [1]),
        ("executor.answered", 2, 2, [1]),
        ("executor.settled", 1, 1, []),
    ],
)
async def test_killed_at_each_step(
    world: World, copies: Copies, point: str, asked: int, attempts: int, unknown: list[int]
) -> None:
    """Another copy takes the call up: settled once, every attempt accounted for, nothing left in the queue."""
    first = await copies.start(fault=point)
    command = await world.send(call())
    assert await first.died() == -signal.SIGKILL
    await copies.start()
    settled = await world.settled(command)
    assert settled.outcome == "answered"
    assert (settled.attempts, [one.attempt for one in settled.unknown]) == (attempts, unknown)
    assert settled.cost_known is (not unknown)

    async def gone() -> bool:
        return await world.queued() == 0

    await eventually(gone)
    assert len(world.provider.seen) == asked
    assert len(await world.attempts(command)) == attempts


async def test_killed_after_the_call_was_put_back(world: World, copies: Copies) -> None:
    """The redelivered copy finds it waiting, or its wait over: no attempt more."""
    world.provider.then(refuse(429, "later", {"retry-after": "1.3"}))
    first = await copies.start(fault="executor.scheduled")
    command = await world.send(call())
    assert await first.died() == -signal.SIGKILL
    await copies.start()
    settled = await world.settled(command)
    assert (settled.outcome, settled.attempts, settled.unknown) == ("answered", 2, ())

    async def gone() -> bool:
        return await world.queued() == 0

    await eventually(gone)
    assert len(world.provider.seen) == 2


async def test_another_copy_takes_over_within_two_and_a_half_seconds(world: World, copies: Copies) -> None:
    """Killed in the middle of an answer, with another copy at work."""
    by_key = {key: await copies.start(key=key) for key in ("one", "two")}
    world.provider.then(streamed(delta("half"), then=hang))
    command = await world.send(call(stream=True))
    await eventually(lambda: len(world.provider.seen) == 1)
    holder = world.provider.seen[0].headers["authorization"].removeprefix("Bearer ")
    by_key[holder].popen.kill()
    killed = time.monotonic()
    await eventually(lambda: len(world.provider.seen) == 2, within_s=5)
    assert time.monotonic() - killed < 2.6
    assert world.provider.seen[1].headers["authorization"] != f"Bearer {holder}"
    settled = await world.settled(command)
    assert (settled.outcome, settled.attempts, len(settled.unknown)) == ("answered", 2, 1)


async def test_a_dead_server_makes_nobody_buy_twice(world: World, copies: Copies) -> None:
    """Two copies, the server away for longer than an ack may take: who holds the call is asked, and keeps it."""
    await copies.start()
    await copies.start()
    go = asyncio.Event()
    commands = [call() for _ in range(12)]
    world.provider.then(*[when(go, answer()) for _ in commands])
    for command in commands:
        await world.send(command)
    await eventually(lambda: len(world.provider.seen) == len(commands))
    world.server.kill()
    await asyncio.sleep(2.5)  # how long it is away
    await world.server.start()
    await asyncio.sleep(3.0)  # longer than the ack wait: redelivered meanwhile
    go.set()
    for command in commands:
        settled = await world.settled(command)
        assert (settled.attempts, settled.unknown) == (1, ())
    assert len(world.provider.seen) == len(commands)


async def test_a_cancellation_is_heard(world: World, copies: Copies) -> None:
    """Said over core NATS, the request is aborted within a moment."""
    await copies.start()
    world.provider.then(hang)
    command = await world.send(call())
    await eventually(lambda: len(world.provider.seen) == 1)
    run = command.run
    await world.bus.client.publish(subjects.cancel(run.tenant, run.run_id), CancelRun(run_id=run.run_id).encode())
    settled = await world.settled(command, within_s=3)
    assert settled.fault is not None
    assert settled.fault.code == "cancelled"
    await eventually(lambda: world.provider.aborted == 1)


async def test_lanes_without_provider_say_so(world: World, copies: Copies) -> None:
    """A video role under an OpenAI-compatible server: settled at once with what to do."""
    await copies.start()
    settled = await world.do(call(role="veo_3_1", lane="video"))
    assert settled.fault is not None
    assert settled.fault.code == "no_provider"
    assert "SEGUE_OPENAI_BASE_URL serves text only" in settled.fault.message


async def test_sigterm_lets_running_calls_end(world: World, copies: Copies) -> None:
    """The answer that is on its way is still settled; then the process goes, with nothing lost."""
    copy = await copies.start()
    go = asyncio.Event()
    world.provider.then(when(go, answer("last words")))
    command = await world.send(call())
    await eventually(lambda: len(world.provider.seen) == 1)
    copy.popen.send_signal(signal.SIGTERM)

    await eventually(lambda: "service.draining" in copy.log.read_text())
    go.set()
    assert (await world.settled(command)).text == "last words"
    assert await copy.died() in (0, -signal.SIGTERM)
    assert "service.stopped" in copy.log.read_text()
