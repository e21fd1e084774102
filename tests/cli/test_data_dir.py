"""A data folder belongs to one Segue at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.data_dir import DataDirTaken, DataDirUnusable, held

HOLD = """
import sys
from pathlib import Path
from cli.data_dir import held
with held(Path(sys.argv[1])):
    print(flush=True)
    input()
"""


def test_a_second_one_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    """Also when the first one is killed: its hold ends with it."""
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout is not None
    assert first.stdout.readline() == b"\n"
    with pytest.raises(DataDirTaken, match=rf"process {first.pid}\).*SEGUE_DATA_DIR"), held(tmp_path):
        pass
    first.kill()
    first.wait()
    with held(tmp_path):
        assert (tmp_path / "up.lock").read_text() == str(os.getpid())


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirUnusable, match=r"file/data.*SEGUE_DATA_DIR"), held(tmp_path / "file" / "data"):
        pass
