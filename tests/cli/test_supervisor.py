"""Children are kept: started, started again, told apart in their logs, stopped in order."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from cli.nursery.order import Order
from cli.processes import Spawning
from cli.supervisor import Child, Supervisor
from tests.conftest import eventually

PROGRAM = "tests.cli.child_program"


class Heard:
    """What the supervisor said."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.broken: list[tuple[str, BaseException]] = []

    def say(self, name: str, line: bytes | str) -> None:
        self.lines.append((name, line.decode() if isinstance(line, bytes) else line))

    def broke(self, name: str, error: BaseException) -> None:
        self.broken.append((name, error))

    def has(self, name: str, part: str) -> bool:
        return any(who == name and part in line for who, line in self.lines)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def supervisor(heard: Heard) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(Spawning(), heard.say, heard.broke)
    yield supervisor
    await supervisor.close()
    assert heard.broken == []


def child(folder: Path, name: str, *arguments: str, **environment: str) -> Child:
    return Child(name, Order(PROGRAM, arguments, {**os.environ, **environment}), folder / f"{name}.log")


async def waiting(one: Child, times: int = 1) -> None:
    """Return when the program has begun so many times."""
    await eventually(lambda: one.log.exists() and one.log.read_text().count("waiting") == times, within_s=20)


async def test_who_dies_is_started_again_and_it_is_said(
    supervisor: Supervisor, heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a pause that grows while it dies in a row."""
    monkeypatch.setattr("cli.supervisor.GOOD_FOR_S", 600.0)  # however long a start takes, it dies in a row
    one = child(tmp_path, "one", "wait")
    supervisor.keep(one)
    for deaths in (1, 2):
        await waiting(one, deaths)
        assert one.process is not None
        one.process.kill()
        said = f"one (process {one.process.pid}) ended: killed by SIGKILL; again in {0.2 * deaths:.1f} s"
        await eventually(partial(heard.has, "up", said))
    await waiting(one, 3)
    assert one.deaths == 2


async def test_it_is_said_when_it_works_again(supervisor: Supervisor, heard: Heard, tmp_path: Path) -> None:
    answers = iter([False, False, True])

    async def ready() -> bool:
        return next(answers)

    one = child(tmp_path, "one", "wait")
    one.ready = ready
    supervisor.keep(one)
    await waiting(one)
    assert one.process is not None
    one.process.kill()
    await waiting(one, 2)
    await eventually(lambda: heard.has("up", "one is back (process"))
    assert next(answers, None) is None


async def test_what_it_said_last_is_kept_of_one_that_does_not_start(
    supervisor: Supervisor, heard: Heard, tmp_path: Path
) -> None:
    one = child(tmp_path, "one", "exit")
    supervisor.keep(one)
    await eventually(lambda: one.deaths >= 2, within_s=20)
    assert one.last_words[-1] == "does not start"
    assert heard.has("up", "ended: exit code 1; again in")
    assert heard.has("one", "does not start")


async def test_warnings_reach_the_console_and_everything_the_log(
    supervisor: Supervisor, heard: Heard, tmp_path: Path
) -> None:
    loud, quiet = child(tmp_path, "loud", "log", "warning"), child(tmp_path, "quiet", "log", "info")
    supervisor.keep(loud)
    supervisor.keep(quiet)
    await eventually(
        lambda: all(one.log.exists() and "a.thing" in one.log.read_text() for one in (loud, quiet)), within_s=20
    )
    assert heard.has("loud", "a.thing")
    assert not heard.has("quiet", "a.thing")


async def test_all_lines_are_shown_when_asked_for(supervisor: Supervisor, heard: Heard, tmp_path: Path) -> None:
    supervisor.show_all = True
    supervisor.keep(child(tmp_path, "quiet", "log", "info"))
    await eventually(lambda: heard.has("quiet", "a.thing"), within_s=20)


async def test_groups_are_stopped_one_after_the_other_and_the_deaf_are_killed(
    supervisor: Supervisor, heard: Heard, tmp_path: Path
) -> None:
    """The first group's time is over before the second is asked; nobody is started again."""
    deaf, polite = child(tmp_path, "deaf", "deaf"), child(tmp_path, "polite", "wait")
    for one in (deaf, polite):
        supervisor.keep(one)
        await waiting(one)
    assert deaf.process is not None
    assert polite.process is not None
    stopping = asyncio.create_task(supervisor.stop([(["deaf"], 4.0), (["polite"], 90.0)]))
    await eventually(lambda: "no" in deaf.log.read_text())
    assert not polite.process.ended
    began = time.monotonic()
    await stopping
    assert time.monotonic() - began < 45, "the polite one ended by itself"
    assert heard.has("up", "deaf did not stop in time; killing it")
    assert await deaf.process.wait() == -signal.SIGKILL
    assert await polite.process.wait() == -signal.SIGTERM
    assert not heard.has("up", "again in")


async def test_a_full_disk_does_not_hold_a_child_up(supervisor: Supervisor, heard: Heard, tmp_path: Path) -> None:
    """What cannot be written is said, and the child goes on."""
    full = child(tmp_path, "full", "log", "warning")
    full.log = Path("/dev/full")
    if not full.log.exists():
        pytest.skip("no /dev/full on this system")
    supervisor.keep(full)
    await eventually(lambda: heard.has("up", "cannot write /dev/full: No space left on device"), within_s=20)
    await eventually(lambda: heard.has("full", "a.thing"))
    assert full.process is not None
    assert not full.process.ended
