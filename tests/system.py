"""The whole system as real processes on free ports: a nats-server, a simulator, and any number of each service."""

import asyncio
import atexit
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import nats

from shared.bus.accounts import OPERATOR, USERS, Publisher, settings
from shared.bus.provisioner import provision
from shared.bus.server import NatsServer, free_port
from shared.config import load
from shared.config.environment import Environment
from shared.provision import limits_of
from shared.topology import Limits

SERVICES = ("categorizer", "planner", "executor", "finisher", "gateway")
ROOT = Path(__file__).resolve().parents[1]
READY_WITHIN_S = 60.0


class Nursery:
    """The process that forks all the others, see `tests.nursery`. One a test run, ended with it."""

    def __init__(self) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "tests.nursery"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._popen.stdout is not None
        assert self._popen.stdout.readline() == "ready\n"
        atexit.register(self._popen.kill)

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> int:
        """Start `python -m <arguments>` and return its process id."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        order = {"arguments": list(arguments), "environment": dict(environment), "log": str(log)}
        self._popen.stdin.write(json.dumps(order) + "\n")
        self._popen.stdin.flush()
        return int(self._popen.stdout.readline())


@cache
def nursery() -> Nursery:
    """Return the one of this test process."""
    return Nursery()


@dataclass
class Process:
    """One running copy of a service."""

    name: str
    port: int
    pid: int
    log: Path
    _ended: bool = False
    """Seen by somebody here: from then on its id may be another process's, who is to get none of its signals."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        self._signal(0)
        return not self._ended

    def kill(self) -> None:
        """Kill it, and return when it is gone."""
        self._signal(signal.SIGKILL)
        self.gone(20)

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        if not self._ended:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                self._ended = True

    def gone(self, within_s: float) -> bool:
        """Wait until it has ended; whether it did."""
        until = time.monotonic() + within_s
        while self.alive:
            if time.monotonic() > until:
                return False
            time.sleep(0.005)
        return True


