"""The API against its own description, by a tester that nobody here wrote: PyPI `schemathesis`."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.system import ROOT, System

PROGRAM = ROOT / ".schemathesis/bin/schemathesis"
SETTINGS = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 502, 503, 504]
"""
"""502-504 are documented answers: the provider failed, something is full, the caller's own deadline passed."""

pytestmark = [
    pytest.mark.skipif(
        not PROGRAM.exists(),
        reason="python -m venv .schemathesis && .schemathesis/bin/pip install schemathesis==4.32.5 is not done",
    ),
    pytest.mark.timeout(240),
]


def _soon_over(document: dict[str, Any]) -> None:
    """A workflow that waits for a person is answered when its time is over."""
    document["orchestration"]["defaultTimeoutSeconds"] = 10


async def test_nothing_that_is_not_documented_ever_comes_back(tmp_path: Path) -> None:
    """Every route, with what it takes and with what it does not: no server error, no undocumented status or body."""
    async with System(tmp_path / "system", configure=_soon_over) as system:
        await _tried(system, tmp_path)


async def _tried(system: System, tmp_path: Path) -> None:
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(SETTINGS)
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    command = [
        str(PROGRAM), "--config-file", str(settings), "run", f"{system.gateway.url}/openapi.json",
        "--checks", checks, "--continue-on-failure", "--max-examples", "6", "--max-time", "45", "--seed", "7",
        "--generation-deterministic", "--no-shrink", "--request-timeout", "60", "--warnings", "off",
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(), 200)
    assert process.returncode == 0, said.decode()[-6_000:]
