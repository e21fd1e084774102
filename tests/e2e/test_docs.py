"""The examples of docs/workflows.md, sent to a running system."""

import json
import re
from typing import Any

import pytest

from tests.system import ROOT, System

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8")
EXAMPLES: list[dict[str, Any]] = [json.loads(found) for found in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]


async def test_there_is_an_example_for_every_feature() -> None:
    shown = json.dumps(EXAMPLES)
    for feature in (
        '"graph"', '"inline"', '"needs"', '"when"', '"for_each"', '"on_error"', '"timeout_s"', '"output_schema"',
        '"approve"', '"template"', '"workflow": [{"type": "inline"', '"expand"', '"addons"',
    ):  # fmt: skip
        assert feature in shown, feature


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
async def test_an_example_runs(system: System, number: int) -> None:
    """It is accepted, carried out and answered with every output that it names."""
    example = EXAMPLES[number]
    answer = await system.post("/workflow", example)
    assert answer.status_code == 200, answer.text
    outputs = {task["output_variable"] for queue in example["workflow"] for task in queue["tasks"]}
    skipped = {task["output_variable"] for queue in example["workflow"] for task in queue["tasks"] if "when" in task}
    assert outputs - skipped <= answer.json()["result"].keys()
