"""`segue up`: a whole Segue on this machine, in processes of its own, kept running until Ctrl-C."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from cli import summary
from cli.bus_users import guarded, move, urls
from cli.data_dir import DataDirTaken, DataDirUnusable, held
from cli.log_lines import Repeats, readable
from cli.processes import Starter
from cli.readiness import problem
from cli.roster import Member, Options, PortsTaken, Roster, check_ports, muster, needs_simulator
from cli.supervisor import Child, Supervisor, deaths_in_a_row, pause_s, why
from shared import version
from shared.access.settings import auth_of
from shared.bus.accounts import OPERATOR, BadPublisher
from shared.bus.server import NatsServer, NatsServerError
from shared.config import ConfigInvalid, Loaded, load
from shared.config.environment import Environment
from shared.provision import limits_of

READY_WITHIN_S = 60.0
LOOK_EVERY_S = 0.02
GIVE_UP_AFTER = 3
"""Deaths in a row, before everything was ready once."""
GATEWAY_BY_S, SERVICES_BY_S, SIMULATOR_BY_S = 9.0, 16.0, 17.0
"""When each has to have stopped, from Ctrl-C on; the nats-server then has until 20 s."""
NATS_WITHIN_S = 2.5
T = TypeVar("T")


class CannotStart(Exception):
    """Something has to be changed before Segue can start; the message says what."""


class _Stopped(Exception):
    """Somebody asked to stop before everything was ready."""


def refused(error: Exception) -> int:
    """Say why nothing was started. Returns the exit code."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("[bold red]Segue does not start:[/bold red]", end=" ")
    console.print(str(error), markup=False)
    return 1


def up(
    environment: Environment, options: Options, starter: Starter, variables: Mapping[str, str], began_s: float
) -> int:
    """Run until Ctrl-C or SIGTERM. Returns the exit code.

    `variables` is the environment that the processes get, with what each needs besides.
    """
    console = Console(highlight=False, soft_wrap=True)
    try:
        auth_of(environment)
        loaded = load(environment.config, variables)
        for warning in loaded.warnings:
            console.print("[yellow]configuration:[/yellow] ", end="")
            console.print(warning, markup=False)
        with held(environment.data_dir), contextlib.suppress(KeyboardInterrupt):
            return asyncio.run(_Up(environment, options, loaded, starter, variables, console, began_s).run())
    except (
        BadPublisher,
        ConfigInvalid,
        CannotStart,
        DataDirTaken,
        DataDirUnusable,
        NatsServerError,
        PortsTaken,
    ) as error:
        return refused(error)
    return 0


