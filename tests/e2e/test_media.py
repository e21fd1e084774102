"""Images and videos: made, stored, served, looked at by the next task; a killed executor's job is gone on with."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.system import System

pytestmark = pytest.mark.asyncio(loop_scope="module")


def flow(*tasks: dict[str, Any]) -> dict[str, Any]:
    return {"workflow": [{"type": "inline", "tasks": list(tasks)}]}


VIDEO = flow({"model": "veo_3_1", "prompt": "a bee on a flower", "output_variable": "clip", "config": {"duration": 4}})


async def made(system: System, body: dict[str, Any]) -> dict[str, Any]:
    answer = await system.post("/workflow", body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_an_image_is_made_served_and_looked_at(system: System) -> None:
    """By Google's protocol: the output is its address, its cost is known, and the next task gets to see it."""
    draw = {"model": "imagen_4_ultra", "prompt": "a red bicycle", "output_variable": "picture"}
    look = {
        "model": "image_analysis_ai",
        "prompt": "What is it?",
        "input_image": "{picture}",
        "output_variable": "said",
    }
    body = await made(system, flow(draw, look))
    [artifact] = body["artifacts"]
    assert body["result"]["picture"].endswith(artifact["url"])
    assert body["cost_known"]
    answer = await system.http.get(system.gateway.url + artifact["url"])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.content.startswith(b"\x89PNG")
    assert len(answer.content) == artifact["bytes"] == int(answer.headers["content-length"])
    assert answer.headers["x-content-type-options"] == "nosniff"
    part = await system.http.get(system.gateway.url + artifact["url"], headers={"range": "bytes=1-3"})
    assert (part.status_code, part.content) == (206, b"PNG")
    same = {"if-none-match": answer.headers["etag"]}
    assert (await system.http.get(system.gateway.url + artifact["url"], headers=same)).status_code == 304
    beyond = {"range": f"bytes={artifact['bytes']}-"}
    assert (await system.http.get(system.gateway.url + artifact["url"], headers=beyond)).status_code == 416
    seen = [one for one in await system.ledger() if one["run"] == body["run_id"] and one["asked"] == "What is it?"]
    assert seen[0]["prompt_tokens"] > 1_000, "the image was sent along"


async def test_what_is_not_there_says_so(system: System) -> None:
    assert (await system.http.get(f"{system.gateway.url}/artifacts/{'0' * 32}")).status_code == 404
    assert (await system.http.get(f"{system.gateway.url}/artifacts/..%2f..%2fetc")).status_code == 404
    gone = {"model": "image_analysis_ai", "prompt": "What?", "input_image": f"/artifacts/{'0' * 32}"}
    answer = await system.post("/workflow", flow(gone))
    assert answer.status_code == 502
    assert "is not there" in answer.text
    words = {"model": "image_analysis_ai", "prompt": "What?", "input_image": "not an image"}
    answer = await system.post("/workflow", flow(words))
    assert "is no image" in answer.text


async def test_a_video_is_one_job(system: System) -> None:
    """Submitted once, asked after, fetched, priced by its seconds."""
    body = await made(system, VIDEO)
    [artifact] = body["artifacts"]
    assert artifact["media_type"] == "video/mp4"
    assert body["cost_usd"] == pytest.approx(1.6)
    answer = await system.http.get(system.gateway.url + artifact["url"])
    assert answer.content[4:8] == b"ftyp"
    assert b"[simulated] " in answer.content
    assert len([one for one in await system.ledger() if one["run"] == body["run_id"]]) == 1
    assert any(name.endswith(".attempt.1.job") for name in await system.facts(body["run_id"]))


@pytest.mark.parametrize(("point", "submissions"), [("executor.job_named", 1), ("executor.submitted", 2)])
async def test_an_executor_killed_in_a_video_job(point: str, submissions: int, tmp_path: Path) -> None:
    """After the job's name is stored its successor goes on with it; before, the second job is visible as such."""
    async with System(tmp_path, copies={"executor": 0}, profile="fast") as system:
        armed = system.start("executor", SEGUE_FAULT=point)
        await system.ready(armed)
        asked = asyncio.create_task(system.post("/workflow", VIDEO))
        while armed.alive and not asked.done():
            await asyncio.sleep(0.01)
        assert armed.gone(20), f"no video passes {point}"
        system.start("executor")
        answer = await asked
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert len([one for one in await system.ledger() if one["run"] == body["run_id"]]) == submissions
        facts = await system.facts(body["run_id"])
        [settled] = [fact for name, fact in facts.items() if name.endswith(".settled")]
        assert settled["attempts"] == submissions
        assert len(settled.get("unknown", [])) == submissions - 1
        assert settled["cost_known"] is (submissions == 1)


async def test_a_job_that_comes_to_nothing(system: System) -> None:
    """Filtered: it fails at once and says why. Lost by the provider: it is given once more."""
    await system.faults({"match": {"contains": "forbidden"}, "fault": {"kind": "job", "how": "filtered"}})
    refused = flow({"model": "veo_3_1", "prompt": "something forbidden"})
    answer = await system.post("/workflow", refused)
    assert answer.status_code == 502
    assert "filter" in answer.text
    await system.faults({"match": {"contains": "forgotten"}, "fault": {"kind": "job", "how": "lost"}, "times": 1})
    body = await made(system, flow({"model": "veo_3_1", "prompt": "something forgotten"}))
    assert len([one for one in await system.ledger() if one["run"] == body["run_id"]]) == 2
