"""`segue plan`, `runs ls`, `usage`, `templates` and `schedules` against a running system."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from tests.system import System, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

LETTER = {
    "description": "A letter.",
    "workflow": [
        {"type": "inline", "tasks": [{"model": "fast_ai", "prompt": "A letter to {who}", "output_variable": "letter"}]}
    ],
}


async def said(system: System, *arguments: str, given: str | None = None) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--url", system.gateway.url], input=given)


async def test_templates_from_the_command_line(system: System, tmp_path: Path) -> None:
    """Written from a file, shown, changed through a pipe, run, listed, gone."""
    file = tmp_path / "letter.json"
    file.write_text(json.dumps(LETTER))
    written = await said(system, "templates", "put", "letter", str(file))
    assert (written.exit_code, "version 1" in written.output) == (0, True), written.output
    shown = await said(system, "templates", "show", "letter")
    assert json.loads(shown.output)["variables"] == {"who": {}}
    changed = shown.output.replace("A letter to", "A poem for")
    assert (
        "version 2"
        in (await said(system, "templates", "put", "letter", "-", "--if-version", "1", given=changed)).output
    )
    stale = await said(system, "templates", "put", "letter", "-", "--if-version", "1", given=changed)
    assert (stale.exit_code, "version 2" in stale.output) == (1, True)
    ran = await said(system, "templates", "run", "letter", "-v", "who=Ada")
    assert (ran.exit_code, "simulated" in ran.output.lower()) == (0, True), ran.output
    listed = (await said(system, "templates", "ls")).output
    assert "letter" in listed
    assert "research_report" in listed
    assert "poem" not in (await said(system, "templates", "show", "letter", "--version", "1")).output
    assert (await said(system, "templates", "rm", "letter")).exit_code == 0
    missing = await said(system, "templates", "show", "letter")
    assert (missing.exit_code, "known:" in missing.output) == (1, True)
    broken = await said(system, "templates", "put", "letter", "-", given="{")
    assert (broken.exit_code, "no JSON" in broken.output) == (2, True)


async def test_schedules_from_the_command_line(system: System) -> None:
    made = await said(system, "schedules", "put", "daily", "research_report", "--cron", "@daily", "-v", "topic=bees")
    assert made.exit_code == 0, made.output
    assert json.loads((await said(system, "schedules", "show", "daily")).output)["variables"] == {"topic": "bees"}
    assert "@daily" in (await said(system, "schedules", "ls")).output
    assert (await said(system, "schedules", "pause", "daily")).exit_code == 0
    assert "paused" in (await said(system, "schedules", "ls")).output
    assert (await said(system, "schedules", "resume", "daily")).exit_code == 0
    wrong = await said(system, "schedules", "put", "daily", "research_report", "--every", "soon", "-v", "topic=x")
    assert (wrong.exit_code, "90s" in wrong.output) == (1, True)
    assert (await said(system, "schedules", "rm", "daily")).exit_code == 0
    assert (await said(system, "schedules", "rm", "daily")).exit_code == 1


async def test_a_plan_from_the_command_line(system: System, tmp_path: Path) -> None:
    """Drawn with its critical path; as JSON it can be run; a workflow of one's own and a template too."""
    drawn = await said(system, "plan", "Research kites, then write three posts and an e-mail about them.")
    assert drawn.exit_code == 0, drawn.output
    assert "the chain that takes longest" in drawn.output
    assert "USD" in drawn.output
    found = json.loads((await said(system, "plan", "Research kites, then write three posts.", "--json")).output)
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({"workflow": found["workflow"], "variables": found["variables"]}))
    assert (await said(system, "plan", "-w", str(file))).exit_code == 0
    assert (await said(system, "plan", "-t", "research_report", "-v", "topic=bees")).exit_code == 0
    neither = await said(system, "plan")
    assert (neither.exit_code, "one of" in neither.output) == (1, True)


async def test_runs_and_sums_are_listed(system: System) -> None:
    await system.chat("Where do kites come from?")
    find = ("runs", "ls", "--find", "kites come", "--since", "1h")

    async def there() -> bool:
        return "completed" in (await said(system, *find)).output

    await eventually(there)
    listed = await said(system, *find)
    assert listed.exit_code == 0, listed.output
    (line,) = listed.output.splitlines()
    run_id, state, *_, title = line.split("\t")
    assert (state, title) == ("completed", "Where do kites come from?")
    assert "completed" in (await said(system, "runs", "show", run_id)).output
    assert json.loads((await said(system, "runs", "ls", "-n", "1", "--json")).output)[0]["run_id"]
    assert "no runs" in (await said(system, "runs", "ls", "--state", "denied")).output
    assert (await said(system, "runs", "ls", "--since", "yesterday")).exit_code == 2
    summed = await said(system, "usage", "--by", "role", "--since", "7d")
    assert (summed.exit_code, "total" in summed.output) == (0, True), summed.output

    async def all_counted() -> bool:
        whole = json.loads((await said(system, "usage", "--json")).output)
        return bool(whole["total"]["calls"] == len(await system.ledger()))

    await eventually(all_counted)
