"""A workflow looked at before it runs: by this system's own figures, once there are some."""

from pathlib import Path

import pytest

from tests.system import System


async def test_a_workflow_and_a_template_are_looked_at_before_they_run(tmp_path: Path) -> None:
    """The critical path and what it takes, without a run; after some calls the figures are this system's own."""
    async with System(tmp_path) as system:
        tasks = [
            {"model": "fast_ai", "prompt": "Say a", "output_variable": "a"},
            {"model": "medium_ai", "prompt": "Say b of {a}", "output_variable": "b"},
            {"model": "fast_ai", "prompt": "Say c", "output_variable": "c"},
        ]
        document = {"workflow": [{"type": "graph", "tasks": tasks}]}
        before = len(await system.ledger())
        seen = (await system.post("/plan", document)).json()
        assert seen["run_id"] is None
        assert seen["estimate"]["critical_path"] == ["a", "b"]
        assert seen["estimate"]["calls"] == 3
        assert seen["estimate"]["cost_usd"] > 0
        assert seen["workflow"] == document["workflow"]
        assert len(await system.ledger()) == before, "nobody was asked"
        for _ in range(5):
            sent = await system.post("/workflow", {"workflow": seen["workflow"], "variables": seen["variables"]})
            assert sent.status_code == 200
        await system.http.get(f"{system.gateway.url}/runs")
        measured = (await system.post("/plan", document)).json()["estimate"]
        assert measured["basis"] == "measured"
        one = (await system.post("/workflow", document)).json()
        assert measured["cost_usd"] == pytest.approx(one["cost_usd"], rel=0.5)
        template = (await system.post("/plan", {"template": "research_report", "variables": {"topic": "bees"}})).json()
        assert template["estimate"]["critical_path"][-2:] == ["report", "completion_message"]
        for wrong, code in (
            ({}, "one_of"),
            ({"message": "x", **document}, "one_of"),
            ({"template": "research_report"}, "bad_variable"),
            ({"workflow": [{"type": "graph", "tasks": [{"model": "x", "prompt": "y"}]}]}, "unknown_model"),
            ({"workflow": {}}, "list_type"),
        ):
            answer = await system.post("/plan", wrong)
            assert (answer.status_code, answer.json()["detail"][0]["code"]) == (422, code)
