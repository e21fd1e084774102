"""Begun and not waited for: the run's id at once, its answer later; and deadlines of a caller's own."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.system import System, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

FLOW: dict[str, Any] = {
    "workflow": [{"type": "inline", "tasks": [{"model": "fast_ai", "prompt": "say a", "output_variable": "a"}]}]
}


async def over(system: System, begun: Any) -> dict[str, Any]:
    assert begun.status_code == 202, begun.text
    body = begun.json()
    assert begun.headers["location"] == body["status_url"] == f"/runs/{body['run_id']}"
    found: dict[str, Any] = {}

    async def ended() -> bool:
        answer = await system.http.get(system.gateway.url + body["status_url"])
        found.update(answer.json())
        return answer.status_code == 200 and found["state"] == "completed"

    await eventually(ended)
    return found


async def test_everything_can_be_begun_without_waiting(system: System) -> None:
    chat = await over(system, await system.post("/chat", {"message": "What is one plus one?", "async": True}))
    assert chat["session_id"]
    session = (await system.http.get(f"{system.gateway.url}/session/{chat['session_id']}")).json()
    assert [one["role"] for one in session["messages"]] == ["user", "assistant"]
    await over(system, await system.post("/chat?wait=false", {"message": "What is two plus one?"}))
    flow = await over(system, await system.post("/workflow", {**FLOW, "async": True}))
    assert (await system.http.get(f"{system.gateway.url}/runs/{flow['run_id']}/outputs/a")).text
    await over(system, await system.post("/template/research_report?wait=false", {"topic": "bees"}))


async def test_a_key_begins_one_run_however_often_it_is_begun(system: System) -> None:
    key = {"Idempotency-Key": "in the background"}
    first = await system.post("/workflow", {**FLOW, "async": True}, **key)
    again = await system.post("/workflow", {**FLOW, "async": True}, **key)
    waited = await system.post("/workflow", FLOW, **key)
    assert first.json()["run_id"] == again.json()["run_id"] == waited.json()["run_id"]
    other = await system.post("/chat", {"message": "something else", "async": True}, **key)
    assert other.status_code == 422


async def test_a_callers_own_deadline_counts(system: System) -> None:
    body = {**FLOW, "timeout_s": 42, "async": True}
    flow = await over(system, await system.post("/workflow", body))
    chat = await over(system, await system.post("/chat", {"message": "What is it?", "timeout_s": 42, "async": True}))
    template = await system.post("/template/research_report?wait=false&timeout_s=42", {"topic": "bees"})
    for run in (flow, chat, await over(system, template)):
        born, deadline = run["born_at"], run["deadline_at"]
        assert 41.9 < _seconds(born, deadline) < 42.1


def _seconds(first: str, second: str) -> float:
    from datetime import datetime

    return (datetime.fromisoformat(second) - datetime.fromisoformat(first)).total_seconds()


async def test_what_makes_no_sense_is_refused(system: System) -> None:
    for path, body, place in (
        ("/chat", {"message": "x", "stream": True, "async": True}, "$.async"),
        ("/chat", {"message": "x", "timeout_s": 0}, "$.timeout_s"),
        ("/workflow", {**FLOW, "timeout_s": -1}, "$.timeout_s"),
        ("/workflow", {**FLOW, "async": "perhaps"}, "$.async"),
        ("/workflow", {**FLOW, "priority": "urgent"}, "$.priority"),
        ("/template/research_report?timeout_s=soon", {"topic": "x"}, "$.timeout_s"),
    ):
        answer = await system.post(path, body)
        assert (answer.status_code, answer.json()["detail"][0]["path"]) == (422, place), answer.text


@pytest.mark.parametrize("how", ["DELETE", "POST"])
async def test_what_is_cancelled_before_it_is_taken_up_is_never_paid_for(tmp_path: Path, how: str) -> None:
    """Nobody has accepted it, so its timer says whose it is; whoever takes it later asks no model."""
    async with System(tmp_path) as system:
        categorizer = system.running("categorizer")[0]
        os.kill(categorizer.pid, signal.SIGSTOP)
        try:
            body = {"model": "segue-auto", "input": "Explain how tides come about, and why", "background": True}
            begun = (await system.post("/v1/responses", body)).json()
            where = f"{system.gateway.url}/v1/responses/{begun['id']}" + ("/cancel" if how == "POST" else "")
            answer = await system.http.request(how, where)
            assert answer.status_code == 200, answer.text
            assert answer.json().get("deleted") or answer.json()["status"] == "cancelled"
            run_id = begun["id"].removeprefix("resp_")

            async def ended() -> bool:
                return "ended" in await system.facts(run_id)

            await eventually(ended)
        finally:
            os.kill(categorizer.pid, signal.SIGCONT)

        async def taken_up() -> bool:
            streams = [await system.client.jetstream().stream_info(name) for name in ("REQUESTS", "CALLS")]
            return not any(stream.state.messages for stream in streams) and "accepted" in await system.facts(run_id)

        await eventually(taken_up)
        assert (await system.facts(run_id))["ended"]["outcome"] == "cancelled"
        assert await system.ledger() == []
