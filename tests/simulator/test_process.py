"""The process: where it listens, how it stops, what it says when it cannot start."""

import asyncio
import os
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from simulator.testing import ROOT
from tests.conftest import eventually
from tests.simulator.conftest import asking


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "simulator", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def address_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().split(" at ")[1].split("/api")[0]


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it_cleanly(sent: signal.Signals) -> None:
    """Exit code 0 and not a word, also with a request that hangs."""
    process = start("--port", "0", "--profile", "zero")
    address = address_of(process)
    async with httpx.AsyncClient(timeout=60) as client:
        await client.post(f"{address}/__sim/faults", json={"fault": {"kind": "timeout"}})
        hanging = asyncio.create_task(client.post(f"{address}/api/v1/chat/completions", json=asking()))

        async def hangs() -> bool:
            return bool((await client.get(f"{address}/__sim/ledger")).json()["open"] == 1)

        await eventually(hangs)
        process.send_signal(sent)
        with pytest.raises(httpx.TransportError):
            await hanging
    out, err = await asyncio.to_thread(process.communicate, timeout=40)
    assert (process.returncode, out, err) == (0, "", "")


def test_a_port_that_is_taken_is_named() -> None:
    """With what to change, and exit code 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = start(SEGUE_SIMULATOR_PORT=port)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"127.0.0.1:{port}" in err
    assert "SEGUE_SIMULATOR_PORT" in err
    assert "Traceback" not in err


def test_a_wrong_variable_is_named() -> None:
    process = start(SEGUE_SIMULATOR_PORT="eighty")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "SEGUE_SIMULATOR_PORT is 'eighty'" in err


def test_the_variable_is_the_port() -> None:
    """And a port of 0 takes a free one, which the first line tells."""
    process = start("--profile", "zero", "--seed", "7", SEGUE_SIMULATOR_PORT="0")
    try:
        address = address_of(process)
        assert httpx.get(f"{address}/healthz").json()["status"] == "ok"
    finally:
        process.terminate()
        process.communicate(timeout=40)
