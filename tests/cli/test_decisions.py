"""What the supervisor decides, without processes: pauses, rows of deaths, ports, who has to run, what is shown."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.dotenv import parse, read_dotenv
from cli.log_file import LogFile
from cli.log_lines import REPEATED_S, Repeats, readable, worth_showing
from cli.ports import Wanted, complaints, first_free, instead, is_free
from cli.roster import Options, PortsTaken, check_ports, muster, needs_simulator, read_copies
from cli.supervisor import MOST_PAUSE_S, deaths_in_a_row, pause_s, why
from shared.bus.server import free_port
from shared.config import load
from shared.config.environment import Environment

CONFIGURATION = load(Path(__file__).parents[2] / "orchestration_config.json").configuration


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_pauses_double_from_a_fifth_of_a_second_to_five_seconds() -> None:
    assert [pause_s(deaths) for deaths in range(1, 8)] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


@given(st.integers(min_value=1, max_value=100_000))
def test_a_pause_is_never_longer_than_five_seconds(deaths: int) -> None:
    assert 0.2 <= pause_s(deaths) <= MOST_PAUSE_S


def test_a_good_run_begins_a_new_row_of_deaths() -> None:
    assert deaths_in_a_row(0, 0.1) == 1
    assert deaths_in_a_row(4, 0.1) == 5
    assert deaths_in_a_row(4, 3600.0) == 1


def test_an_end_is_told_in_words() -> None:
    assert (why(3), why(-9), why(-15), why(-200)) == (
        "exit code 3",
        "killed by SIGKILL",
        "killed by SIGTERM",
        "killed by signal 200",
    )


def test_every_port_that_is_taken_is_named_with_what_to_set(taken: int) -> None:
    free = free_port()
    lines = complaints(
        [
            Wanted("127.0.0.1", taken, "gateway", "PORT"),
            Wanted("127.0.0.1", free, "nats-server", "SEGUE_NATS_PORT"),
            Wanted("127.0.0.1", taken, "simulator", "SEGUE_SIMULATOR_PORT"),
        ]
    )
    assert len(lines) == 2
    assert f"port {taken} (gateway) is taken" in lines[0]
    assert "PORT" in lines[0]
    assert lines[1] == f"port {taken} is wanted by gateway and simulator: set SEGUE_SIMULATOR_PORT"


def test_what_would_work_instead_is_named_and_free(taken: int) -> None:
    said = instead([Wanted("127.0.0.1", taken, "gateway", "PORT")])
    name, _, port = said.partition("=")
    assert name == "PORT"
    assert int(port) > taken
    assert is_free("127.0.0.1", int(port))


def test_an_address_of_another_machine_is_no_matter_of_ports() -> None:
    wanted = [Wanted("203.0.113.1", 8000, "gateway", "PORT")]  # of a network that nobody has (RFC 5737)
    assert complaints(wanted)[0].startswith("cannot listen on 203.0.113.1 (gateway): ")
    assert instead(wanted) == ""


def test_the_first_free_port_skips_what_is_taken_or_given(taken: int) -> None:
    assert first_free("127.0.0.1", taken, set()) > taken
    free = free_port()
    assert first_free("127.0.0.1", free, {free}) > free


def test_nothing_is_started_when_a_port_is_taken(taken: int) -> None:
    environment = Environment(port=taken, nats_port=free_port(), simulator_port=free_port())
    with pytest.raises(PortsTaken, match=rf"port {taken} \(gateway\).*\n.*PORT=\d+ ./start.sh"):
        check_ports(environment, simulated=True)


def test_a_server_of_ones_own_and_no_simulator_need_no_ports(taken: int) -> None:
    check_ports(
        Environment(port=free_port(), nats_port=taken, nats_url_given=True, simulator_port=taken), simulated=False
    )


@pytest.mark.parametrize(
    ("variables", "needed"),
    [
        ({}, True),
        ({"GOOGLE_AI_API_KEY": "g"}, True),
        ({"OPENROUTER_API_KEY": "sk-or-1"}, False),
        ({"SEGUE_OPENAI_BASE_URL": "http://127.0.0.1:8103/v1"}, False),
        ({"SEGUE_SIMULATOR_URL": "http://127.0.0.1:8200/api/v1"}, False),
    ],
)
def test_a_simulator_is_needed_when_nobody_serves_text(variables: dict[str, str], needed: bool) -> None:
    assert needs_simulator(Environment.read(variables), CONFIGURATION) is needed


def test_every_service_and_copy_has_a_name_a_port_and_a_log_of_its_own(tmp_path: Path) -> None:
    environment = Environment(data_dir=tmp_path, port=free_port())
    roster = muster(environment, Options(copies={"executor": 3}), {"HOME": "/x"}, "nats://127.0.0.1:1", simulated=True)
    names = [member.name for member in roster.members]
    assert names == [
        "simulator",
        "categorizer",
        "planner",
        "executor",
        "executor-2",
        "executor-3",
        "finisher",
        "gateway",
    ]
    assert len({member.port for member in roster.services}) == 6
    assert len({member.log for member in roster.members}) == 8
    for member in roster.services:
        assert member.order.environment["SEGUE_HEALTH_PORT"] == str(member.port)
        assert member.order.environment["SEGUE_NATS_URL"] == "nats://127.0.0.1:1"
        assert member.order.environment["SEGUE_SIMULATOR_URL"].startswith("http://127.0.0.1:8200/")
        assert member.order.environment["HOME"] == "/x"
    assert roster.gateway.order.environment["PORT"] == str(environment.port)
    assert {member.order.module for member in roster.services if member.name.startswith("executor")} == {
        "services.executor"
    }


def test_without_a_simulator_nobody_is_told_of_one(tmp_path: Path) -> None:
    roster = muster(Environment(data_dir=tmp_path), Options(), {}, "nats://127.0.0.1:1", simulated=False)
    assert roster.simulator == ()
    assert all("SEGUE_SIMULATOR_URL" not in member.order.environment for member in roster.members)


def test_copies_are_read() -> None:
    assert read_copies(["executor=3", "planner=2"]) == {"executor": 3, "planner": 2}


@pytest.mark.parametrize("wrong", ["executor", "executor=", "executor=0", "executor=65", "gateway=2", "=2", "x=1"])
def test_wrong_copies_are_refused_with_what_is_expected(wrong: str) -> None:
    with pytest.raises(ValueError, match="SERVICE=NUMBER"):
        read_copies([wrong])


def line(level: str, event: str = "call.retried", **more: object) -> bytes:
    return json.dumps({"time": "t", "level": level, "service": "executor", "event": event, **more}).encode() + b"\n"


def test_warnings_and_worse_are_shown() -> None:
    assert [worth_showing(line(level)) for level in ("debug", "info", "warning", "error", "critical")] == [
        False,
        False,
        True,
        True,
        True,
    ]
    assert not worth_showing(line("info", 'it said "error"'))
    assert not worth_showing(b'simulating "error"\n')
    assert not worth_showing(b'{"level": "error"')


def test_a_log_line_is_shown_as_a_person_reads_it() -> None:
    said = readable(line("warning", attempt=2, run_id="r1", reason="too slow", exception="Traceback …"))
    assert said == 'warning call.retried attempt=2 run_id=r1 reason="too slow"\nTraceback …'
    assert readable(b"Traceback (most recent call last):\n") == "Traceback (most recent call last):"
    assert readable(b"\xff[1, 2]\n") == "�[1, 2]"


def test_what_repeats_is_shown_once_in_a_while() -> None:
    repeats = Repeats()
    assert not repeats.known("executor", "no bus", 0.0)
    assert repeats.known("executor", "no bus", 1.0)
    assert not repeats.known("planner", "no bus", 1.0)
    assert not repeats.known("executor", "no bus", REPEATED_S + 0.1)


def test_a_log_file_is_begun_anew_before_it_is_too_large(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "logs" / "executor.log", most_bytes=100)
    for number in range(30):
        log.write(b"line %02d\n" % number)
    log.close()
    now, before = tmp_path / "logs" / "executor.log", tmp_path / "logs" / "executor.log.1"
    assert now.stat().st_size <= 100
    assert before.stat().st_size <= 100
    assert (before.read_text() + now.read_text()).endswith("".join(f"line {n:02d}\n" for n in range(18, 30)))
    again = LogFile(now, most_bytes=100)
    again.write(b"and on\n")
    assert again.tail(2) == ["line 29", "and on"]
    again.close()


def test_dotenv_stands_in_for_what_is_not_set(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# a comment\nPORT=8001\nexport SEGUE_HOST = 0.0.0.0 # all\nKEY='a # b'\nEMPTY=\n")
    assert read_dotenv(tmp_path / ".env", {"PORT": "9"}) == {"SEGUE_HOST": "0.0.0.0", "KEY": "a # b"}
    assert read_dotenv(tmp_path / "none", {}) == {}
    assert parse("not a setting\n=x\n") == {}
