"""The tool that has processes stand still: what it runs ends as it would have, and nobody is left standing."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.system import ROOT

WORK = "import subprocess, sys; one = subprocess.Popen(['sleep', '1']); sys.exit(one.wait() or 7)"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc here")
def test_a_command_ends_as_it_would_have() -> None:
    tool = str(ROOT / "tools" / "stand_still.py")
    often = ["--mean", "0.05", "--gap", "0.05", "--seed", "1"]
    command = [sys.executable, tool, *often, "--", "sh", "-c", f'"$0" -c "{WORK}"; exit $?', sys.executable]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 7, ended.stderr
    times, _, rest = ended.stderr.partition(" ")
    assert int(times) >= 1, rest
