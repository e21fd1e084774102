"""`POST /chat` with `stream: true`: what happens to the run as it happens, each event once and in order."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from services.gateway import runs
from services.gateway.http import wire
from shared.contracts.commands import SubmitRequest
from shared.contracts.ids import Category
from shared.topology import EVENTS, Limits
from tests.conftest import eventually
from tests.gateway.backstage import Backstage, Command, answer, ended, ending, fault, silence
from tests.gateway.conftest import Stage
from tests.gateway.test_chat import queued

QUESTION = {"message": "Plan my move to the sea.", "stream": True}
Event = tuple[str, Any]


async def events(response: httpx.Response) -> AsyncIterator[Event]:
    """Yield the events of a stream as they come in; comments as ("", text)."""
    name, data = "", ""
    async for line in response.aiter_lines():
        field, _, value = line.partition(": ")
        match field:
            case "event":
                name = value
            case "data":
                data = value
            case "" if value:
                yield "", value
            case "" if name:
                yield name, json.loads(data)
                name, data = "", ""


async def told(http: httpx.AsyncClient, body: dict[str, Any], **headers: str) -> list[Event]:
    async with http.stream("POST", "/chat", json=body, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-segue-run-id"]
        return [event async for event in events(response)]


async def orchestrated(stage: Backstage, command: Command) -> None:
    """Everything that an H request has, in the order in which the services write it."""
    assert isinstance(command, SubmitRequest)
    run = (await stage.accept(command)).run
    await stage.categorize(run, Category.H, "several steps")
    await stage.acknowledge(run, "On it.")
    await stage.token(run, "final", attempt=1, offset=0, text="Pack")
    await stage.token(run, "final", attempt=2, restart=True)
    await stage.token(run, "final", attempt=2, offset=0, text="Pack boxes.")
    await stage.turn(command, "Pack boxes.")
    await stage.end(ended(run, category=Category.H, text="Pack boxes.", acknowledgement="On it."))


async def test_everything_is_told_in_order(stage: Stage) -> None:
    """Accepted, category, acknowledgement, tokens, the whole answer, done; the answer is the plain one's."""
    async with stage() as (http, backstage):
        backstage.script = orchestrated
        heard = await told(http, QUESTION, **{"Idempotency-Key": "one"})
        run = backstage.taken[0].run
        assert heard[:6] == [
            ("accepted", {"run_id": run.run_id, "session_id": run.session_id}),
            ("category", {"category": "H", "reason": "several steps"}),
            ("acknowledgement", {"text": "On it."}),
            ("token", {"call": "final", "attempt": 1, "offset": 0, "text": "Pack"}),
            ("restart", {"call": "final", "attempt": 2, "restart": True}),
            ("token", {"call": "final", "attempt": 2, "offset": 0, "text": "Pack boxes."}),
        ]
        assert [name for name, _ in heard[6:]] == ["answer", "done"]
        plain = await http.post("/chat", json={**QUESTION, "stream": False}, headers={"Idempotency-Key": "one"})
        assert heard[6][1] == plain.json()


async def test_an_end_before_it_is_told_again_whole(stage: Stage) -> None:
    """A repeated request whose run has ended gets the same events from the log, without the tokens."""
    async with stage() as (http, backstage):
        backstage.script = orchestrated
        first = await told(http, QUESTION, **{"Idempotency-Key": "one"})
        again = await told(http, QUESTION, **{"Idempotency-Key": "one"})
        assert again == [event for event in first if event[0] not in {"token", "restart"}]
        assert len(backstage.taken) == 1


async def test_what_is_not_heard_is_read_from_the_log(stage: Stage) -> None:
    """Nothing is republished, so nothing is heard live: every event comes all the same, once and in order."""
    async with stage() as (http, backstage):
        backstage.script = orchestrated
        jetstream = backstage.client.jetstream()
        config = (await jetstream.stream_info(EVENTS)).config
        config.republish = None
        await jetstream.update_stream(config)
        heard = [name for name, _ in await told(http, QUESTION)]
        assert [name for name in heard if name not in {"token", "restart"}] == [
            "accepted",
            "category",
            "acknowledgement",
            "answer",
            "done",
        ]
        assert heard.index("category") < heard.index("token")  # the first token made it look


async def test_a_failed_run_ends_in_an_error(stage: Stage) -> None:
    async with stage() as (http, backstage):
        backstage.script = ending(outcome="failed", fault=fault("resource", "deadline", "not done within 20 s", 504))
        heard = await told(http, QUESTION)
        name, error = heard[-2]
        assert (name, heard[-1]) == ("error", ("done", {}))
        assert error["status"] == 504
        assert error["detail"] == "not done within 20 s"
        assert error["run_id"] == backstage.taken[0].run.run_id
        assert error["error"]["code"] == "deadline"


async def test_a_run_that_nobody_ends_ends_the_stream(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "GRACE_S", 0.1)
    async with stage(timeout_s=0.3) as (http, backstage):
        backstage.script = silence
        heard = await told(http, QUESTION)
        assert [name for name, _ in heard] == ["accepted", "error", "done"]
        assert heard[1][1]["status"] == 504
        await eventually(lambda: backstage.has_taken(1))
        assert heard[1][1]["run_id"] == backstage.taken[0].run.run_id


async def test_a_refusal_is_a_status_not_an_event(stage: Stage) -> None:
    """A full queue and a key of another request are said before the stream begins."""
    async with stage(limits=Limits(max_queue_depth=1), takes=False) as (http, backstage):
        first = asyncio.create_task(http.post("/chat", json=QUESTION, headers={"Idempotency-Key": "one"}))
        await eventually(lambda: queued(backstage, 1))
        full = await http.post("/chat", json=QUESTION)
        assert full.status_code == 503
        assert full.headers["retry-after"]
        await backstage.begin()
        assert (await first).status_code == 200
        other = await http.post("/chat", json={**QUESTION, "message": "No."}, headers={"Idempotency-Key": "one"})
        assert other.status_code == 422


async def test_a_silent_stream_shows_that_it_lives(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment comes when nothing else does, so that nobody in between takes the connection for dead."""
    monkeypatch.setattr(wire, "HEARTBEAT_S", 0.1)
    async with stage() as (http, backstage):
        backstage.script = silence
        async with http.stream("POST", "/chat", json=QUESTION) as response:
            following = events(response)
            assert (await anext(following))[0] == "accepted"
            assert await anext(following) == ("", "still there")
            await eventually(lambda: backstage.has_taken(1))
            await backstage.end(ended(backstage.taken[0].run, text="well"))
            assert [name async for name, _ in following if name] == ["answer", "done"]


async def test_a_caller_who_leaves_frees_the_place_and_the_run_goes_on(stage: Stage) -> None:
    """With one place in all, the next request gets in as soon as the connection is closed."""
    async with stage(waiting=1) as (http, backstage):
        backstage.script = silence
        async with http.stream("POST", "/chat", json=QUESTION) as response:
            assert (await anext(events(response)))[0] == "accepted"
            assert (await http.post("/chat", json={"message": "Is there room?"})).status_code == 503
            await eventually(lambda: backstage.has_taken(1))
        run = backstage.taken[0].run
        await eventually(lambda: gone(backstage, run))
        backstage.script = answer

        async def room() -> bool:
            return (await http.post("/chat", json={"message": "Is there room now?"})).status_code == 200

        await eventually(room)
        await eventually(lambda: backstage.keeps(timers=1))  # the first run still has its deadline


async def gone(backstage: Backstage, run: Any) -> bool:
    return not await backstage.listeners(run)
