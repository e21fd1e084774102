"""A workflow looked at before it runs: by this system's own figures, once there are some."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.system import System, eventually

H = {"kind": "wrong_letter", "text": "H"}
"""The categorizer's model says that this is to be orchestrated."""


def answered(plan: dict[str, Any]) -> dict[str, Any]:
    """A fault of the simulator: it answers with this plan."""
    return {"fault": {"kind": "answer", "text": json.dumps(plan)}, "match": {"answers": "plan"}}


async def test_a_planned_step_reads_the_whole_request_and_is_the_answer(tmp_path: Path) -> None:
    """The plan copies nothing of it. A plan of one step needs nobody who puts results together."""
    message = f"List the trees. {'Lime, Oak, ' * 300} and the last tree is Yew {{x}}"
    async with System(tmp_path) as system:
        await system.faults(
            {"fault": H, "match": {"answers": "letter"}},
            answered(
                {"step_1": {"name": "list", "needs": ["request"], "model": "fast_ai", "prompt": "List", "addons": []}}
            ),
            {
                "fault": {"kind": "answer", "text": "Lime, Oak"},
                "match": {"contains": f"List\n\n<request>\n{message}\n</request>"},
            },
        )
        body = await system.chat(message)
        facts = await system.facts(body["run_id"])
        assert (body["category"], body["response"], body["result"]) == ("H", "Lime, Oak", {"list": "Lime, Oak"})
        assert facts["plan"]["workflow"]["variables"] == {"request": message}
        assert "call.decision.final.settled" not in facts
        assert facts["ended"]["role"] == "fast_ai"


async def test_a_planned_step_reads_what_was_said_before(tmp_path: Path) -> None:
    async with System(tmp_path) as system:
        first = await system.chat("My tree is a rowan.")
        step = {"name": "text", "needs": ["conversation"], "model": "fast_ai", "prompt": "Go on", "addons": []}
        await system.faults(
            {"fault": H, "match": {"answers": "letter"}},
            answered({"step_1": step}),
            {"fault": {"kind": "answer", "text": "Rowans!"}, "match": {"contains": "User: My tree is a rowan."}},
        )
        body = await system.chat("Now write about it.", session_id=first["session_id"])
        assert (body["category"], body["response"]) == ("H", "Rowans!")


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
        measured: dict[str, Any] = {}

        async def known() -> bool:
            await system.http.get(f"{system.gateway.url}/runs")  # this has the history taken in
            measured.update((await system.post("/plan", document)).json()["estimate"])
            return bool(measured["basis"] == "measured")

        await eventually(known)
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
