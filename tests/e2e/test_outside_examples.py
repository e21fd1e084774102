"""The examples for outside systems, run as their readers run them."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio

from shared.bus.accounts import Publisher
from shared.bus.server import free_port
from tests.receiver import SECRET
from tests.system import ROOT, System, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLES = ROOT / "examples"
MODULES = ROOT / ".npm" / "node_modules"
QUESTION = "What is the capital of France?"
ENVIRONMENT = {"SEGUE_CALLBACK_SECRETS": f"default={SECRET}", "SEGUE_ALLOWED_NETWORKS": "127.0.0.0/8"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """A system with one outside system."""
    publishers = [Publisher("acme", "acme", "a-password")]
    async with System(tmp_path_factory.mktemp("examples"), publishers=publishers, environment=ENVIRONMENT) as running:
        yield running


async def said(*arguments: str, **environment: str) -> str:
    """Return what a program prints; fail when it fails."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, out.decode()
    return out.decode()


def address(system: System) -> str:
    assert system.nats is not None
    return system.nats.url


async def test_python(system: System) -> None:
    out = await said(sys.executable, str(EXAMPLES / "bus/ask.py"), address(system), "acme", "a-password", QUESTION)
    assert "heard ended" in out
    assert "answer " in out


async def test_the_plain_protocol(system: System) -> None:
    where = urlsplit(address(system))
    program = str(EXAMPLES / "bus/plain.py")
    out = await said(sys.executable, program, str(where.hostname), str(where.port), "acme", "a-password", QUESTION)
    assert out.startswith("answer ")


@pytest.mark.skipif(
    not (MODULES / "@nats-io" / "transport-node").exists() or shutil.which("node") is None,
    reason="npm install --prefix .npm --ignore-scripts @nats-io/transport-node@3.4.0 is not done, or there is no node",
)
async def test_javascript(system: System, tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(MODULES)
    program = shutil.copy(EXAMPLES / "bus/ask.mjs", tmp_path)
    out = await said("node", str(program), address(system), "acme", "a-password", QUESTION)
    assert "heard ended" in out
    assert "answer " in out


async def test_a_receiver_of_callbacks(system: System) -> None:
    """It prints the answer that the caller got, once, and refuses what is not signed."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    receiver = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / "callbacks/receiver.py"),
        str(port),
        env={**os.environ, "SECRET": f"whsec_{SECRET}"},
        stdout=asyncio.subprocess.PIPE,
    )
    try:

        async def refuses() -> bool:
            try:
                return (await system.http.post(url, content=b"{}")).status_code == 401
            except httpx.TransportError:
                return False

        await eventually(refuses)
        run_id = (await system.chat(QUESTION, callback_url=url))["run_id"]
        assert receiver.stdout is not None
        line = await asyncio.wait_for(receiver.stdout.readline(), 30)
        assert line.decode().startswith(f"{run_id} completed ")
    finally:
        receiver.kill()
        await receiver.wait()
