"""`POST /chat`: answered from the log, or refused with what happened and what to do."""

import asyncio
import time
from typing import Any

import pytest

from services.gateway import runs
from shared.bus.server import NatsServer
from shared.contracts.commands import ChatRequest, SubmitRequest
from shared.topology import EVENTS, Limits
from tests.conftest import eventually
from tests.gateway.backstage import Backstage, Command, ended, ending, fault, silence
from tests.gateway.conftest import Stage

QUESTION = {"message": "Why is the sky blue?"}


async def test_a_message_is_answered(stage: Stage) -> None:
    """Every field of the answer is there, the run has its deadline, and its timer is gone afterwards."""
    async with stage() as (http, backstage):
        answer = await http.post("/chat", json=QUESTION)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        run = backstage.taken[0].run
        assert body == {
            "session_id": run.session_id,
            "response": "20 characters, 0 images: Why is the sky blue?",
            "category": "M",
            "timestamp": body["timestamp"],
            "model_used": "some/model",
            "run_id": run.run_id,
            "acknowledgement": None,
            "result": None,
            "cost_usd": 0.0125,
            "cost_known": True,
            "baseline_usd": None,
            "saving_usd": None,
            "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
            "took_s": body["took_s"],
            "simulated": True,
            "calls": 2,
            "note": None,
            "artifacts": [],
        }
        assert answer.headers["x-segue-run-id"] == run.run_id
        assert (run.deadline_at - run.born_at).total_seconds() == 20

        await eventually(lambda: backstage.keeps(timers=0))


async def test_what_is_asked_arrives_as_it_is(stage: Stage) -> None:
    """Session, priority, context and images reach the categorizer; only a minted session is a new one."""
    async with stage() as (http, backstage):
        asked = {"session_id": "s-1", "context_tokens": 7, "priority": "high", "images": ["https://example.org/a.png"]}
        answer = await http.post("/chat", json={**QUESTION, **asked, "unknown": 1})
        assert answer.json()["session_id"] == "s-1"
        minted = (await http.post("/chat", json={**QUESTION, "context_tokens": None})).json()["session_id"]
        first, second = backstage.taken
        assert first.run.priority == "high"
        assert first.request == ChatRequest(
            message=QUESTION["message"], images=("https://example.org/a.png",), context_tokens=7
        )
        assert first.run.session_id == "s-1"
        assert second.run.session_id == minted
        assert second.request == ChatRequest(message=QUESTION["message"], new_session=True)


async def test_the_deadline_is_kept_by_the_bus_before_the_request_is_queued(stage: Stage) -> None:
    """While nobody takes the request, its timer is there."""
    async with stage(takes=False) as (http, backstage):
        asking = asyncio.create_task(http.post("/chat", json=QUESTION))
        await eventually(lambda: queued(backstage, 1))
        assert await backstage.timers() == 1
        await backstage.begin()
        assert (await asking).status_code == 200


@pytest.mark.parametrize(
    ("fields", "status", "detail"),
    [
        (
            {
                "outcome": "denied",
                "category": None,
                "fault": fault("logical", "too_long", "900,001 tokens; shorten it", 413),
            },
            413,
            "900,001 tokens; shorten it",
        ),
        (
            {"outcome": "denied", "category": None, "fault": fault("logical", "unreadable_message", "not v1", 422)},
            422,
            "not v1",
        ),
        ({"outcome": "denied", "category": None, "fault": fault("logical", "too_long", "too long")}, 413, "too long"),
        (
            {"outcome": "failed", "fault": fault("transient", "provider_unavailable", "503 from the provider", 503)},
            502,
            "503 from the provider. Nothing more is done for this request; it can be sent again",
        ),
        (
            {
                "outcome": "failed",
                "fault": fault("logical", "bad", "task 'x' failed"),
                "text": "It did not work. Try y.\n",
            },
            502,
            "It did not work. Try y.\n\nThe fault: task 'x' failed",
        ),
        (
            {"outcome": "failed", "fault": fault("resource", "deadline", "not done within 20 s", 504)},
            504,
            "not done within 20 s",
        ),
        ({"outcome": "cancelled"}, 409, "the run was cancelled"),
    ],
)
async def test_a_run_that_does_not_succeed_says_why(
    stage: Stage, fields: dict[str, Any], status: int, detail: str
) -> None:
    async with stage() as (http, backstage):
        backstage.script = ending(**fields)
        answer = await http.post("/chat", json=QUESTION)
        body = answer.json()
        assert (answer.status_code, body["detail"]) == (status, detail)
        assert body["run_id"] == answer.headers["x-segue-run-id"] == backstage.taken[0].run.run_id
        if fields.get("fault") is None:
            assert body["error"] is None
        else:
            said = fields["fault"]
            assert body["error"] == {"type": said.type, "code": said.code, "message": said.message}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "$.message"),
        ({"message": ""}, "$.message"),
        ({"message": " \n\t"}, "$.message"),
        ({"message": 7}, "$.message"),
        ({"message": "x", "session_id": "a b"}, "$.session_id"),
        ({"message": "x", "session_id": "s.>"}, "$.session_id"),
        ({"message": "x", "session_id": "x" * 65}, "$.session_id"),
        ({"message": "x", "context_tokens": -1}, "$.context_tokens"),
        ({"message": "x", "priority": "urgent"}, "$.priority"),
        ({"message": "x", "images": ["file:///etc/passwd"]}, "$.images[0]"),
        ({"message": "x", "images": ["https://e.org"] * 17}, "$.images"),
        ([], "$"),
        ("text", "$"),
    ],
)
async def test_what_is_not_well_formed_is_refused(stage: Stage, body: object, path: str) -> None:
    """422, with the JSON path of what is wrong, and nothing is queued."""
    async with stage(takes=False) as (http, backstage):
        answer = await http.post("/chat", json=body)
        assert answer.status_code == 422
        assert [problem["path"] for problem in answer.json()["detail"]] == [path]
        assert all(problem["code"] and problem["message"] for problem in answer.json()["detail"])
        assert await queued(backstage, 0)


