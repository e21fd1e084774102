"""An `Idempotency-Key` is the run's id: the same request is one run and one answer, whichever gateway takes it."""

import asyncio
from typing import Any

import httpx
import pytest

from shared.bus.server import NatsServer
from shared.contracts.ids import run_id_of_key
from shared.topology import Limits
from tests.conftest import eventually
from tests.gateway.backstage import answer, ended, ending, fault, silence
from tests.gateway.conftest import Stage
from tests.gateway.serving import serving
from tests.gateway.test_chat import queued

QUESTION = {"message": "Why is the sky blue?"}
KEY = {"Idempotency-Key": "order 66"}
TWO_STEPS: dict[str, Any] = {
    "workflow": [{"type": "inline", "tasks": [{"model": "medium_ai", "prompt": "Say {x}", "output_variable": "y"}]}],
    "variables": {"x": 1.5, "none": None},
}


async def test_a_repeated_request_gets_the_same_answer(stage: Stage) -> None:
    """Byte for byte, marked as replayed, with one run behind both."""
    async with stage() as (http, backstage):
        first = await http.post("/chat", json=QUESTION, headers=KEY)
        again = await http.post("/chat", json=QUESTION, headers=KEY)
        assert first.status_code == again.status_code == 200
        assert first.content == again.content
        assert first.json()["run_id"] == run_id_of_key("default", "order 66")
        assert "idempotency-replayed" not in first.headers
        assert again.headers["idempotency-replayed"] == "true"
        assert len(backstage.taken) == 1


async def test_a_failure_is_repeated_as_it_was(stage: Stage) -> None:
    async with stage() as (http, backstage):
        backstage.script = ending(outcome="failed", fault=fault("transient", "provider_unavailable", "it is down"))
        first = await http.post("/chat", json=QUESTION, headers=KEY)
        backstage.script = answer
        again = await http.post("/chat", json=QUESTION, headers=KEY)
        assert first.status_code == again.status_code == 502
        assert first.content == again.content
        assert again.headers["idempotency-replayed"] == "true"


async def test_requests_with_one_key_at_once_are_one_run(stage: Stage) -> None:
    async with stage() as (http, backstage):
        answers = await asyncio.gather(*(http.post("/chat", json=QUESTION, headers=KEY) for _ in range(8)))
        assert {one.status_code for one in answers} == {200}
        assert len({one.content for one in answers}) == 1
        assert len(backstage.taken) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"message": "Why is the sky red?"},
        {**QUESTION, "session_id": "mine"},
        {**QUESTION, "context_tokens": 9},
        {**QUESTION, "priority": "low"},
        {**QUESTION, "images": ["https://example.org/a.png"]},
    ],
)
async def test_a_key_is_for_one_request(stage: Stage, other: dict[str, Any]) -> None:
    """422 for another request under the same key, before and after the first has ended."""
    async with stage() as (http, backstage):
        backstage.script = silence
        first = asyncio.create_task(http.post("/chat", json=QUESTION, headers=KEY))
        await eventually(lambda: accepted(backstage))
        refused = await http.post("/chat", json=other, headers=KEY)
        assert refused.status_code == 422
        assert "Idempotency-Key" in refused.json()["detail"]
        assert refused.json()["run_id"] == backstage.taken[0].run.run_id
        await backstage.end(ended(backstage.taken[0].run, text="because"))
        assert (await first).json()["response"] == "because"
        assert (await http.post("/chat", json=other, headers=KEY)).status_code == 422


async def test_two_requests_that_race_for_a_key_do_not_share_an_answer(stage: Stage) -> None:
    """Both are sent before either is accepted: the first one's timer says whose key it is, the other is told so."""
    async with stage(takes=False) as (http, backstage):
        first = asyncio.create_task(http.post("/chat", json=QUESTION, headers=KEY))
        await eventually(lambda: queued(backstage, 1))
        assert (await http.post("/chat", json={"message": "Something else"}, headers=KEY)).status_code == 422
        await backstage.begin()
        assert (await first).status_code == 200
        assert len(backstage.taken) == 1


async def test_another_gateway_takes_up_what_a_lost_one_began(stage: Stage, own_nats_server: NatsServer) -> None:
    """The first gateway is gone before the answer; a new one joins the same run and answers."""
    async with stage() as (_, backstage):
        backstage.script = silence
        async with serving(own_nats_server.url) as lost:
            asking = asyncio.create_task(lost.post("/chat", json=QUESTION, headers=KEY))
            await eventually(lambda: accepted(backstage))
        with pytest.raises(httpx.HTTPError):
            (await asking).raise_for_status()
        async with serving(own_nats_server.url) as other:
            joined = asyncio.create_task(other.post("/chat", json=QUESTION, headers=KEY))
            await eventually(lambda: backstage.listeners(backstage.taken[0].run))
            await backstage.end(ended(backstage.taken[0].run, text="late, and here"))
            answer = await joined
        assert answer.status_code == 200
        assert answer.json()["response"] == "late, and here"
        assert len(backstage.taken) == 1


async def test_a_refused_request_leaves_its_key_free(stage: Stage) -> None:
    """A full queue is not an answer to keep: the same key gets in once there is room, and has its deadline then."""
    async with stage(limits=Limits(max_queue_depth=1), takes=False) as (http, backstage):
        waiting = asyncio.create_task(http.post("/chat", json=QUESTION))
        await eventually(lambda: queued(backstage, 1))
        refused = await http.post("/chat", json=QUESTION, headers=KEY)
        assert refused.status_code == 503
        await backstage.begin()
        assert (await waiting).status_code == 200
        taken = await http.post("/chat", json=QUESTION, headers=KEY)
        assert taken.status_code == 200
        assert "idempotency-replayed" not in taken.headers


async def test_a_keyed_run_has_its_timer_before_it_is_queued(stage: Stage) -> None:
    """And whoever accepts it keeps that, as of several that bear it at once one may be refused."""
    async with stage(takes=False) as (http, backstage):
        asking = asyncio.create_task(http.post("/chat", json=QUESTION, headers=KEY))
        await eventually(lambda: queued(backstage, 1))
        assert await backstage.timers() == 1
        await backstage.begin()
        assert (await asking).status_code == 200
        assert backstage.taken[0].source == "bus"


async def test_a_workflow_is_repeated_too(stage: Stage) -> None:
    """Numbers, nulls and defaults on their way through the bus do not make it another request."""
    async with stage() as (http, backstage):
        first = await http.post("/workflow", json=TWO_STEPS, headers=KEY)
        again = await http.post("/workflow", json=TWO_STEPS, headers=KEY)
        assert first.status_code == again.status_code == 200, again.text
        assert first.content == again.content
        other = await http.post("/workflow", json={**TWO_STEPS, "variables": {"x": 2}}, headers=KEY)
        assert other.status_code == 422
        assert (await http.post("/chat", json=QUESTION, headers=KEY)).status_code == 422
        assert len(backstage.taken) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there"])
async def test_a_key_that_is_none_is_refused(stage: Stage, key: str) -> None:
    async with stage(takes=False) as (http, _):
        refused = await http.post("/chat", json=QUESTION, headers={"Idempotency-Key": key})
        assert refused.status_code == 422
        assert "Idempotency-Key" in refused.json()["detail"]


async def accepted(backstage: Any) -> bool:
    """Whether the first request is accepted on the log."""
    if not backstage.taken:
        return False
    return bool(await backstage.bus.log.exists(backstage.facts(backstage.taken[0].run).accepted))
