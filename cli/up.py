"""`segue up`: a whole Segue on this machine, in processes of its own, kept running until Ctrl-C."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from cli.ports import Wanted, complaints, first_free
from cli.supervisor import Child, Supervisor, pause_s
from shared import version
from shared.bus.server import NatsServer, NatsServerError
from shared.config import ConfigInvalid, load
from shared.config.environment import Environment

SERVICES = ("categorizer", "planner", "executor", "finisher")
FIRST_HEALTH_PORT = 9101
READY_WITHIN_S = 60.0
LOOK_EVERY_S = 0.02


class CannotStart(Exception):
    """Something has to be changed before Segue can start; the message says what."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `segue up` was asked for on its command line."""

    simulator: bool = True
    show_logs: bool = False
    copies: dict[str, int] | None = None


@contextmanager
def only_one(data_dir: Path) -> Iterator[None]:
    """Hold the data folder: two servers on the same files would destroy each other's."""
    data_dir.mkdir(parents=True, exist_ok=True)
    lock = (data_dir / "up.lock").open("a+")
    try:
        _lock(lock.fileno())
    except OSError:
        lock.seek(0)
        holder = lock.read().strip() or "another process"
        lock.close()
        raise CannotStart(
            f"a Segue (process {holder}) already runs with its data in {data_dir}: "
            "stop it, or set SEGUE_DATA_DIR to another folder"
        ) from None
    try:
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
    finally:
        lock.close()


