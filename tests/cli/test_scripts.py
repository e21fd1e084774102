"""What start.sh, test.sh and check.sh do before their work: an environment from a hashed lock, once.

Python itself is played by a script, so that nothing is really installed: what it was asked for is in its log.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None, reason="no bash")

PYTHON = """#!/usr/bin/env bash
echo "$@" >>"$LOG"
case "$1 $2" in
  "--version ") echo "Python ${FAKE_VERSION:-3.12.1}" ;;
  "-c "*) [[ -z ${OLD:-} ]] && [[ $2 != *", pip;"* || -e $(dirname "$0")/pip ]] ;;
  "-m venv") mkdir -p "$4/bin" && cp "$0" "$4/bin/python" && touch "$4/bin/pip" ;;
  "-m pip") [[ -z ${FAIL:-} ]] ;;
  "-m compileall") ;;
  "-m cli") echo "started: $*" ;;
  "-m pytest") echo "tested: $*" ;;
  *) exit 9 ;;
esac
"""


class Checkout:
    """A copy of what the scripts need, with a Python that only writes down what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "a checkout"
        (self.folder / "tools").mkdir(parents=True)
        for name in ("start.sh", "test.sh", "tools/environment.sh"):
            shutil.copy(ROOT / name, self.folder / name)
        for name in ("requirements.lock", "requirements-dev.lock", "pyproject.toml"):
            (self.folder / name).write_text(name)
        self.python = folder / "python"
        self.python.write_text(PYTHON)
        self.python.chmod(0o755)
        self.log = folder / "log"
        self.log.write_text("")

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a script with an empty HOME and without a terminal."""
        assert BASH is not None
        given = {"PATH": os.environ["PATH"], "SEGUE_PYTHON": str(self.python), "LOG": str(self.log), **environment}
        return subprocess.run(
            [BASH, str(self.folder / script), *arguments],
            env=given,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )

    def ran(self) -> list[str]:
        """Return the modules that Python was asked to run, with their arguments."""
        return [line for line in self.log.read_text().splitlines() if line.startswith("-m")]

    def installs(self) -> list[str]:
        """Return what was installed since the last time that this was asked."""
        lines = [
            line.partition("--no-input ")[2] for line in self.log.read_text().splitlines() if "pip install" in line
        ]
        self.log.write_text("")
        return lines


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_first_start_installs_from_the_hashed_lock(checkout: Checkout) -> None:
    done = checkout.run("start.sh", "--port", "8001")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "started: -m cli up --port 8001\n"
    assert "Making a virtual environment in .venv" in done.stderr
    lock, project = checkout.installs()
    assert lock == f"--require-hashes -r {checkout.folder}/requirements.lock"
    assert project == f"--no-deps --no-build-isolation -e {checkout.folder}"


def test_the_second_start_does_nothing_first(checkout: Checkout) -> None:
    checkout.run("start.sh")
    checkout.installs()
    done = checkout.run("start.sh")
    assert (done.returncode, done.stderr) == (0, "")
    assert checkout.ran() == ["-m cli up"]


@pytest.mark.parametrize("changed", ["requirements.lock", "pyproject.toml"])
def test_a_changed_lock_or_project_is_installed(checkout: Checkout, changed: str) -> None:
    checkout.run("start.sh")
    checkout.installs()
    (checkout.folder / changed).write_text("changed")
    checkout.run("start.sh")
    assert len(checkout.installs()) == 2


def test_another_python_is_noticed(checkout: Checkout) -> None:
    checkout.run("start.sh")
    checkout.installs()
    checkout.run("start.sh", FAKE_VERSION="3.13.0")
    assert len(checkout.installs()) == 2


def test_what_has_the_test_tools_has_everything_else(checkout: Checkout) -> None:
    done = checkout.run("test.sh", "-k", "one thing")
    assert done.stdout.startswith("tested: -m pytest -n ")
    assert done.stdout.endswith("-k one thing\n")
    assert checkout.installs()[0].endswith("requirements-dev.lock")
    checkout.run("start.sh")
    assert checkout.installs() == []


def test_a_failed_installation_is_said_and_tried_again(checkout: Checkout) -> None:
    done = checkout.run("start.sh", FAIL="1")
    assert done.returncode == 1
    assert "pip could not install it" in done.stderr
    assert done.stdout == ""
    checkout.installs()
    assert checkout.run("start.sh").returncode == 0
    assert len(checkout.installs()) == 2


def test_an_environment_that_was_not_finished_is_made_anew(checkout: Checkout) -> None:
    checkout.run("start.sh", FAIL="1")
    (checkout.folder / ".venv/bin/pip").unlink()
    done = checkout.run("start.sh")
    assert "Making a virtual environment" in done.stderr
    assert done.returncode == 0


def test_the_environment_can_lie_elsewhere(checkout: Checkout, tmp_path: Path) -> None:
    checkout.run("start.sh", SEGUE_VENV=str(tmp_path / "elsewhere"))
    assert (tmp_path / "elsewhere/bin/python").exists()
    assert not (checkout.folder / ".venv").exists()


def test_a_python_that_is_too_old_is_named_with_what_to_do(checkout: Checkout, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "dirname", "basename", "cat", "cmp", "tail", "env", "getconf"):
        found = shutil.which(tool)
        assert found is not None
        (tools / tool).symlink_to(found)
    done = checkout.run("start.sh", OLD="1", FAKE_VERSION="3.9.2", PATH=str(tools))
    assert done.returncode == 1
    assert "Segue needs Python 3.11 or newer" in done.stderr
    assert "Python 3.9.2" in done.stderr
    assert "SEGUE_PYTHON=" in done.stderr


@pytest.mark.parametrize("script", ["start.sh", "test.sh", "check.sh", ".ci/run"])
def test_a_script_can_be_run(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
