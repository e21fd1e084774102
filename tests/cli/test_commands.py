"""The commands as a shell sees them: what they print where, and their exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from shared import version
from shared.bus.server import free_port
from tests.cli.gateway import Gateway

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "orchestration_config.json"


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CliRunner:
    """A shell in an empty folder, with nothing of Segue in its environment."""
    for name in list(os.environ):
        if name.startswith("SEGUE_") or name in {"PORT", "OPENROUTER_API_KEY"}:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return CliRunner()


def test_help_names_every_command(runner: CliRunner) -> None:
    done = runner.invoke(app, ["--help"])
    assert done.exit_code == 0
    for command in ("up", "ask", "chat", "check", "config", "simulate", "version"):
        assert f" {command} " in done.output


@pytest.mark.parametrize("command", ["up", "ask", "chat", "check", "config", "simulate", "version"])
def test_every_command_explains_itself(runner: CliRunner, command: str) -> None:
    done = runner.invoke(app, [command, "--help"])
    assert done.exit_code == 0
    assert "Usage:" in done.output


def test_help_imports_nothing_heavy() -> None:
    """What makes a command slow is imported by that command."""
    code = (
        "import sys; from cli.main import app; app(['--help'], standalone_mode=False); "
        "heavy = {'nats', 'httpx', 'pydantic', 'fastapi', 'faststream', 'uvicorn', 'asyncio', 'aiohttp'}; "
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_version(runner: CliRunner) -> None:
    done = runner.invoke(app, ["version"])
    assert (done.exit_code, done.output) == (0, f"{version()}\n")


def test_an_answer_is_all_that_a_pipe_gets(runner: CliRunner, url: str) -> None:
    done = runner.invoke(app, ["ask", "--url", url, "hello"])
    assert (done.exit_code, done.stdout, done.stderr) == (0, "[simulated] hello \n", "")


def test_a_question_can_come_from_a_pipe(runner: CliRunner, url: str) -> None:
    done = runner.invoke(app, ["ask", "--url", url, "-"], input="from a pipe")
    assert done.stdout == "[simulated] from a pipe \n"


def test_what_is_asked_for_is_sent(runner: CliRunner, url: str, gateway: Gateway) -> None:
    done = runner.invoke(
        app,
        ["ask", "--url", url, "--json", "--session", "s7", "--context-tokens", "9", "--priority", "low", "hello"],
    )
    assert json.loads(done.stdout)["session_id"] == "s7"
    assert gateway.asked == [
        {"path": "/chat", "message": "hello", "session_id": "s7", "context_tokens": 9, "priority": "low"}
    ]


def test_a_failed_request_is_exit_code_one_with_its_detail(runner: CliRunner, url: str, gateway: Gateway) -> None:
    gateway.detail = "no model is awake"
    done = runner.invoke(app, ["ask", "--url", url, "hello"])
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", "no model is awake\nrun r1\n")


@pytest.mark.parametrize("command", [["ask", "hello"], ["chat"], ["check"]])
def test_nobody_there_is_exit_code_three_with_how_to_start(runner: CliRunner, command: list[str]) -> None:
    done = runner.invoke(app, [*command, "--url", f"http://127.0.0.1:{free_port()}"])
    assert (done.exit_code, done.stdout) == (3, "" if command != ["check"] else done.stdout)
    assert "start one with ./start.sh (or `segue up`)" in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        ["ask"],
        ["ask", "hello", "--priority", "urgent"],
        ["ask", "hello", "--context-tokens", "many"],
        ["ask", "hello", "--url", "ftp://here"],
        ["check", "--mode", "everything"],
        ["up", "--port", "0"],
        ["up", "--service-copies", "gateway=2"],
        ["simulate", "--profile", "warp"],
        ["nothing"],
    ],
)
def test_wrong_usage_is_exit_code_two(runner: CliRunner, wrong: list[str]) -> None:
    assert runner.invoke(app, wrong).exit_code == 2


def test_the_port_of_dotenv_is_where_the_gateway_is(runner: CliRunner, url: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"PORT={url.rpartition(':')[2]}\n")
    assert runner.invoke(app, ["ask", "hello"]).exit_code == 0


def test_an_address_needs_no_scheme(runner: CliRunner, url: str) -> None:
    assert runner.invoke(app, ["ask", "--url", url.removeprefix("http://"), "hello"]).exit_code == 0


def test_check_passes_and_fails_by_exit_code(runner: CliRunner, url: str, gateway: Gateway) -> None:
    done = runner.invoke(app, ["check", "--url", url, "--mode", "basic"])
    assert done.exit_code == 0
    assert "all 8 passed" in done.output
    gateway.broken = lambda method, path, body: {**body, "status": "poorly"} if path == "/health" else body
    done = runner.invoke(app, ["check", "--url", url])
    assert done.exit_code == 1
    assert "1 of 18 failed" in done.output


def test_without_a_terminal_the_chat_mode_checks_itself(runner: CliRunner, url: str) -> None:
    done = runner.invoke(app, ["check", "--url", url, "--mode", "chat"])
    assert done.exit_code == 0
    assert "all 2 passed" in done.output


def test_chat_takes_its_questions_from_a_pipe(runner: CliRunner, url: str) -> None:
    done = runner.invoke(app, ["chat", "--url", url], input="hello\nstats\nexit\nnot this\n")
    assert done.exit_code == 0
    assert done.stdout.startswith("[simulated] hello \nactive_sessions\t1\n")
    assert "not this" not in done.stdout


def test_the_shipped_configuration_is_valid(runner: CliRunner) -> None:
    done = runner.invoke(app, ["config", "check", str(SHIPPED)])
    assert done.exit_code == 0
    assert "valid; 13 roles, 50 addons, 3 templates" in done.output


def test_every_problem_of_a_configuration_is_named(runner: CliRunner, tmp_path: Path) -> None:
    """Path, value, what is expected: two mistakes, two lines, exit code 1."""
    document = json.loads(SHIPPED.read_text())
    document["queuing"]["maxQueueDepth"] = "many"
    document["orchestration"]["defaultTimeoutSeconds"] = -1
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(document))
    done = runner.invoke(app, ["config", "check", str(wrong)])
    assert done.exit_code == 1
    assert "2 problems" in done.stderr
    assert '$.queuing.maxQueueDepth: found "many"; expected' in done.stderr
    assert "$.orchestration.defaultTimeoutSeconds: found -1; expected" in done.stderr


def test_warnings_of_a_configuration_are_shown(runner: CliRunner, tmp_path: Path) -> None:
    document = json.loads(SHIPPED.read_text())
    document["api_keys"] = {"openrouter": "sk-or-v1-0123456789abcdef"}
    file = tmp_path / "keys.json"
    file.write_text(json.dumps(document))
    done = runner.invoke(app, ["config", "check", str(file)])
    assert done.exit_code == 0
    assert "warning: $.api_keys.openrouter" in done.output
    assert "0123456789abcdef" not in done.output


def test_a_configuration_that_is_not_there_is_said(runner: CliRunner, tmp_path: Path) -> None:
    done = runner.invoke(app, ["config", "check", str(tmp_path / "none.json")])
    assert done.exit_code == 1
    assert "no such file" in done.stderr


def test_the_simulator_says_where_it_is_and_stops() -> None:
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "cli", "simulate", "--port", str(port), "--profile", "zero"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == (
            f"simulating OpenRouter at http://127.0.0.1:{port}/api/v1 (profile zero, seed 1)\n"
        )
        process.terminate()
        assert process.wait(60) == 0