def _lock(fileno: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(fileno, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(fileno, fcntl.LOCK_EX | fcntl.LOCK_NB)


def up(environment: Environment, options: Options) -> int:
    """Run until Ctrl-C or SIGTERM. Returns the exit code."""
    console = Console(stderr=False, highlight=False)
    try:
        loaded = load()
        for warning in loaded.warnings:
            console.print(f"[yellow]configuration:[/yellow] {warning}")
        with only_one(environment.data_dir):
            return asyncio.run(_Up(environment, options, console).run())
    except (ConfigInvalid, CannotStart, NatsServerError) as error:
        console.print(f"[red]Segue does not start:[/red] {error}", soft_wrap=True)
        return 1


class _Up:
    def __init__(self, environment: Environment, options: Options, console: Console) -> None:
        self._environment = environment
        self._options = options
        self._console = console
        self._supervisor = Supervisor(self._say, show_all=options.show_logs)
        self._stop = asyncio.Event()
        self._began = time.monotonic()
        self._health: dict[str, int] = {}

    def _say(self, name: str, line: str) -> None:
        self._console.print(f"[dim]{name:>12} |[/dim] ", end="")
        self._console.print(line, markup=False, soft_wrap=True)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C arrives as KeyboardInterrupt
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._stop.set)
        environment = self._environment
        self._simulated = self._options.simulator and self._needs_simulator()
        self._check_ports()
        nats = None
        keeper = None
        try:
            if not environment.nats_url_given:
                nats = NatsServer(environment.data_dir / "nats", environment.nats_port)
                await nats.start()
                keeper = asyncio.create_task(self._keep_nats(nats))
            self._nats_url = nats.url if nats is not None else environment.nats_url
            if self._simulated:
                self._start_simulator()
            await self._provision()
            self._start_services()
            if await self._ready():
                self._summary(nats)
                await self._stop.wait()
            self._console.print("stopping …")
            return 0
        finally:
            await self._supervisor.stop(first=("gateway",))
            if keeper is not None:
                keeper.cancel()
            if nats is not None:
                await nats.stop()

    def _needs_simulator(self) -> bool:
        environment = self._environment
        keys = load().configuration.api_keys
        return (
            environment.openrouter_api_key is None
            and environment.openai_base_url is None
            and environment.simulator_url is None
            and not getattr(keys, "openrouter", None)
        )

    def _check_ports(self) -> None:
        environment = self._environment
        wanted = [Wanted(environment.port, "gateway", "PORT")]
        if not environment.nats_url_given:
            wanted.append(Wanted(environment.nats_port, "nats-server", "SEGUE_NATS_PORT"))
        if self._simulated:
            wanted.append(Wanted(environment.simulator_port, "simulator", "SEGUE_SIMULATOR_PORT"))
        if taken := complaints(environment.host, wanted):
            raise CannotStart("; ".join(taken))
        taken_ports = {want.port for want in wanted}
        for name in SERVICES:
            for copy in range(self._copies(name)):
                port = first_free(environment.host, FIRST_HEALTH_PORT, taken_ports)
                taken_ports.add(port)
                self._health[name if copy == 0 else f"{name}-{copy + 1}"] = port

    def _copies(self, name: str) -> int:
        return (self._options.copies or {}).get(name, 1)

    def _child(self, name: str, module: str, *arguments: str, **variables: str) -> Child:
        environment = {"SEGUE_NATS_URL": self._nats_url, "PYTHONUNBUFFERED": "1", **variables}
        if self._simulated:
            url = f"http://127.0.0.1:{self._environment.simulator_port}/api/v1"
            environment["SEGUE_SIMULATOR_URL"] = url
        log = self._environment.data_dir / "logs" / f"{name}.log"
        return Child(name, module, arguments, environment, log)

    def _start_simulator(self) -> None:
        port = str(self._environment.simulator_port)
        self._supervisor.keep(self._child("simulator", "simulator", "--port", port, "--profile", "fast"))

    def _start_services(self) -> None:
        for name, port in self._health.items():
            module = f"services.{name.partition('-')[0]}"
            self._supervisor.keep(self._child(name, module, SEGUE_HEALTH_PORT=str(port)))
        self._supervisor.keep(self._child("gateway", "services.gateway", PORT=str(self._environment.port)))

    async def _provision(self) -> None:
        import nats as nats_client

        from shared.bus.provisioner import provision
        from shared.provision import limits_of

        client = await nats_client.connect(self._nats_url.split(","), connect_timeout=2, max_reconnect_attempts=20)
        await provision(client, limits_of(load().configuration, self._environment))
        await client.close()

    async def _keep_nats(self, nats: NatsServer) -> None:
        deaths = 0
        while True:
            code = await nats.ended()
            if self._stop.is_set():
                return
            deaths += 1
            self._say("up", f"nats-server ended (exit code {code}); starting it again on the same files")
            await asyncio.sleep(pause_s(min(deaths, 3)))
            await nats.start()

    async def _ready(self) -> bool:
        """Wait until every service says that it is ready; False when it was stopped before."""
        host = "127.0.0.1" if self._environment.host == "0.0.0.0" else self._environment.host
        waiting = {**self._health, "gateway": self._environment.port}
        until = time.monotonic() + READY_WITHIN_S
        async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
            while waiting and not self._stop.is_set():
                for name, port in list(waiting.items()):
                    with contextlib.suppress(httpx.HTTPError):
                        if (await client.get(f"http://{host}:{port}/readyz")).status_code == 200:
                            del waiting[name]
                if time.monotonic() > until:
                    logs = self._environment.data_dir / "logs"
                    raise CannotStart(
                        f"not ready within {READY_WITHIN_S:.0f} s: {', '.join(waiting)}; their logs are in {logs}"
                    )
                await asyncio.sleep(LOOK_EVERY_S)
        return not self._stop.is_set()

    def _summary(self, nats: NatsServer | None) -> None:
        environment = self._environment
        host = "localhost" if environment.host in {"127.0.0.1", "0.0.0.0"} else environment.host
        base = f"http://{host}:{environment.port}"
        table = Table.grid(padding=(0, 2))
        table.add_row("API", f"{base}   docs {base}/docs   metrics {base}/metrics")
        where = "embedded, its files in " + str(environment.data_dir / "nats") if nats is not None else "yours"
        table.add_row("NATS", f"{self._nats_url}   ({where})")
        table.add_row("models", self._models())
        table.add_row("health", "   ".join(f"{name} :{port}" for name, port in self._health.items()))
        table.add_row("logs", str(environment.data_dir / "logs"))
        self._console.print(f"\n[bold]Segue {version()}[/bold]")
        self._console.print(table)
        self._console.print(
            f"\n[bold green]ready[/bold green] in {time.monotonic() - self._began:.1f} s. In another terminal:\n"
            f'  {self._segue()} ask "What is the capital of France?"\n'
            f"  {self._segue()} check\n"
            "Ctrl-C stops everything.\n"
        )

    @staticmethod
    def _segue() -> str:
        beside = Path(sys.executable).with_name("segue")
        with contextlib.suppress(ValueError):
            return str(beside.relative_to(Path.cwd()))
        return str(beside)

    def _models(self) -> str:
        environment = self._environment
        if environment.openai_base_url is not None:
            return f"every text role at {environment.openai_base_url}"
        if self._simulated:
            return "[yellow]simulated[/yellow]: set OPENROUTER_API_KEY or SEGUE_OPENAI_BASE_URL for real ones"
        if environment.simulator_url is not None:
            return f"[yellow]simulated[/yellow] at {environment.simulator_url}"
        return "OpenRouter"
