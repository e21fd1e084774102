"""`segue up` for real: five services, a simulator, a nats-server, and what happens when any of them dies."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from shared.bus.server import free_port

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")


def until(fact: Callable[[], object], within_s: float, what: str) -> float:
    """Return, in seconds, how long it took until `fact` was true; fail when that takes longer."""
    began = time.monotonic()
    while not fact():
        assert time.monotonic() - began < within_s, f"not within {within_s} s: {what}"
        time.sleep(0.01)
    return time.monotonic() - began


class Running:
    """One `segue up` on ports and in a folder of its own."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        folder.mkdir(exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.simulator_port = free_port()
        self.out = folder / "console"
        self.home = folder / "home"
        self.home.mkdir(exist_ok=True)
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("SEGUE_") and name not in {"OPENROUTER_API_KEY", "GOOGLE_AI_API_KEY"}
        }
        given = {
            **kept,
            "HOME": str(self.home),
            "PORT": str(self.port),
            "SEGUE_NATS_PORT": str(free_port()),
            "SEGUE_SIMULATOR_PORT": str(self.simulator_port),
            "SEGUE_DATA_DIR": str(folder / "data"),
            **environment,
        }
        with self.out.open("wb") as out:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "cli", "up", *arguments],
                cwd=ROOT,
                env=given,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.out.read_text()

    def ready(self) -> "Running":
        until(
            lambda: "\nready in " in self.said() or self.popen.poll() is not None, 90, f"ready; it said {self.said()}"
        )
        assert self.popen.poll() is None, self.said()
        return self

    def processes(self) -> dict[int, str]:
        """Return everything that runs because of this one: command lines by process id, without `segue up` itself."""
        family = {self.popen.pid}
        parents = {}
        commands = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    stat = (entry / "stat").read_text().rpartition(")")[2].split()
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if stat[0] != "Z":
                    parents[int(entry.name)] = int(stat[1])
                    commands[int(entry.name)] = command
        for _ in range(3):
            family |= {pid for pid, parent in parents.items() if parent in family}
        return {pid: commands[pid] for pid in family - {self.popen.pid} if pid in commands}

    def pid_of(self, what: str) -> int:
        found = [pid for pid, command in self.processes().items() if what in command]
        assert len(found) == 1, (what, self.processes())
        return found[0]

    def ask(self, message: str = "What is the capital of France?") -> httpx.Response:
        return httpx.post(f"{self.url}/chat", json={"message": message}, timeout=60, trust_env=False)

    def stop(self, number: signal.Signals = signal.SIGTERM, within_s: float = 60.0) -> int:
        """Ask it to stop; fail when that takes longer, or leaves anything."""
        left = self.processes()
        self.popen.send_signal(number)
        code = self.popen.wait(within_s)
        until(lambda: not any(alive(pid) for pid in left), 15, f"all are gone: {left}; it said {self.said()}")
        return code

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One for all the tests that leave it running."""
    one = Running(tmp_path_factory.mktemp("up"), "--profile", "zero", "--service-copies", "executor=2")
    try:
        yield one.ready()
    finally:
        one.kill()


def test_it_says_where_everything_is(running: Running) -> None:
    """API, docs, metrics, health, who answers, how long it took, what to try; every address answers."""
    said = running.said()
    assert f"http://localhost:{running.port}/docs" in said
    assert "simulated: no text here comes from a model" in said
    assert re.search(r"\nready in \d+\.\d s\. In another terminal:\n", said)
    assert f'ask --url http://localhost:{running.port} "What is the capital of France?"' in said
    ports = dict(re.findall(r"(\w[\w-]*) :(\d+)", said))
    assert set(ports) == {"categorizer", "planner", "executor", "executor-2", "finisher"}
    for port in (*ports.values(), running.port):
        for path in ("healthz", "readyz", "metrics"):
            # On a machine that is short of time a service may be late with a write, and says that it is not ready.
            address = f"http://127.0.0.1:{port}/{path}"
            until(partial(_answers, address), 40, f"{address} answers 200")


def test_it_answers_and_says_that_it_is_simulated(running: Running) -> None:
    answer = running.ask()
    assert answer.status_code == 200
    assert answer.json()["simulated"] is True


def test_every_process_is_called_what_it_is(running: Running) -> None:
    for module in ("gateway", "categorizer", "planner", "finisher"):
        assert running.pid_of(f"-m services.{module}")
    assert sum("-m services.executor" in command for command in running.processes().values()) == 2


def test_logs_are_kept_by_service(running: Running) -> None:
    logs = running.folder / "data" / "logs"
    assert {log.stem for log in logs.glob("*.log")} >= {"gateway", "executor", "executor-2", "finisher", "simulator"}
    assert '"service": "gateway"' in (logs / "gateway.log").read_text()


def test_a_second_one_in_the_same_folder_is_refused(running: Running, tmp_path: Path) -> None:
    second = Running(tmp_path, SEGUE_DATA_DIR=str(running.folder / "data"))
    assert second.popen.wait(90) == 1
    assert f"a Segue (process {running.popen.pid}) already runs with its data in" in second.said()
    assert running.ask().status_code == 200


def test_a_second_one_on_the_same_ports_is_refused_by_name(running: Running, tmp_path: Path) -> None:
    """Every port that is taken, before anything is started, with what would work."""
    second = Running(tmp_path, PORT=str(running.port))
    assert second.popen.wait(90) == 1
    assert (
        f"port {running.port} (gateway) is taken by another program: stop it, or set PORT to another" in second.said()
    )
    assert re.search(r"for example: PORT=\d+ ./start.sh", second.said())
    assert not (tmp_path / "data" / "nats").exists()


@pytest.mark.parametrize(
    "victim",
    ["services.gateway", "services.categorizer", "services.planner", "services.finisher", "simulator", "nats-server"],
)
def test_whoever_is_killed_comes_back(running: Running, victim: str) -> None:
    """As another process, and questions are answered again."""
    what = f"-m {victim}" if victim != "nats-server" else "nats-server -c"
    pid = running.pid_of(what)
    os.kill(pid, signal.SIGKILL)
    until(lambda: any(what in command for command in running.processes().values() if not alive(pid)), 40, "back")
    assert running.pid_of(what) != pid

    def answered() -> bool:
        try:
            return running.ask().status_code == 200
        except httpx.TransportError:
            return False

    until(answered, 60, f"answers after {victim} was killed: {running.said()[-2000:]}")
    name = victim.removeprefix("services.")
    until(
        lambda: re.search(rf"{name}.* ended: killed by SIGKILL; again .*in 0\.\d s", running.said()), 30, "it is said"
    )


def test_the_process_that_forks_the_others_can_die_too(running: Running) -> None:
    """All of its children go with it and come back from a new one."""
    before = running.processes()
    os.kill(running.pid_of("cli.nursery"), signal.SIGKILL)
    names = ("gateway", "categorizer", "planner", "finisher")

    def back() -> bool:
        now = running.processes()
        return all(
            any(f"-m services.{name}" in command and pid not in before for pid, command in now.items())
            for name in names
        )

    until(back, 60, "all are back")
    until(lambda: _status(f"{running.url}/readyz") == 200, 60, "the gateway is ready")
    assert running.ask().status_code == 200


def _answers(url: str) -> bool:
    return _status(url) == 200


def _status(url: str) -> int | None:
    try:
        return httpx.get(url, trust_env=False).status_code
    except httpx.TransportError:
        return None


def test_sigterm_stops_everything_in_order_and_what_was_kept_is_there_again(tmp_path: Path) -> None:
    """Exit code 0, nothing left, ports free; a session survives until the next start."""
    first = Running(tmp_path, "--profile", "zero").ready()
    try:
        session = first.ask().json()["session_id"]
        assert first.stop(signal.SIGTERM) == 0
    finally:
        first.kill()
    assert re.search(r"stopped in \d+\.\d s\n$", first.said())
    assert "ended:" not in first.said()
    with socket.create_server(("127.0.0.1", first.port)):
        pass
    second = Running(tmp_path, "--profile", "zero").ready()
    try:
        kept = httpx.get(f"{second.url}/session/{session}", timeout=30, trust_env=False)
        assert kept.status_code == 200
        assert len(kept.json()["messages"]) == 2
        assert second.stop(signal.SIGINT) == 0
    finally:
        second.kill()


def test_a_request_in_flight_is_answered_before_it_stops(tmp_path: Path) -> None:
    one = Running(tmp_path, "--profile", "zero").ready()
    try:
        slow = {"name": "zero", "total_ms": 2_500}  # of two calls: long enough to be seen, and to be waited for
        httpx.post(f"http://127.0.0.1:{one.simulator_port}/__sim/profile", json=slow, timeout=30, trust_env=False)
        asking = subprocess.Popen(
            [sys.executable, "-m", "cli", "ask", "--url", one.url, "Why is the sky blue?"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        until(lambda: _waiting(one) == 1, 60, "the request is in flight")
        assert one.stop() == 0
        out, _ = asking.communicate(timeout=60)
        assert asking.returncode == 0
        assert out.startswith("[simulated] ")
    finally:
        one.kill()


def _waiting(one: Running) -> int:
    waiting: int = httpx.get(f"{one.url}/stats", timeout=30, trust_env=False).json()["waiting_requests"]
    return waiting


def test_killed_outright_it_leaves_nothing(tmp_path: Path) -> None:
    """SIGKILL to `segue up`: every process that it started is gone, and the next start finds the ports free."""
    one = Running(tmp_path, "--profile", "zero").ready()
    left = one.processes()
    assert len(left) >= 8
    one.kill()
    until(lambda: not any(alive(pid) for pid in left), 30, "all are gone")


def test_a_wrong_configuration_is_said_and_nothing_is_started(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"queuing": {"maxQueueDepth": "many"}}')
    one = Running(tmp_path, SEGUE_CONFIG=str(wrong))
    assert one.popen.wait(90) == 1
    assert "Segue does not start:" in one.said()
    assert '$.queuing.maxQueueDepth: found "many"; expected' in one.said()
    assert not (tmp_path / "data" / "nats").exists()


def test_a_nats_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    one = Running(tmp_path, SEGUE_NATS_URL=url)
    try:
        assert one.popen.wait(90) == 1
    finally:
        one.kill()
    assert f"no NATS server answers at {url}" in one.said()
    assert "unset SEGUE_NATS_URL" in one.said()


def test_a_service_that_cannot_start_ends_the_start_with_its_words(tmp_path: Path) -> None:
    """It is tried three times; then everything is stopped, and what the service said is the reason."""
    one = Running(tmp_path, SEGUE_MAX_WAITING="many")
    try:
        assert one.popen.wait(90) == 1
    finally:
        one.kill()
    assert re.search(r"Segue does not start: gateway ended 3 times in a row; the end of .*gateway.log:", one.said())
    assert one.said().rstrip().endswith("SEGUE_MAX_WAITING: found 'many'; expected a whole number of at least 1")


def test_an_address_that_is_not_of_this_machine_is_named(tmp_path: Path) -> None:
    one = Running(tmp_path, SEGUE_HOST="203.0.113.1", SEGUE_AUTH="off")  # of a network that nobody has (RFC 5737)
    assert one.popen.wait(90) == 1
    assert "cannot listen on 203.0.113.1 (gateway): Cannot assign requested address; set SEGUE_HOST" in one.said()


def test_it_runs_on_a_nats_server_of_ones_own(tmp_path: Path, nats_server_url: str) -> None:
    one = Running(tmp_path, "--profile", "zero", SEGUE_NATS_URL=nats_server_url).ready()
    try:
        assert one.ask().status_code == 200
        assert not any("nats-server" in command for command in one.processes().values())
        assert one.stop() == 0
    finally:
        one.kill()


@pytest.fixture
def nats_server_url(tmp_path: Path) -> Iterator[str]:
    """A server with nothing in it, started and stopped by this test."""
    import asyncio

    from shared.bus.server import NatsServer

    server = NatsServer(tmp_path / "own nats")
    asyncio.run(server.start())
    yield server.url
    server.kill()
