"""`segue runs` against a running system."""

import asyncio
import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from tests.system import System

pytestmark = pytest.mark.asyncio(loop_scope="module")

TWO: dict[str, Any] = {
    "workflow": [
        {
            "type": "graph",
            "tasks": [
                {"model": "medium_ai", "prompt": "one {x}", "output_variable": "a"},
                {"model": "medium_ai", "prompt": "two {a}", "output_variable": "b"},
            ],
        }
    ],
    "variables": {"x": "boat"},
}


async def said(system: System, *arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, ["runs", *arguments, "--url", system.gateway.url])


async def test_a_run_is_shown_watched_and_forked(system: System) -> None:
    """Everything that a person needs of a run: its tree, its times, its graph, an output; then another from it."""
    run_id = (await system.post("/workflow", TWO)).json()["run_id"]
    shown = await said(system, "show", run_id)
    assert shown.exit_code == 0, shown.output
    assert "completed" in shown.output
    assert "✓ a" in shown.output
    watched = await said(system, "watch", run_id)
    assert watched.exit_code == 0
    assert "done" in watched.output
    assert "task.0-1" in (await said(system, "timeline", run_id)).output
    assert (await said(system, "graph", run_id)).output.startswith("flowchart TD")
    assert "simulated" in (await said(system, "output", run_id, "b")).output
    fork = await said(system, "fork", run_id, "--prompt", "b=three {a}")
    assert fork.exit_code == 0, fork.output
    child = fork.output.strip()
    watched = await said(system, "watch", child)
    assert watched.exit_code == 0, watched.output
    seen = json.loads((await said(system, "show", child, "--json")).output)
    assert (seen["parent"], seen["ledger"]["reused"]) == (run_id, 1)


async def test_what_does_not_fit_is_said(system: System) -> None:
    run_id = (await system.post("/workflow", TWO)).json()["run_id"]
    for verb in ("cancel", "pause", "resume", "approve", "reject", "retry"):
        refused = await said(system, verb, run_id)
        assert refused.exit_code == 1, (verb, refused.output)
    missing = await said(system, "show", "nobody")
    assert missing.exit_code == 1
    wrong = await said(system, "fork", run_id, "--prompt", "no equals sign")
    assert wrong.exit_code == 2
