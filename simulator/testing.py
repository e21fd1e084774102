"""A simulator for tests elsewhere: its own process on a free port, with the admin API as methods.

async with simulator(profile="zero", seed=1) as sim:
    await sim.faults({"fault": {"kind": "status", "status": 503}, "times": 2})
    ... # SEGUE_SIMULATOR_URL=sim.url
    assert [entry["outcome"] for entry in await sim.ledger()] == ["error", "error", "answered"]
"""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx

ROOT: Final = Path(__file__).resolve().parents[1]
READY_WITHIN_S: Final = 20.0
STOPPED_WITHIN_S: Final = 5.0


class Simulator:
    """A running simulator. `url` is what a provider's base URL is set to; `root` is the address without a path."""

    def __init__(self, root: str, process: subprocess.Popen[str]) -> None:
        self.root = root
        self.process = process
        self._http = httpx.AsyncClient(base_url=f"{root}/__sim", timeout=30)

    @property
    def url(self) -> str:
        return f"{self.root}/api/v1"

    async def faults(self, *rules: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Script faults after those that are scripted already; return all of them with their counts."""
        body = await self._asked("POST", "/faults", list(rules)) if rules else await self._asked("GET", "/faults")
        return _listed(body, "faults")

    async def clear_faults(self) -> None:
        await self._asked("DELETE", "/faults")

    async def ledger(self, *, run: str | None = None) -> list[dict[str, Any]]:
        """Return what was asked so far, oldest first, of one run or of all."""
        query = httpx.QueryParams({"run": run} if run is not None else {})
        return _listed(await self._asked("GET", f"/ledger?{query}"), "entries")

    async def totals(self) -> dict[str, Any]:
        """Return the ledger's sums: total, dropped, open, most_open, cost_usd."""
        body = await self._asked("GET", "/ledger?last=0")
        return {name: value for name, value in body.items() if name != "entries"}

    async def clear_ledger(self) -> None:
        await self._asked("DELETE", "/ledger")

    async def profile(self, name: str = "zero", **changes: Any) -> dict[str, Any]:
        """Set the latency profile: a named one, with changes such as `first_token_ms=50`."""
        return await self._asked("POST", "/profile", {"name": name, **changes})

    async def reset(self) -> None:
        """Go back to the beginning: no faults, an empty ledger, the profile of the start."""
        await self._asked("POST", "/reset")

    async def close(self) -> None:
        await self._http.aclose()

    async def _asked(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        answer = await self._http.request(method, path, json=body)
        if answer.status_code >= 400:
            raise ValueError(f"the simulator refuses {method} /__sim{path}: {answer.text}")
        told: dict[str, Any] = answer.json()
        return told


def _listed(body: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = body[name]
    return entries


@asynccontextmanager
async def simulator(profile: str = "zero", seed: int = 1) -> AsyncIterator[Simulator]:
    """Start a simulator on a free port, and stop it at the end."""
    process = await asyncio.to_thread(_started, profile, seed)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(READY_WITHIN_S):
            line = await asyncio.to_thread(process.stdout.readline)
        if "http://" not in line:
            raise RuntimeError(f"the simulator did not start: exit code {process.wait()}")
        running = Simulator(line.split(" at ", 1)[1].split("/api/", 1)[0], process)
        try:
            yield running
        finally:
            await running.close()
    finally:
        await asyncio.to_thread(_stopped, process)


def _started(profile: str, seed: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "simulator", "--port", "0", "--profile", profile, "--seed", str(seed)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _stopped(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
