"""SIGTERM: nothing new is taken, whoever waits is answered, and nobody is cut off without a word."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from shared.bus.server import NatsServer, free_port
from tests.conftest import eventually
from tests.gateway.backstage import ended, silence
from tests.gateway.conftest import Stage
from tests.gateway.test_stream import events

ROOT = Path(__file__).parents[2]
QUESTION = {"message": "Are you still there?"}
BY_SIGNAL = {0, -signal.SIGTERM}
DRAIN_S = 30.0


@asynccontextmanager
async def process(url: str, told_after_s: float) -> AsyncIterator[tuple[asyncio.subprocess.Process, httpx.AsyncClient]]:
    """Run a gateway as a process, ready when this yields.

    From telling those who wait until the server cuts them off it has longer than the two seconds that it has in
    earnest: all may stand still for some seconds.
    """
    port = free_port()
    command = (sys.executable, "-m", "tests.gateway.served", url, str(port), str(DRAIN_S), str(told_after_s))
    gateway = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            await eventually(lambda: is_ready(http), within_s=120)
            yield gateway, http
    finally:
        if gateway.returncode is None:
            gateway.kill()
        await gateway.communicate()


async def is_ready(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False


async def refuses(http: httpx.AsyncClient) -> bool:
    """Whether a new connection gets nowhere: closed, or told that nothing is taken."""
    try:
        async with httpx.AsyncClient(base_url=http.base_url) as new:
            return (await new.get("/readyz")).status_code == 503
    except httpx.HTTPError:
        return True


async def test_whoever_waits_is_answered_after_sigterm(stage: Stage, own_nats_server: NatsServer) -> None:
    async with stage() as (_, backstage), process(own_nats_server.url, 28) as (gateway, http):
        backstage.script = silence
        asking = asyncio.create_task(http.post("/chat", json=QUESTION))
        await eventually(lambda: len(backstage.taken) == 1)
        gateway.send_signal(signal.SIGTERM)
        await eventually(lambda: refuses(http))
        assert not asking.done()
        await backstage.end(ended(backstage.taken[0].run, text="yes"))
        answer = await asking
        assert (answer.status_code, answer.json()["response"]) == (200, "yes")
        assert await asyncio.wait_for(gateway.wait(), DRAIN_S) in BY_SIGNAL


async def test_nobody_is_cut_off_without_a_word(stage: Stage, own_nats_server: NatsServer) -> None:
    """An answer that does not come in time: plain requests and streams are told so, with the run that goes on."""
    async with stage() as (_, backstage), process(own_nats_server.url, 1) as (gateway, http):
        backstage.script = silence
        plain = asyncio.create_task(http.post("/chat", json=QUESTION))
        async with http.stream("POST", "/chat", json={**QUESTION, "stream": True}) as response:
            told = events(response)
            assert (await anext(told))[0] == "accepted"
            await eventually(lambda: len(backstage.taken) == 2)
            gateway.send_signal(signal.SIGTERM)
            rest = [event async for event in told]
        answer = await plain
        runs = {command.run.run_id for command in backstage.taken}
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert answer.json()["run_id"] in runs
        assert "Idempotency-Key" in answer.json()["detail"]
        assert [name for name, _ in rest] == ["error", "done"]
        assert (rest[0][1]["status"], rest[0][1]["run_id"] in runs) == (503, True)
        assert await asyncio.wait_for(gateway.wait(), DRAIN_S) in BY_SIGNAL


async def test_logs_say_which_run_and_request(stage: Stage, own_nats_server: NatsServer) -> None:
    """A failure's log line is JSON and has the ids that the answer has."""
    async with stage() as (_, backstage), process(own_nats_server.url, 1) as (gateway, http):
        backstage.script = silence
        asking = asyncio.create_task(http.post("/chat", json=QUESTION, headers={"X-Request-Id": "find-me"}))
        await eventually(lambda: len(backstage.taken) == 1)
        gateway.send_signal(signal.SIGTERM)
        answer = await asking
        output, _ = await gateway.communicate()
        lines = [json.loads(line) for line in output.decode().splitlines()]
        mine = [line for line in lines if line.get("request_id") == "find-me"]
        assert {line["event"] for line in mine} == {"request.failed", "request.answered"}
        assert {line["run_id"] for line in mine} == {answer.json()["run_id"]}