@dataclass
class System:
    """`async with System(tmp_path) as system: await system.chat("…")`."""

    folder: Path
    copies: Mapping[str, int] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    profile: str = "zero"
    limits: Limits = field(default_factory=Limits)
    processes: list[Process] = field(default_factory=list)
    configure: Callable[[dict[str, Any]], None] | None = None
    """Changes the shipped configuration for this system."""
    nats_url: str | None = None
    """A server that runs already; None: one of its own."""
    publishers: Sequence[Publisher] | None = None
    """Outside systems with accounts of their own: then every service is a user with its own permissions."""

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._configuration = str(ROOT / "orchestration_config.json")
        if self.configure is not None:
            self._configuration = _changed(self.folder, self.configure)
            found = load(Path(self._configuration)).configuration
            self.limits = replace(self.limits, grants=limits_of(found, Environment()).grants)
        self.nats: NatsServer | None = None
        if self.nats_url is None:
            accounts = None
            if self.publishers is not None:
                accounts = settings(self.publishers, {user: f"{user}-password" for user in USERS}, self.limits)
            self.nats = NatsServer(self.folder / "nats", settings=accounts)
            await self.nats.start()
            self.nats_url = self.url_for(OPERATOR)
        self.client = await nats.connect(self.nats_url.split(","), max_reconnect_attempts=-1, reconnect_time_wait=0.1)
        await provision(self.client, self.limits)
        self.simulator = self.start("simulator")
        for name in SERVICES:
            for _ in range(self.copies.get(name, 1)):
                self.start(name)
        self.http = httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=500))
        await asyncio.gather(*(self.ready(process) for process in self.processes))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.aclose()
        for process in self.processes:
            process.terminate()
        until = time.monotonic() + 20
        for process in self.processes:
            if not process.gone(max(0.1, until - time.monotonic())):
                process.kill()
        await self.client.close()
        if self.nats is not None:
            self.nats.kill()

    @property
    def gateway(self) -> Process:
        return next(process for process in reversed(self.processes) if process.name == "gateway" and process.alive)

    @property
    def simulator_url(self) -> str:
        return f"{self.simulator.url}/api/v1"

    def start(self, name: str, **extra: str) -> Process:
        """Start one more copy of a service (or the simulator)."""
        port = free_port()
        log = self.folder / f"{name}-{port}.log"
        environment = {
            **os.environ,
            "SEGUE_NATS_URL": self.url_for(name),
            "SEGUE_HEALTH_PORT": str(port),
            "PORT": str(port),
            "SEGUE_LOG_LEVEL": "info",
            "SEGUE_DATA_DIR": str(self.folder),
            "SEGUE_CONFIG": self._configuration,
            **self.environment,
            **extra,
        }
        if name == "simulator":
            arguments = ["simulator", "--port", str(port), "--profile", self.profile, "--seed", "1"]
        else:
            environment.setdefault("SEGUE_SIMULATOR_URL", self.simulator_url)
            arguments = [f"services.{name}"]
        process = Process(name, port, nursery().start(arguments, environment, log), log)
        self.processes.append(process)
        return process

    async def ready(self, process: Process) -> None:
        """Wait until a copy is ready to work."""
        path = "/healthz" if process.name == "simulator" else "/readyz"
        until = time.monotonic() + READY_WITHIN_S
        last = ""
        async with httpx.AsyncClient(timeout=5) as client:
            while time.monotonic() < until:
                if not process.alive:
                    raise AssertionError(f"{process.name} ended: {process.log.read_text()[-2000:]}")
                try:
                    answer = await client.get(process.url + path)
                    last = answer.text
                    if answer.status_code == 200:
                        return
                except httpx.TransportError as error:
                    last = repr(error)
                await asyncio.sleep(0.02)
        raise AssertionError(f"{process.name} not ready: {last}; {process.log.read_text()[-2000:]}")

    def url_for(self, user: str) -> str:
        """Return where the bus is for a service, or the operator."""
        if self.nats is None or self.publishers is None:
            return self.nats_url or (self.nats.url if self.nats is not None else "")
        return self.nats.url.replace("nats://", f"nats://{user}:{user}-password@")

    def running(self, name: str) -> list[Process]:
        return [process for process in self.processes if process.name == name and process.alive]

    async def post(self, path: str, body: Mapping[str, Any], **headers: str) -> httpx.Response:
        return await self.http.post(self.gateway.url + path, json=body, headers=headers)

    async def chat(self, message: str, **fields: Any) -> dict[str, Any]:
        """Ask, and return the answer's body; fails on anything but 200."""
        answer = await self.post("/chat", {"message": message, **fields})
        assert answer.status_code == 200, (answer.status_code, answer.text)
        body: dict[str, Any] = answer.json()
        return body

    async def ledger(self) -> list[dict[str, Any]]:
        """Return what the simulator was asked, by its own account."""
        body = (await self.http.get(f"{self.simulator.url}/__sim/ledger")).json()
        entries: list[dict[str, Any]] = body["entries"] if isinstance(body, dict) else body
        return entries

    async def stored_by(self, work: Callable[[], Awaitable[None]]) -> int:
        """Do some work, and return how many messages all streams have stored meanwhile.

        Those of others besides: canaries, which whoever asks for health has written, are among them.
        """
        jetstream = self.client.jetstream()

        async def stored() -> int:
            return sum(one.state.last_seq for one in await jetstream.streams_info())

        before = await stored()
        await work()
        return await stored() - before

    async def idle(self, *streams: str) -> None:
        """Wait until queues are empty: every command in them is dealt with, and was acked after its effect."""
        jetstream = self.client.jetstream()

        async def empty() -> bool:
            return not any([(await jetstream.stream_info(name)).state.messages for name in streams])

        await eventually(empty)

    async def runs_begun(self, tenant: str = "default") -> int:
        """Return how many runs of a tenant were accepted, as the log has it."""
        pattern = f"segue.event.{tenant}.*.accepted"
        info = await self.client.jetstream().stream_info("EVENTS", subjects_filter=pattern)
        return len(info.state.subjects or {})

    async def faults(self, *faults: Mapping[str, Any]) -> None:
        """Script the simulator's faults."""
        answer = await self.http.post(f"{self.simulator.url}/__sim/faults", json=list(faults))
        assert answer.status_code < 300, answer.text

    async def facts(self, run_id: str, tenant: str = "default") -> dict[str, Any]:
        """Return every fact of a run by its name."""
        from shared.bus.connection import open_bus
        from shared.subjects import fact_of

        bus = await open_bus(self.client)
        stored = await bus.log.facts(tenant, run_id)
        return {fact_of(one.subject): json.loads(await bus.payloads.unpack(one.data, one.headers)) for one in stored}


async def eventually(fact: Callable[[], Awaitable[object]], within_s: float = 60.0) -> None:
    """Wait until a fact is true; fail when it is not, looked at once more after the time is over."""
    until = time.monotonic() + within_s
    while True:
        last = time.monotonic() > until  # before the look: this process may stand still behind it
        if await fact():
            return
        assert not last, f"not true within {within_s} s"
        await asyncio.sleep(0.02)


def _changed(folder: Path, change: Callable[[dict[str, Any]], None]) -> str:
    """Write a changed copy of the shipped configuration and return its path."""
    document = json.loads((ROOT / "orchestration_config.json").read_text())
    change(document)
    copy = folder / "orchestration_config.json"
    copy.write_text(json.dumps(document))
    return str(copy)
