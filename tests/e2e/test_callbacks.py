"""Callbacks end to end: asked for over HTTP, delivered by the finisher, whatever is killed in between."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from services.finisher.receivers import OPENS_AFTER
from shared import subjects
from shared.bus.connection import open_bus
from shared.contracts.callbacks import Callback
from shared.contracts.commands import ChatRequest, SubmitRequest
from shared.contracts.ids import new_run_id
from shared.contracts.message import Run
from tests.e2e.test_crashes import WORKFLOW, points
from tests.receiver import SECRET, Got, Receiver, receiving, verified, well
from tests.system import System, eventually

POINTS = [point for point in points("finisher") if point.startswith("finisher.callback.")]


def quick(document: dict[str, Any]) -> None:
    document["callbacks"] |= {"firstRetrySeconds": 0.2, "maxRetrySeconds": 0.5, "maxAttempts": 6, "timeoutSeconds": 2}


@asynccontextmanager
async def calling_back(folder: Path, **copies: int) -> AsyncIterator[tuple[System, Receiver]]:
    environment = {"SEGUE_CALLBACK_SECRETS": f"default=whsec_{SECRET}", "SEGUE_ALLOWED_NETWORKS": "127.0.0.0/8"}
    async with receiving() as receiver:
        system = System(folder, copies=copies, environment=environment, configure=quick)
        async with system:
            yield system, receiver


async def delivered(system: System, run_id: str, number: int = 1, within_s: float = 60.0) -> dict[str, Any]:
    """Wait until a delivery is over, and return it."""
    found: list[dict[str, Any]] = []

    async def over() -> bool:
        answer = await system.http.get(f"{system.gateway.url}/runs/{run_id}")
        if answer.status_code == 503:  # the bus is away
            return False
        assert answer.status_code == 200, answer.text
        found[:] = answer.json()["callback"]["deliveries"]
        return len(found) >= number and found[number - 1]["state"] != "waiting"

    await eventually(over, within_s)
    return found[number - 1]


async def test_chats_workflows_and_templates_are_called_back(tmp_path: Path) -> None:
    """The POST has what the caller got, and nobody has to wait for it; refused runs are called back too."""
    async with calling_back(tmp_path) as (system, receiver):
        hook = f"{receiver.url}/hook"
        chat = await system.post("/chat", {"message": "What is the capital of France?", "callback_url": hook})
        flow = await system.post("/workflow", {**WORKFLOW, "callback_url": hook, "async": True})
        report = await system.post(f"/template/research_report?callback_url={hook}&wait=false", {"topic": "tides"})
        denied = await system.post("/chat", {"message": "x", "context_tokens": 10**6, "callback_url": hook})
        assert [one.status_code for one in (chat, flow, report, denied)] == [200, 202, 202, 413]
        for one in (chat, flow, report, denied):
            assert (await delivered(system, one.json()["run_id"]))["state"] == "delivered"
        assert all(verified(got.headers, got.body, SECRET) for got in receiver.got)
        got = {one.data["run_id"]: one.data for one in receiver.got}
        # One that was not answered in time, as this process stood still, comes again as it was.
        assert len(got) == len({(one.headers["webhook-id"], one.body) for one in receiver.got}) == 4
        assert got[chat.json()["run_id"]]["response"] == chat.json()["response"]
        assert got[chat.json()["run_id"]]["cost_usd"] == chat.json()["cost_usd"]
        assert set(got[flow.json()["run_id"]]["result"]) >= {"one", "other", "both"}
        assert got[denied.json()["run_id"]]["outcome"] == "denied"
        assert got[denied.json()["run_id"]]["error"]["message"]


async def test_an_answer_can_be_sent_again(tmp_path: Path) -> None:
    """After it was given up, and after it was delivered: the same message under the same id."""
    async with calling_back(tmp_path) as (system, receiver):
        receiver.answers = lambda got, number: web.Response(status=410)
        asked = {"message": "What is the capital of France?", "callback_url": f"{receiver.url}/hook"}
        run_id = (await system.post("/chat", asked)).json()["run_id"]
        assert (await delivered(system, run_id))["state"] == "given_up"
        receiver.answers = well
        for number in (2, 3):
            again = await system.post(f"/runs/{run_id}/callback", {})
            assert again.status_code == 202, again.text
            assert (await delivered(system, run_id, number))["state"] == "delivered"
        assert len({(got.headers["webhook-id"], got.body) for got in receiver.got}) == 1
        without = (await system.chat("What is the capital of Spain?"))["run_id"]
        refused = await system.post(f"/runs/{without}/callback", {})
        assert (refused.status_code, "no callback" in refused.text) == (409, True)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["chat", "workflow"])
async def test_a_finisher_killed_at_any_point_delivers_all_the_same(tmp_path: Path, kind: str) -> None:
    """For each named point the only finisher dies there: at least one POST that was taken, one fact, nothing left."""

    def answers(got: Got, number: int) -> web.Response:
        times = sum(1 for one in receiver.got if one.data["run_id"] == got.data["run_id"])
        return web.Response(status=503 if times == 1 else 204)

    assert len(POINTS) == 5
    async with calling_back(tmp_path, finisher=0) as (system, receiver):
        receiver.answers = answers
        for point in POINTS:
            armed = system.start("finisher", SEGUE_FAULT=point)
            await system.ready(armed)
            body = {"message": "What is the capital of France?"} if kind == "chat" else WORKFLOW
            asked = {**body, "callback_url": f"{receiver.url}/hook", "async": True}
            run_id = (await system.post(f"/{kind}", asked)).json()["run_id"]

            async def dead() -> bool:
                return not armed.alive  # noqa: B023 - awaited before the next round

            await eventually(dead)
            fresh = system.start("finisher")
            found = await delivered(system, run_id)
            assert found["state"] == "delivered", (point, found)
            mine = [got for got in receiver.got if got.data["run_id"] == run_id]
            assert 2 <= len(mine) <= len(found["attempts"]) + 1, point  # what the dead one sent is perhaps not noted
            assert len({(got.headers["webhook-id"], got.body) for got in mine}) == 1
            facts = await system.facts(run_id)
            assert [name for name in facts if name.startswith("callback.")] == ["callback.1"], json.dumps(facts)[:300]

            async def quiet() -> bool:
                return (await system.client.jetstream().stream_info("FINISHES")).state.messages == 0

            await eventually(quiet)
            fresh.kill()


async def test_urls_that_are_evidently_wrong_are_refused_at_the_door(tmp_path: Path) -> None:
    """With the place and the reason; a run without a callback says nothing about one."""
    environment = {"SEGUE_CALLBACK_SECRETS": f"default={SECRET}"}
    async with System(tmp_path, environment=environment) as system:
        for url in (
            "ftp://a.example/x",
            "http://a.example/x",
            "https://10.1.2.3/x",
            "https://[::1]/x",
            "https://localhost/x",
            "https://user:secret@a.example/",
            "https://a.example/" + "x" * 3_000,
            "https://a.example/a b",
            "nothing",
            "",
        ):
            answer = await system.post("/chat", {"message": "?", "callback_url": url})
            assert answer.status_code == 422, url
            [problem] = answer.json()["detail"]
            assert (problem["path"], problem["code"]) == ("$.callback_url", "callback_url")
        run_id = (await system.chat("What is the capital of France?"))["run_id"]
        assert (await system.http.get(f"{system.gateway.url}/runs/{run_id}")).json()["callback"] is None
        assert not [name for name in await system.facts(run_id) if "callback" in name]


async def test_without_a_secret_callbacks_are_refused(tmp_path: Path) -> None:
    async with System(tmp_path) as system:
        answer = await system.post("/chat", {"message": "?", "callback_url": "https://a.example/x"})
        assert answer.status_code == 422
        assert "SEGUE_CALLBACK_SECRETS" in answer.text


async def test_requests_straight_from_the_bus_are_called_back_too(tmp_path: Path) -> None:
    """Whoever publishes inside our own account is trusted with much, and not with our networks."""
    async with calling_back(tmp_path) as (system, receiver):
        bus, now = await open_bus(system.client), datetime.now(UTC)
        urls = (f"{receiver.url}/hook", "https://169.254.169.254/latest")
        runs = []
        for url in urls:
            run = Run(run_id=new_run_id(), tenant="default", born_at=now, deadline_at=now + timedelta(seconds=30))
            request = ChatRequest(message="What is the capital of Peru?")
            await bus.log.submit(SubmitRequest(run=run, request=request, callback=Callback(url=url)))
            facts = subjects.events("default", run.run_id)
            await eventually(partial(bus.log.exists, facts.callback(1)))
            runs.append(run.run_id)
        assert (await delivered(system, runs[0]))["state"] == "delivered"
        refused = await delivered(system, runs[1])
        assert (refused["state"], refused["attempts"]) == ("given_up", [])
        assert "169.254.169.254" in refused["reason"]


@pytest.mark.timeout(240)
async def test_a_server_that_is_killed_forgets_no_delivery(tmp_path: Path) -> None:
    """What waits for its next attempt is on the server's disk: it goes on when the server is back."""
    async with calling_back(tmp_path) as (system, receiver):
        assert system.nats is not None
        fails = OPENS_AFTER - 1  # one more, and the receiver would be left alone for longer than a test takes
        receiver.answers = lambda got, number: web.Response(status=503 if number <= fails else 204)
        asked = {"message": "What is the capital of France?", "callback_url": f"{receiver.url}/hook"}
        answers = await asyncio.gather(*(system.post("/chat", asked) for _ in range(10)))
        while len(receiver.got) < fails:
            await asyncio.sleep(0.01)
        system.nats.kill()
        await system.nats.start()
        for answer in answers:  # a receiver that stood still is one failure more, and then left alone for 30 s
            assert (await delivered(system, answer.json()["run_id"], within_s=75))["state"] == "delivered"
