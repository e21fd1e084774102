"""The AsyncAPI document: it is what the contracts say, a validator takes it, and it has everything."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shared import subjects
from shared.contracts.facts import FACTS
from shared.contracts.ids import Purpose
from shared.outside import FEEDS, SERVICES

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "reference" / "asyncapi.json"
PARSER = ROOT / ".npm/node_modules/@asyncapi/parser/cjs/index.js"
installed = pytest.mark.skipif(
    not PARSER.exists() or shutil.which("node") is None,
    reason="npm install --prefix .npm --ignore-scripts @asyncapi/parser@3.6.6 is not done, or there is no node",
)


def problems(path: Path) -> list[str]:
    """Return what the validator says."""
    command = ["node", str(ROOT / "tests" / "asyncapi.mjs"), str(PARSER), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DOCUMENT.read_text())
    return found


def test_the_committed_document_is_that_of_the_contracts() -> None:
    check = [sys.executable, str(ROOT / "tools" / "generate_asyncapi.py"), "--check"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@installed
def test_a_validator_takes_it(tmp_path: Path) -> None:
    """And would not take one that is wrong."""
    assert problems(DOCUMENT) == [f"operations {len(document()['operations'])}"]
    broken = document()
    broken["operations"]["chat"]["channel"]["$ref"] = "#/channels/nowhere"
    (tmp_path / "broken.json").write_text(json.dumps(broken))
    assert len(problems(tmp_path / "broken.json")) > 1


def test_everything_that_can_be_asked_and_heard_is_in_it() -> None:
    addresses = {channel["address"] for channel in document()["channels"].values()}
    shapes = {tuple("*" if token.startswith("{") else token for token in one.split(".")) for one in addresses if one}
    for service in SERVICES:
        assert tuple(service.there.split(".")) in shapes
    for feed in FEEDS:
        stem = tuple(token for token in feed.there.split(".") if token not in "*>")
        assert any(shape[: len(stem)] == stem for shape in shapes)
    for service in (one for one in SERVICES if not one.of_executors):
        refused = document()["operations"][service.name]["reply"]["messages"][-1]["$ref"]
        assert refused.endswith("/Refused")


def test_every_fact_of_a_run_is_in_it() -> None:
    """The names that the log's subjects are built from, and no others."""
    facts = subjects.events("t", "r")
    built = [
        facts.accepted, facts.category, facts.plan, facts.ended, facts.deleted, facts.expanded("T"), facts.asked("T"),
        facts.approval("T"), facts.hold(1), facts.callback(1), facts.late(Purpose.TASK, "C"),
        facts.attempt(Purpose.TASK, "C", 1), facts.job(Purpose.TASK, "C", 1), facts.settled(Purpose.TASK, "C"),
        facts.reconciled(Purpose.TASK, "C", 1),
    ]  # fmt: skip
    values = {"{task}": "T", "{number}": "1", "{attempt}": "1", "{purpose}": "task", "{call}": "C"}
    named = {".".join(values.get(token, token) for token in fact.split(".")) for fact in FACTS}
    assert {subjects.fact_of(one) for one in built} == named
    channels = document()["channels"].values()
    heard = {one["address"].removeprefix("segue.live.{run_id}.") for one in channels if one["address"]}
    assert set(FACTS) <= heard