async def test_all_problems_are_named_at_once(stage: Stage) -> None:
    async with stage(takes=False) as (http, _):
        answer = await http.post("/chat", json={"session_id": "", "context_tokens": "many", "stream": "perhaps"})
        paths = {problem["path"] for problem in answer.json()["detail"]}
        assert paths == {"$.message", "$.session_id", "$.context_tokens", "$.stream"}


async def test_a_full_queue_is_said_at_once(stage: Stage) -> None:
    """The third request is refused while two wait, with a time to come back; nothing of it is left behind."""
    async with stage(limits=Limits(max_queue_depth=2), takes=False) as (http, backstage):
        waiting = [asyncio.create_task(http.post("/chat", json=QUESTION)) for _ in range(2)]
        await eventually(lambda: queued(backstage, 2))
        took = list[float]()
        for _ in range(3):
            began = time.monotonic()
            refused = await http.post("/chat", json=QUESTION)
            took.append(time.monotonic() - began)
            assert refused.status_code == 503
        assert min(took) < 1, "but for what the machine itself may stand still"
        assert int(refused.headers["retry-after"]) >= 1
        assert "full" in refused.json()["detail"]
        assert "run_id" not in refused.json()
        assert await backstage.timers() == 2
        await backstage.begin()
        assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200, 200]


async def test_a_full_share_is_the_tenants_own(stage: Stage) -> None:
    """429 when only this tenant's requests of this priority are too many; another priority still gets in."""
    async with stage(limits=Limits(max_queue_depth=10, max_queue_depth_per_tenant=2), takes=False) as (http, backstage):
        waiting = [asyncio.create_task(http.post("/chat", json=QUESTION)) for _ in range(2)]
        await eventually(lambda: queued(backstage, 2))
        refused = await http.post("/chat", json=QUESTION)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        waiting.append(asyncio.create_task(http.post("/chat", json={**QUESTION, "priority": "high"})))
        await eventually(lambda: queued(backstage, 3))
        await backstage.begin()
        assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200, 200, 200]


async def test_a_long_message_passes_whole(stage: Stage) -> None:
    """3.6 MB go there by reference, and 2 MB come back."""

    async def script(stage: Backstage, command: Command) -> None:
        assert isinstance(command, SubmitRequest)
        await stage.accept(command)
        await stage.end(ended(command.run, text=f"{len(command.request.message)}" + "y" * 2_000_000))

    async with stage() as (http, backstage):
        backstage.script = script
        answer = await http.post("/chat", json={"message": "x" * 3_600_000})
        assert answer.status_code == 200, answer.text[:300]
        assert answer.json()["response"] == "3600000" + "y" * 2_000_000


async def test_an_end_that_was_not_heard_is_read_from_the_log(stage: Stage) -> None:
    """The log is not republished: nothing is ever heard live, and the answer comes all the same."""
    async with stage() as (http, backstage):
        jetstream = backstage.client.jetstream()
        config = (await jetstream.stream_info(EVENTS)).config
        config.republish = None
        await jetstream.update_stream(config)
        heard: list[object] = []

        async def listen(msg: object) -> None:
            heard.append(msg)

        await backstage.client.subscribe("segue.live.>", cb=listen)
        answer = await http.post("/chat", json=QUESTION)
        assert answer.status_code == 200
        assert heard == []


async def test_a_server_killed_while_requests_wait_costs_no_answer(stage: Stage, own_nats_server: NatsServer) -> None:
    """The bus goes away and comes back; the end that was written meanwhile is found."""
    async with stage() as (http, backstage):
        backstage.script = silence
        asking = asyncio.create_task(http.post("/chat", json=QUESTION))
        await eventually(lambda: len(backstage.taken) == 1)
        own_nats_server.kill()
        await own_nats_server.start()
        await backstage.end(ended(backstage.taken[0].run, text="here it is"))
        answer = await asking
        assert answer.status_code == 200
        assert answer.json()["response"] == "here it is"


async def test_a_run_that_nobody_ends_is_answered_after_its_deadline(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """504 with the run's id: the caller is never left without a word."""
    monkeypatch.setattr(runs, "GRACE_S", 0.2)
    async with stage(timeout_s=0.3) as (http, backstage):
        backstage.script = silence
        answer = await http.post("/chat", json=QUESTION)
        assert answer.status_code == 504
        await eventually(lambda: backstage.has_taken(1))
        assert answer.json()["run_id"] == backstage.taken[0].run.run_id
        assert "deadline" in answer.json()["detail"]


async def test_many_at_once_each_get_their_own_answer(stage: Stage) -> None:
    async with stage() as (http, backstage):
        asked = [f"question number {number}" for number in range(60)]
        answers = await asyncio.gather(*(http.post("/chat", json={"message": text}) for text in asked))
        for text, answer in zip(asked, answers, strict=True):
            assert answer.json()["response"].endswith(text)
        assert len({answer.json()["run_id"] for answer in answers}) == len(backstage.taken) == 60


async def queued(backstage: Backstage, count: int) -> bool:
    """Whether `count` requests lie in the queue."""
    info = await backstage.client.jetstream().stream_info("REQUESTS")
    return bool(info.state.messages == count)
