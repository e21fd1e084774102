"""A simulator for tests elsewhere: its own process on a free port, with the admin API as methods.

    async with simulator(profile="zero", seed=1) as sim:
        await sim.faults({"fault": {"kind": "status", "status": 503}, "times": 2})
        ...  # whatever asks SEGUE_SIMULATOR_URL=sim.url
        assert [entry["outcome"] for entry in await sim.ledger()] == ["error", "error", "answered"]

One process for many tests: `running()` in a fixture of the session, `Simulator(address)` and `reset()` in each test.
"""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

ROOT: Final = Path(__file__).resolve().parents[1]
READY_WITHIN_S: Final = 30.0
STOPPED_WITHIN_S: Final = 10.0


class Simulator:
    """A running simulator's admin API. `url` is what a provider's base URL is set to."""

    def __init__(self, address: str) -> None:
        self.address = address
        """Without a path: http://127.0.0.1:8200."""
        self._http = httpx.AsyncClient(base_url=f"{address}/__sim", timeout=30)

    @property
    def url(self) -> str:
        return f"{self.address}/api/v1"

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

    async def cpu_s(self) -> float:
        """Return how much processor time the simulator has used: what a benchmark takes away from its sum."""
        return float((await self._asked("GET", "/process"))["cpu_s"])

    async def reset(self) -> None:
        """Go back to the beginning: no faults, an empty ledger, the profile of the start."""
        await self._asked("POST", "/reset")

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

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
    process = running(profile, seed)
    address = await asyncio.to_thread(process.__enter__)
    try:
        async with Simulator(address) as started:
            yield started
    finally:
        await asyncio.to_thread(process.__exit__, None, None, None)


@contextmanager
def running(profile: str = "zero", seed: int = 1) -> Iterator[str]:
    """Start a simulator's process on a free port, yield its address, and stop it at the end."""
    command = [sys.executable, "-m", "simulator", "--port", "0", "--profile", profile, "--seed", str(seed)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield _address(process)
    finally:
        _stop(process)


def _address(process: subprocess.Popen[str]) -> str:
    """Return where the process says that it listens. Raises RuntimeError when it does not say so in time."""
    assert process.stdout is not None
    late = threading.Timer(READY_WITHIN_S, process.kill)
    late.start()
    line = process.stdout.readline()
    late.cancel()
    if " at http://" not in line:
        raise RuntimeError(f"the simulator did not start: exit code {process.wait()}")
    return line.split(" at ", 1)[1].split("/api/", 1)[0]


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
