"""Looking at runs and steering them over HTTP."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.system import System, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


def workflow(*tasks: dict[str, Any]) -> dict[str, Any]:
    return {"workflow": [{"type": "graph", "tasks": [{"model": "medium_ai", **task} for task in tasks]}]}


async def look(system: System, run_id: str, what: str = "") -> httpx.Response:
    return await system.http.get(f"{system.gateway.url}/runs/{run_id}{what}")


async def begun(system: System, body: dict[str, Any], key: str) -> tuple[str, "asyncio.Task[httpx.Response]"]:
    """Send a workflow, and return its run as soon as it can be looked at."""
    from shared.contracts.ids import run_id_of_key

    run_id = run_id_of_key("default", key)
    asked = asyncio.create_task(system.post("/workflow", body, **{"Idempotency-Key": key}))

    async def there() -> bool:
        return (await look(system, run_id)).status_code == 200

    await eventually(there)
    return run_id, asked


async def test_a_run_that_is_over_shows_its_tasks_and_what_they_cost(system: System) -> None:
    answer = (
        await system.post("/workflow", workflow({"prompt": "one", "output_variable": "a"}, {"prompt": "{a}"}))
    ).json()
    seen = (await look(system, answer["run_id"])).json()
    assert (seen["state"], seen["waits_for"], seen["kind"], seen["plan"]) == ("completed", None, "workflow", "request")
    assert [(task["output"], task["state"], task["after"]) for task in seen["tasks"]] == [
        ("a", "done", []),
        ("task_1_2", "done", ["a"]),
    ]
    assert seen["tasks"][0]["attempts"][0]["outcome"] == "answered"
    assert seen["ledger"]["cost_usd"] == pytest.approx(answer["cost_usd"])
    assert sum(task["cost_usd"] for task in seen["tasks"]) == pytest.approx(answer["cost_usd"])
    output = await system.http.get(system.gateway.url + seen["tasks"][0]["output_href"])
    assert output.text == answer["result"]["a"]
    spans = (await look(system, answer["run_id"], "/timeline")).json()["spans"]
    assert [span["name"] for span in spans] == ["task.0-0", "task.0-1"]
    assert spans[0]["to_s"] <= spans[1]["from_s"]
    chart = (await look(system, answer["run_id"], "/graph")).text
    assert chart.startswith("flowchart TD")
    assert "t0x0 --> t0x1" in chart


async def test_a_skipped_task_is_seen_as_skipped(system: System) -> None:
    body = workflow(
        {"prompt": "one", "output_variable": "a", "when": "go"}, {"prompt": "two {a}", "output_variable": "b"}
    )
    answer = await system.post("/workflow", {**body, "variables": {"go": False}})
    seen = (await look(system, answer.json()["run_id"])).json()
    assert [task["state"] for task in seen["tasks"]] == ["skipped", "done"]
    assert "a" not in answer.json()["result"]


async def test_a_chat_shows_its_calls(system: System) -> None:
    answer = await system.chat("What is the capital of Spain?")
    seen = (await look(system, answer["run_id"])).json()
    assert (seen["state"], seen["category"], seen["tasks"]) == ("completed", "M", [])
    assert [call["name"] for call in seen["calls"]] == ["answer.answer", "decision.categorize"]
    assert (await look(system, answer["run_id"], "/graph")).status_code == 404


async def test_what_is_not_there_is_not_found(system: System) -> None:
    for path in ("/nobody", "/nobody/timeline", "/nobody/graph", "/nobody/outputs/a", "/a.b", "/*"):
        assert (await look(system, path[1:])).status_code == 404
    assert (await system.post("/runs/nobody/cancel", {})).status_code == 404


async def test_an_approval_is_seen_and_given(system: System) -> None:
    body = workflow({"prompt": "send", "output_variable": "sent", "approve": "Send it?"})
    run_id, asked = await begun(system, body, "approval")

    async def waits() -> bool:
        return bool((await look(system, run_id)).json()["state"] == "awaiting_approval")

    await eventually(waits)
    seen = (await look(system, run_id)).json()
    assert seen["waits_for"] == "a person's word about 'sent'"
    assert seen["waits_until"] == seen["deadline_at"]
    assert seen["tasks"][0]["question"] == "Send it?"
    assert (await system.post(f"/runs/{run_id}/approve", {"task": "other"})).status_code == 409
    given = await system.post(f"/runs/{run_id}/approve", {"task": "sent"})
    assert given.status_code == 200, given.text
    assert (await asked).status_code == 200
    late = await system.post(f"/runs/{run_id}/approve", {})
    assert late.status_code == 409
    assert "has ended" in late.json()["detail"]


async def test_paused_resumed_cancelled(system: System) -> None:
    fault = {"kind": "delay", "delay_s": 60}  # it is dropped when the run is cancelled
    await system.faults({"match": {"contains": "slow one"}, "times": 1, "fault": fault})
    body = workflow({"prompt": "slow one", "output_variable": "a"}, {"prompt": "{a}", "approve": True})
    run_id, asked = await begun(system, body, "pausing")

    async def runs() -> bool:
        return bool((await look(system, run_id)).json()["waits_for"] == "the model call '0-0'")

    await eventually(runs)
    paused = await system.http.post(f"{system.gateway.url}/runs/{run_id}/pause")
    assert (paused.status_code, paused.json()["state"]) == (200, "paused")
    assert paused.json()["waits_for"] == "somebody to resume it"
    resumed = await system.post(f"/runs/{run_id}/resume", {"reason": "lunch is over"})
    assert (resumed.status_code, resumed.json()["state"]) == (200, "running")
    cancelled = await system.post(f"/runs/{run_id}/cancel", {"reason": "no more"})
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    answer = await asked
    assert answer.status_code == 409
    assert "no more" in answer.json()["detail"]


async def test_retried_and_forked(system: System) -> None:
    broken = {"kind": "status", "status": 400}
    await system.faults({"match": {"contains": "fragile"}, "times": "forever", "fault": broken})
    body = workflow({"prompt": "solid", "output_variable": "a"}, {"prompt": "fragile {a}", "output_variable": "b"})
    failed = await system.post("/workflow", body)
    assert failed.status_code == 502
    parent = failed.json()["run_id"]
    seen = (await look(system, parent)).json()
    assert seen["failure"]["kept"] == ["a"]
    await system.http.delete(f"{system.simulator.url}/__sim/faults")
    retried = await system.post(f"/runs/{parent}/retry", {})
    assert retried.status_code == 200, retried.text
    child = (await look(system, retried.json()["run_id"])).json()
    assert (child["parent"], child["lineage"], child["ledger"]["reused"]) == (parent, "retry", 1)
    assert child["ledger"]["saved_usd"] > 0
    assert (await system.post(f"/runs/{child['run_id']}/retry", {})).status_code == 409
    edits = {"edits": {"b": {"prompt": "other {a}"}}}
    forked = await system.http.post(f"{system.gateway.url}/runs/{child['run_id']}/fork?wait=false", json=edits)
    assert forked.status_code == 202
    run_id = forked.json()["run_id"]

    async def over() -> bool:
        found = await look(system, run_id)
        return found.status_code == 200 and bool(found.json()["state"] == "completed")

    await eventually(over)
    assert (await look(system, run_id, "/outputs/b")).text != retried.json()["result"]["b"]
    wrong = await system.post(f"/runs/{parent}/fork", {"start_at": ["nothing"]})
    assert wrong.status_code == 422
    assert "nothing" in wrong.text


async def test_a_plan_can_be_had_edited_and_sent(system: System) -> None:
    """Planning asks for no task; the workflow that comes back runs as it is, and with another prompt."""
    message = "Research kites, then write three posts and an e-mail, then evaluate all of it in a report."
    planned = await system.post("/plan", {"message": message})
    assert planned.status_code == 200, planned.text
    body = planned.json()
    assert body["mermaid"].startswith("flowchart TD")
    seen = (await look(system, body["run_id"])).json()
    assert (seen["state"], seen["plan"]) == ("completed", "model")
    assert [call["name"] for call in seen["calls"]] == ["decision.plan-0"]
    assert not any(task["attempts"] for task in seen["tasks"])
    body["workflow"][0]["tasks"][0]["prompt"] = "Say something about kites"
    sent = await system.post("/workflow", {"workflow": body["workflow"], "variables": body["variables"]})
    assert sent.status_code == 200, sent.text
    assert (await system.post("/plan", {"message": " "})).status_code == 422


async def test_a_failed_chat_is_retried_as_a_new_run(system: System) -> None:
    broken = {"kind": "status", "status": 400}
    await system.faults({"match": {"answers": "prose"}, "times": "forever", "fault": broken})
    failed = await system.post("/chat", {"message": "What is the capital of Peru?"})
    assert failed.status_code == 502, failed.text
    await system.http.delete(f"{system.simulator.url}/__sim/faults")
    again = await system.post(f"/runs/{failed.json()['run_id']}/retry", {})
    assert again.status_code == 200, again.text
    assert again.json()["response"]
    seen = (await look(system, again.json()["run_id"])).json()
    assert seen["parent"] == failed.json()["run_id"]
    assert [call["name"] for call in seen["calls"]] == ["answer.answer"]  # its category was taken over
    assert seen["category"] == "M"


async def test_a_result_that_is_too_large_is_named_and_can_be_read(system: System) -> None:
    """Ten outputs of 1 MB: the answer says where the list is, and there it is whole."""
    fault = {"kind": "oversized", "bytes": 1_000_000}
    await system.faults({"match": {"contains": "endless item"}, "times": "forever", "fault": fault})
    body = workflow({"prompt": "endless item {index}", "output_variable": "all", "for_each": "{list}"})
    answer = await system.post("/workflow", {**body, "variables": {"list": list(range(10))}})
    await system.http.delete(f"{system.simulator.url}/__sim/faults")
    assert answer.status_code == 200, answer.text[:300]
    assert len(answer.content) < 10_000
    named = answer.json()["result"]["all"]
    assert named["chars"] > 10_000_000
    whole = await system.http.get(system.gateway.url + named["href"])
    assert whole.status_code == 200, whole.text[:300]
    assert [len(one) >= 1_000_000 for one in whole.json()] == [True] * 10
