"""`python -m bench.pipeline`: the whole system on this machine against a zero-latency simulator over HTTP.

Prints, for an M request (two model calls) and for a three-task inline workflow: overhead p50/p95/p99 at 1 in flight and
at 50/s, the most requests a second, CPU milliseconds and durable writes per request by process, and resident memory.
Close everything else first: absolute figures move with the machine, so compare within one run.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

from shared.bus.connection import open_bus
from shared.service import WATCH_S
from tests.system import System

QUESTION: Mapping[str, Any] = {"message": "What is the capital of France?"}
WORKFLOW: Mapping[str, Any] = {
    "workflow": [
        {
            "type": "inline",
            "tasks": [
                {"model": "medium_ai", "prompt": "Describe {topic}.", "output_variable": "one"},
                {"model": "medium_ai", "prompt": "Shorten: {one}", "output_variable": "two"},
                {"model": "fast_ai", "prompt": "Translate: {two}", "output_variable": "three"},
            ],
        }
    ],
    "variables": {"topic": "a zeppelin"},
}
KINDS = {"M": ("/chat", QUESTION), "workflow of 3": ("/workflow", WORKFLOW)}
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Load:
    """Requests against one gateway, timed."""

    def __init__(self, session: aiohttp.ClientSession, url: str, body: Mapping[str, Any]) -> None:
        self._session, self._url, self._body = session, url, json.dumps(body).encode()
        self.took_s: list[float] = []
        self.failed = 0

    async def one(self) -> None:
        began = time.perf_counter()
        async with self._session.post(
            self._url, data=self._body, headers={"content-type": "application/json"}
        ) as answer:
            await answer.read()
            if answer.status != 200:
                self.failed += 1
                return
        self.took_s.append(time.perf_counter() - began)

    async def in_turn(self, count: int) -> None:
        for _ in range(count):
            await self.one()

    async def at_rate(self, rate: float, count: int) -> None:
        began = time.perf_counter()
        tasks = []
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            tasks.append(asyncio.create_task(self.one()))
        await asyncio.gather(*tasks)

    async def as_many(self, at_once: int, seconds: float) -> float:
        """Return requests a second."""
        until = time.perf_counter() + seconds

        async def worker() -> None:
            while time.perf_counter() < until:
                await self.one()

        began, before = time.perf_counter(), len(self.took_s)
        await asyncio.gather(*(worker() for _ in range(at_once)))
        return (len(self.took_s) - before) / (time.perf_counter() - began)


def quantiles(values: Sequence[float]) -> str:
    """Return p50/p95/p99 in milliseconds."""
    ordered = sorted(values)

    def at(share: float) -> float:
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return f"{at(0.5):.1f}/{at(0.95):.1f}/{at(0.99):.1f}"


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def resident_mb(pid: int) -> float:
    """Return a process's resident memory in MB."""
    line = next(one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


async def stored(system: System) -> dict[str, int]:
    """Return how many messages each stream has ever stored."""
    return {info.config.name or "": info.state.last_seq for info in await system.client.jetstream().streams_info()}


async def writes_by_process(system: System) -> dict[str, float]:
    """Return how many durable writes each service says that it has asked for; it counts anew every few seconds."""
    await asyncio.sleep(WATCH_S + 1)
    found: dict[str, float] = {}
    for process in system.processes:
        if process.name != "simulator":
            page = (await system.http.get(f"{process.url}/metrics")).text
            lines = [line for line in page.splitlines() if line.startswith("segue_bus_durable_writes_total{")]
            found[process.name] = found.get(process.name, 0.0) + sum(float(line.rsplit(" ", 1)[1]) for line in lines)
    return found


def pids(system: System) -> dict[str, int]:
    found = {"nats-server": system.nats.pid} if system.nats is not None and system.nats.pid else {}
    for process in system.processes:
        found[process.name] = process.pid
    return found


async def measure(system: System, name: str, arguments: argparse.Namespace) -> None:
    path, body = KINDS[name]
    connector = aiohttp.TCPConnector(limit=500)
    async with aiohttp.ClientSession(connector=connector) as session:
        url = system.gateway.url + path

        def load() -> Load:
            return Load(session, url, body)

        await load().in_turn(50)
        alone = load()
        await alone.in_turn(arguments.requests)
        steady = load()
        await steady.at_rate(arguments.rate, arguments.requests)
        rates = []
        running = pids(system)
        asked, writes = await writes_by_process(system), await stored(system)
        before = {who: cpu_s(pid) for who, pid in running.items()}
        busy = load()
        for _ in range(arguments.rounds):
            rates.append(await busy.as_many(arguments.at_once, arguments.seconds))
        count = len(busy.took_s)
        after, writes_after = {who: cpu_s(pid) for who, pid in running.items()}, await stored(system)
        asked_after = await writes_by_process(system)
        spent = {who: 1000 * (after[who] - before[who]) / count for who in running}
        ours = {who: ms for who, ms in spent.items() if who != "simulator"}
        durable = {stream: (writes_after[stream] - writes[stream]) / count for stream in writes}
        failed = alone.failed + steady.failed + busy.failed
        most = " ".join(f"{rate:.0f}" for rate in rates)
        print(f"\n## {name}\n\np50/p95/p99 in ms; {failed} failed")
        print(f"1 in flight       {quantiles(alone.took_s)} (mean {1000 * statistics.mean(alone.took_s):.1f})")
        print(f"{arguments.rate:3.0f}/s             {quantiles(steady.took_s)}")
        print(f"most requests/s   {most} ({arguments.at_once} at once: {quantiles(busy.took_s)})")
        print(f"CPU ms a request  {sum(ours.values()):.2f}: {named(ours, 2)}")
        print(f"beside it         simulator {spent['simulator']:.2f}")
        print(f"durable writes    {sum(durable.values()):.1f} a request: {named(durable, 1)}")
        by_process = {who: (asked_after[who] - asked[who]) / count for who in asked}
        print(f"asked for by      {named(by_process, 1)}")
        print(f"resident MB       {named({who: resident_mb(pid) for who, pid in running.items()}, 0)}")


def named(values: Mapping[str, float], digits: int) -> str:
    """Return the values with their names, without those that round to nothing."""
    return ", ".join(f"{name} {value:.{digits}f}" for name, value in values.items() if round(value, digits))


async def calibrate(system: System) -> None:
    """Print what one durable write costs a client here and now: machines differ by several times, hour by hour."""
    jetstream = (await open_bus(system.client)).jetstream

    async def write(name: str, count: int) -> None:
        for number in range(count):
            await jetstream.publish_once(f"segue.event.bench.{name}.{number}", b"x" * 512)

    for at_once in (1, 16):
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(write(f"{at_once}-{place}", 800 // at_once) for place in range(at_once)))
        wall_us, cpu_us = (time.perf_counter() - began) / 800 * 1e6, (time.process_time() - cpu) / 800 * 1e6
        print(f"one durable write of 512 B, {at_once:2} in flight: {wall_us:.0f} µs, {cpu_us:.0f} µs of client CPU")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=400, help="for each latency figure")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second for the steady load")
    parser.add_argument("--at-once", type=int, default=48, help="in flight while the most is measured")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each round at the most")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kind", choices=list(KINDS), action="append")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        async with System(Path(folder), environment={"SEGUE_LOG_LEVEL": "warning"}) as system:
            await calibrate(system)
            for name in arguments.kind or KINDS:
                await measure(system, name, arguments)


if __name__ == "__main__":
    uvloop.run(main())
