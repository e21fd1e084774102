"""The examples of following a run, run as they stand against a running system."""

import asyncio
import os
import shutil
import sys

import pytest

from tests.system import ROOT, System

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def run(system: System, *command: str) -> str:
    """Run a command against the system; returns what it printed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env={**os.environ, "SEGUE_URL": system.gateway.url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, said.decode()
    return said.decode()


async def test_a_script_follows_a_run_by_its_events(system: System) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node to run it with")
    said = await run(system, node, "examples/follow.mjs", "Why is the sky blue?")
    assert "[accepted] accepted" in said
    assert "[simulated] " in said
    assert "completed: " in said


async def test_a_script_asks_over_a_socket(system: System) -> None:
    said = await run(system, sys.executable, "examples/socket_chat.py", "Why is the sky blue?")
    assert '"type": "answer"' in said
    assert "[simulated] " in said