class _Up:
    def __init__(
        self,
        environment: Environment,
        options: Options,
        loaded: Loaded,
        starter: Starter,
        variables: Mapping[str, str],
        console: Console,
        began_s: float,
    ) -> None:
        self._environment = environment
        self._options = options
        self._loaded = loaded
        self._variables = variables
        self._console = console
        self._supervisor = Supervisor(starter, self._say, self._broke, show_all=options.show_logs)
        self._stop, self._hurry = asyncio.Event(), asyncio.Event()
        self._exit_code = 0
        self._began_s = began_s
        self._nats: NatsServer | None = None
        self._repeats = Repeats()

    def _say(self, name: str, line: bytes | str) -> None:
        if isinstance(line, bytes):
            if self._stop.is_set() and not self._options.show_logs:
                return  # that connections end now is no news; the log files have it
            line = readable(line)
            if self._repeats.known(name, line, time.monotonic()):
                return
        self._console.print(f"{name:>12} |", style="dim", end=" ")
        self._console.print(line, markup=False)

    def _broke(self, name: str, error: BaseException) -> None:
        self._console.print(f"cannot keep {name} running: {error!r}", style="red", markup=False)
        self._exit_code = 1
        self._stop.set()

    async def run(self) -> int:
        """Start, wait, stop."""
        self._take_signals()
        environment = self._environment
        simulated = self._options.simulator and needs_simulator(environment, self._loaded.configuration)
        keeper = None
        roster = None
        try:
            check_ports(environment, simulated=simulated)
            if not environment.nats_url_given:
                accounts = guarded(environment, limits_of(self._loaded.configuration, environment))
                move(environment.data_dir, guarded=accounts is not None)
                nats = environment.data_dir.absolute() / "nats"
                self._nats = NatsServer(nats, environment.nats_port, settings=accounts)
                await self._nats.start()
                keeper = asyncio.create_task(self._keep_nats(self._nats))
            url = environment.nats_url if self._nats is None else self._nats.url
            own = urls(url, environment.data_dir) if self._nats is not None and environment.bus_tenants else None
            await self._unless_stopped(self._provision(url, own[OPERATOR] if own else url))
            roster = muster(environment, self._options, self._variables, url, simulated=simulated, own_urls=own)
            for member in roster.members:
                self._supervisor.keep(self._child(member))
            await self._unless_stopped(self._all_ready(roster))
            self._tell(roster, url)
            await self._stop.wait()
        except _Stopped:
            pass
        finally:
            self._stop.set()
            await self._end(roster, keeper)
        return self._exit_code

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        numbers = [signal.SIGINT, signal.SIGTERM]
        if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
            numbers.append(signal.SIGHUP)
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C arrives as KeyboardInterrupt
            for number in numbers:
                loop.add_signal_handler(number, self._asked_to_stop)

    def _asked_to_stop(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
            return
        self._stop.set()
        self._console.print("stopping: what has begun is finished first; Ctrl-C again stops at once")

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns. Raises `_Stopped`."""
        task, stop = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise _Stopped
            return task.result()
        finally:
            for one in (task, stop):
                one.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    async def _provision(self, url: str, as_operator: str) -> None:
        import nats
        import nats.errors

        from shared.bus.errors import BusError
        from shared.bus.provisioner import provision

        async def quiet(_: Exception) -> None:
            """What went wrong is raised here, in the end."""

        try:
            client = await nats.connect(
                [part.strip() for part in as_operator.split(",")],
                name="segue-up",
                connect_timeout=2,
                max_reconnect_attempts=20,
                reconnect_time_wait=0.25,
                error_cb=quiet,
            )
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise CannotStart(
                f"no NATS server answers at {url} ({error or type(error).__name__}): start it, or unset SEGUE_NATS_URL "
                "to use the embedded one"
            ) from error
        try:
            await provision(client, limits_of(self._loaded.configuration, self._environment))
        except (nats.errors.Error, BusError, TimeoutError) as error:
            raise CannotStart(
                f"the NATS server at {url} does not take what Segue needs (JetStream): {error}"
            ) from error
        finally:
            await client.close()

    def _child(self, member: Member) -> Child:
        async def ready() -> bool:
            return await self._problem(member) is None

        return Child(member.name, member.order, member.log, ready if member.port is not None else None)

    async def _problem(self, member: Member) -> str | None:
        if member.port is None:
            return None
        host = self._environment.host
        return await problem({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), member.port)

    async def _all_ready(self, roster: Roster) -> None:
        """Wait until every service says that it is ready. Raises `CannotStart`."""
        waiting: dict[str, str] = {}
        until = time.monotonic() + READY_WITHIN_S

        async def one(member: Member) -> None:
            while (why_not := await self._problem(member)) is not None:
                waiting[member.name] = why_not
                await asyncio.sleep(LOOK_EVERY_S)
            waiting.pop(member.name, None)

        asking = asyncio.gather(*(one(member) for member in roster.members))
        try:
            while not asking.done():
                self._give_up()
                if time.monotonic() > until:
                    reasons = "; ".join(f"{name} {why_not}" for name, why_not in waiting.items())
                    raise CannotStart(
                        f"not ready within {READY_WITHIN_S:.0f} s: {reasons}. Logs: {self._environment.data_dir}/logs"
                    )
                await asyncio.wait({asking}, timeout=0.1)
            await asking
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    def _give_up(self) -> None:
        """Raises `CannotStart` when somebody dies again and again without having worked."""
        for child in self._supervisor.children:
            if child.deaths >= GIVE_UP_AFTER:
                words = "\n  ".join(readable(line.encode()) for line in child.last_words)
                raise CannotStart(
                    f"{child.name} ended {child.deaths} times in a row; the end of {child.log}:\n  {words}"
                )

    async def _keep_nats(self, nats: NatsServer) -> None:
        """Start the nats-server again whenever it ends."""
        deaths, began = 0, time.monotonic()
        while True:
            code = await nats.ended()
            deaths = deaths_in_a_row(deaths, time.monotonic() - began)
            wait_s = pause_s(deaths)
            self._say("up", f"nats-server ended: {why(code)}; again on the same files in {wait_s:.1f} s")
            await asyncio.sleep(wait_s)
            began = time.monotonic()
            try:
                await nats.start()
            except NatsServerError as error:
                self._say("up", str(error))
                continue
            self._say("up", f"nats-server is back, ready in {time.monotonic() - began:.1f} s")

    def _tell(self, roster: Roster, url: str) -> None:
        environment = self._environment
        files = summary.shown(environment.data_dir / "nats")
        for line in summary.lines(
            environment,
            roster,
            nats=f"{url}, embedded, files in {files}{_let_in(environment)}" if self._nats is not None else url,
            models=summary.models(environment, self._loaded.configuration, simulated=roster.simulated),
            version=version(),
            took_s=time.monotonic() - self._began_s,
            command=_command(),
        ):
            self._console.print(line)

    async def _end(self, roster: Roster | None, keeper: "asyncio.Task[None] | None") -> None:
        """Stop everything in order, at once when asked again."""
        began = time.monotonic()
        in_order = asyncio.create_task(self._supervisor.stop(_groups(roster)))
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait({in_order, hurry}, return_when=asyncio.FIRST_COMPLETED)
        if not in_order.done():
            in_order.cancel()
            await self._supervisor.close()
        hurry.cancel()
        await asyncio.gather(in_order, hurry, return_exceptions=True)
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        if self._nats is not None:
            await self._nats.stop(NATS_WITHIN_S)
        self._console.print(f"stopped in {time.monotonic() - began:.1f} s")


def _groups(roster: Roster | None) -> list[tuple[list[str], float]]:
    if roster is None:
        return []
    return [
        ([roster.gateway.name], GATEWAY_BY_S),
        ([member.name for member in roster.services], SERVICES_BY_S),
        ([member.name for member in roster.simulator], SIMULATOR_BY_S),
    ]


def _let_in(environment: Environment) -> str:
    names = ", ".join(environment.bus_tenants)
    return f"; outside systems: {names} (docs/bus.md)" if names else ""


def _command() -> str:
    """Return how this user calls `segue`."""
    beside = Path(sys.executable).with_name("segue.exe" if os.name == "nt" else "segue")
    return str(summary.shown(beside)) if beside.exists() else f"{sys.executable} -m cli"
