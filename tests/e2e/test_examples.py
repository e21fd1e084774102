"""What stands in `examples/` runs against a running system."""

import asyncio
import os
import shutil
import sys

import pytest

from tests.system import ROOT, System

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def ran(system: System, *command: str) -> str:
    """Run an example to its end and return what it says."""
    environment = {**os.environ, "SEGUE_URL": system.gateway.url, "PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    text = said.decode()
    assert process.returncode == 0, text
    return text


async def test_the_python_client(system: System) -> None:
    text = await ran(system, sys.executable, "examples/ask.py")
    assert "completed:" in text
    assert "refused as it should be" in text


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl(system: System) -> None:
    """The question that is sent twice is answered once."""
    text = await ran(system, "sh", "examples/curl.sh")
    first, second = [line for line in text.splitlines() if '"session_id"' in line and '"response"' in line][:2]
    assert first == second
    assert "event: done" in text
