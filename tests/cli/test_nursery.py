"""Children forked from a process that has imported everything are what `python -m` would have started."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from cli.nursery.client import Forking, Nursery, NurseryGone
from cli.nursery.order import Order
from cli.processes import Process, Spawned, Spawning, Starter
from tests.conftest import eventually

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="forks only where that is safe: on Linux"),
    pytest.mark.asyncio(loop_scope="module"),
]

CHILD = "tests.cli.child_program"


@pytest.fixture(scope="module", params=["forked", "spawned"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def starter(kind: str) -> AsyncIterator[Starter]:
    """Both ways to start a process pass the same tests."""
    starter: Starter = Forking(Nursery()) if kind == "forked" else Spawning()
    yield starter
    await starter.close()


def order(*arguments: str, **environment: str) -> Order:
    return Order(CHILD, arguments, {**os.environ, **environment})


def proc(pid: int, what: str) -> str:
    return Path(f"/proc/{pid}/{what}").read_text()


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return proc(pid, "stat").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def outcome(process: Process) -> tuple[bytes, bytes, int]:
    output, errors = await asyncio.gather(process.output.read(), process.errors.read())
    return output, errors, await process.wait()


async def test_output_errors_environment_arguments_and_exit_code(starter: Starter) -> None:
    """All five arrive; nothing of one child's is another's."""
    first = await starter.start(order("say", "3", MARK="one"))
    second = await starter.start(order("say", "0", MARK="two"))
    assert await outcome(first) == (b"out one\n", b"err one\n", 3)
    assert await outcome(second) == (b"out two\n", b"err two\n", 0)
    assert first.pid != second.pid
    assert first.ended


async def test_the_environment_is_the_orders_alone(starter: Starter) -> None:
    """A variable of the supervisor that the order does not have is not there."""
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    assert "HOME" in os.environ
    process = await starter.start(Order(CHILD, ["say", "0"], {**environment, "MARK": "home", "ASK": "HOME"}))
    assert (await outcome(process))[0] == b"out home\nHOME None\n"


async def test_an_exception_is_a_traceback_and_exit_code_one(starter: Starter) -> None:
    _, errors, code = await outcome(await starter.start(order("raise")))
    assert b"RuntimeError: as asked" in errors
    assert code == 1


async def test_a_text_to_exit_with_is_said(starter: Starter) -> None:
    """As `sys.exit` does it: to standard error, exit code 1."""
    assert await outcome(await starter.start(order("exit"))) == (b"", b"does not start\n", 1)


async def test_a_child_can_be_asked_to_end_and_killed(starter: Starter) -> None:
    """A signal that nobody handles ends it; one that is handled is handled."""
    asked, killed = await starter.start(order("wait")), await starter.start(order("deaf"))
    for child in (asked, killed):
        assert await child.output.readline() == b"waiting\n"
    asked.terminate()
    assert await asked.wait() == -signal.SIGTERM
    killed.terminate()
    assert await killed.output.readline() == b"no\n"
    assert not killed.ended
    killed.kill()
    assert await killed.wait() == -signal.SIGKILL
    killed.kill()  # nothing happens
    for child in (asked, killed):
        await outcome(child)


async def test_it_is_called_what_it_is(starter: Starter) -> None:
    """`ps` and `pgrep -f` find a service by its module."""
    process = await starter.start(order("wait"))
    await process.output.readline()
    command = proc(process.pid, "cmdline").replace("\0", " ")
    assert CHILD in command
    assert not isinstance(process, Spawned) or "cli.child" in command
    if not isinstance(process, Spawned):
        assert command.strip().endswith(f"-m {CHILD} wait")
        assert proc(process.pid, "comm") == "segue-child_pro\n"
    process.kill()
    await outcome(process)


async def test_nobody_outlives_a_supervisor_that_is_killed(kind: str) -> None:
    """SIGKILL leaves no time to tell anybody: the kernel does."""
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.cli.supervisor_program", kind, stdout=asyncio.subprocess.PIPE
    )
    assert supervisor.stdout is not None
    pids = [int(pid) for pid in (await supervisor.stdout.readline()).split()]
    assert len(pids) == 2
    assert all(alive(pid) for pid in pids)
    supervisor.kill()
    await supervisor.communicate()
    await eventually(lambda: not any(alive(pid) for pid in pids))


async def test_a_nursery_that_dies_takes_its_children_with_it_and_is_replaced() -> None:
    nursery = Nursery()
    starter = Forking(nursery)
    try:
        child = await starter.start(order("wait"))
        await child.output.readline()
        os.kill(nursery.pid, signal.SIGKILL)
        assert await child.wait() == -signal.SIGKILL
        await eventually(lambda: not alive(child.pid))
        with pytest.raises(NurseryGone):
            await nursery.start(order("wait"))
        again = await starter.start(order("say", "0", MARK="again"))
        assert await outcome(again) == (b"out again\n", b"err again\n", 0)
        assert not isinstance(again, Spawned)
    finally:
        await starter.close()


async def test_closing_ends_whoever_still_runs() -> None:
    starter = Forking(Nursery())
    child = await starter.start(order("deaf"))
    await child.output.readline()
    await starter.close()
    await eventually(lambda: not alive(child.pid))


async def test_many_children_at_once_are_told_apart(starter: Starter) -> None:
    children = await asyncio.gather(*(starter.start(order("say", str(n), MARK=str(n))) for n in range(12)))
    ends = await asyncio.gather(*map(outcome, children))
    assert ends == [(b"out %d\n" % n, b"err %d\n" % n, n) for n in range(12)]


async def test_an_environment_larger_than_a_sockets_buffer_arrives(starter: Starter) -> None:
    large = {f"LARGE_{n}": "x" * 100_000 for n in range(5)}
    process = await starter.start(order("say", "0", MARK="large", ASK="LARGE_4", **large))
    assert (await outcome(process))[0] == b"out large\nLARGE_4 " + b"x" * 100_000 + b"\n"
