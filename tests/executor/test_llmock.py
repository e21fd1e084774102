"""The executor graded by a simulator that nobody here wrote: PyPI `llmock`, whose verdict is about its client."""

import asyncio
import time
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.executor.attempts import Policy
from shared.bus.server import free_port
from tests.executor.conftest import Begin, World, call, route

PROGRAM = Path(__file__).resolve().parents[2] / ".llmock/bin/llmock"

pytestmark = pytest.mark.skipif(
    not PROGRAM.exists(), reason="python -m venv .llmock && .llmock/bin/pip install llmock==0.2.2 is not done"
)


@pytest.fixture
async def mock() -> AsyncIterator[str]:
    port = free_port()
    running = await asyncio.create_subprocess_exec(
        str(PROGRAM), "serve", "--port", str(port), stdout=DEVNULL, stderr=DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 30
        async with httpx.AsyncClient(trust_env=False) as http:
            while True:
                try:
                    await http.get(f"{url}/_llmock/verdict")
                    break
                except httpx.TransportError:
                    assert time.monotonic() < until, "llmock does not listen"
                    await asyncio.sleep(0.05)
        yield url
    finally:
        running.kill()
        await running.wait()


@pytest.mark.parametrize(
    ("behaviors", "stream"),
    [
        ([{"type": "fail", "status": 429, "retry_after": 1, "times": 2}], False),
        ([{"type": "fail", "status": 503, "times": 2}], False),
        ([{"type": "fail", "status": 500, "times": 1}], True),
        ([{"type": "stream_fault", "kind": "truncate", "times": 1}], True),
        ([{"type": "stream_fault", "kind": "disconnect", "times": 1}], True),
        ([{"type": "stream_fault", "kind": "malformed", "times": 1}], True),
    ],
)
async def test_it_has_no_complaint(
    begin: Begin, world: World, mock: str, behaviors: list[dict[str, Any]], stream: bool
) -> None:
    """Retry-After kept, backoff between attempts, no storm, no cut stream taken for an answer: and it is answered."""
    to = route("medium_ai", f"{mock}/v1", protocol="openai_compatible", simulated=False)
    await begin(roles=(), routes={"medium_ai": to}, policy=Policy(base_s=1.0))
    async with httpx.AsyncClient(trust_env=False) as http:
        scripted = await http.post(f"{mock}/_llmock/scenario", json={"behaviors": behaviors})
        assert scripted.status_code == 201, scripted.text
        fact = await world.do(call(stream=stream), within_s=30)
        verdict = (await http.get(f"{mock}/_llmock/verdict")).json()
    assert fact.outcome == "answered", fact.fault
    assert fact.attempts >= 2, "the fault was met"
    assert verdict["faults_injected"] >= 1
    findings = {one["code"] for one in verdict["findings"]}
    if behaviors[0].get("kind") == "malformed":
        # It sends the rest of such a stream, takes the call for over then, and asks to check that nothing was taken in.
        assert fact.failed[0].fault.code == "malformed_answer"
        findings.discard("malformed_chunk_ignored")
    assert findings == set()
    assert verdict["passed"]
