"""The generated reference does not drift from the models."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools import generate_config_reference as generator

ROOT = Path(__file__).resolve().parents[2]


def test_the_committed_files_are_what_the_generator_writes() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/generate_config_reference.py"), "--check"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["SCHEMA", "PAGE"])
def test_drift_is_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = tmp_path / "drifted"
    changed.write_text(getattr(generator, name).read_text(encoding="utf-8") + " ", encoding="utf-8")
    monkeypatch.setattr(generator, name, changed)
    monkeypatch.setattr(generator, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["generate", "--check"])
    assert generator.main() == 1


def test_every_key_has_a_meaning() -> None:
    rows = [line for line in generator.PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    assert [row for row in rows if row.endswith("|  |")] == []
