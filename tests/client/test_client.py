"""The client against the running system: waiting and awaiting, cut off, and kept in step with the API."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from pydantic import BaseModel

from client import AsyncSegue, ConnectionCut, Invalid, NotFound, Segue, Unreachable, answers
from shared.bus.server import free_port
from tests.system import System, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

TASK = {"model": "fast_ai", "prompt": "A word for {who}", "output_variable": "word"}
QUEUES = [{"type": "inline", "tasks": [TASK]}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """One copy of each service and a zero-latency simulator."""
    async with System(tmp_path_factory.mktemp("client")) as running:
        yield running


async def test_a_program_that_waits(system: System) -> None:
    """Ask, stream, begin, follow, look, list, and be told what is wrong."""

    def program() -> None:
        with Segue(system.gateway.url) as segue:
            answer = segue.chat("What is two plus two?", session_id="client")
            assert (answer.session_id, answer.simulated, answer.category) == ("client", True, "M")
            assert [one.role for one in segue.session("client").messages] == ["user", "assistant"]
            names = [event.name for event in segue.stream_chat("What is three plus three?")]
            assert (names[0], names[-2:]) == ("accepted", ["answer", "done"])
            done = segue.workflow(QUEUES, {"who": "Ada"})
            assert done.result["word"]
            begun = segue.start_workflow(QUEUES, {"who": "Bob"})
            facts = [event.name for event in segue.events(begun.run_id) if event.id]
            assert (facts[0], facts[-1]) == ("accepted", "ended"), "a text so far may come before the facts"
            run = segue.wait(begun.run_id)
            assert (run.state, run.over, run.ledger.calls) == ("completed", True, 1)
            assert segue.output(begun.run_id, "word")
            assert segue.fork(begun.run_id, variables={"who": "Eve"}).run_id != begun.run_id
            assert "medium_ai" in {one.name for one in segue.models()}
            assert "research_report" in {one.name for one in segue.templates()}
            assert segue.health()["status"] == "healthy"
            with pytest.raises(NotFound, match="nothing"):
                segue.get("/nothing")
            with pytest.raises(Invalid) as wrong:
                segue.workflow([{"type": "inline", "tasks": [{**TASK, "model": "nobody"}]}], {"who": "x"})
            assert wrong.value.problems[0]["path"] == "$.workflow[0].tasks[0].model"

    await asyncio.to_thread(program)


async def test_a_program_that_awaits(system: System) -> None:
    """The same, and several at once."""
    async with AsyncSegue(system.gateway.url) as segue:
        found = await asyncio.gather(*(segue.chat(f"What is {number} plus one?") for number in range(5)))
        assert len({one.run_id for one in found}) == 5
        tokens = [event.data["text"] async for event in segue.stream_chat("Say something") if event.name == "token"]
        assert "".join(tokens)
        begun = await segue.start_chat("What is nine plus nine?")
        assert (await segue.wait(begun.run_id)).state == "completed"

        async def listed() -> set[str]:
            return {line.run_id async for line in segue.runs(kind="chat", limit=2)}

        async def all_listed() -> bool:
            """Whether every run is on a page (of two): the history follows within a moment."""
            return {one.run_id for one in found} <= await listed()

        await eventually(all_listed)

        async def all_summed() -> bool:
            return (await segue.usage("role")).total.calls >= 6

        await eventually(all_summed)


class Flaky(httpx.BaseTransport):
    """Cuts the connection after the request was sent, some times."""

    def __init__(self, times: int) -> None:
        self.times, self.asked = times, list[str]()
        self._real = httpx.HTTPTransport()
        self._lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._real.handle_request(request)
        with self._lock:
            self.asked.append(request.headers["idempotency-key"])
            if self.times > 0:
                self.times -= 1
                answer.read()
                answer.close()
                raise httpx.RemoteProtocolError("cut off")
        return answer


async def test_a_question_whose_answer_was_cut_off_is_asked_again_and_answered_once(system: System) -> None:
    """The same key each time, so the same run: nothing is paid twice."""
    transport = Flaky(2)

    def program() -> Any:
        with Segue(system.gateway.url, transport=transport) as segue:
            return segue.chat("What is eleven plus eleven?")

    before = len(await system.ledger())
    answer = await asyncio.to_thread(program)
    assert len(transport.asked) == 3
    assert len(set(transport.asked)) == 1
    asked = [one for one in (await system.ledger())[before:] if one["run"] == answer.run_id]
    assert len(asked) == 2, "one to categorise, one to answer"

    def impatient() -> None:
        with Segue(system.gateway.url, transport=Flaky(1), max_retries=0) as segue:
            segue.chat("What is twelve plus twelve?")

    with pytest.raises(ConnectionCut):
        await asyncio.to_thread(impatient)


async def test_a_run_that_is_not_there_is_said_so_to_who_would_follow_it() -> None:
    """At once: one that was begun is there from then on, accepted or queued."""
    asked: list[httpx.Request] = []

    def answered(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(404, json={"detail": "there is no run 'r'"})

    def program() -> None:
        with Segue("http://segue.example", transport=httpx.MockTransport(answered)) as segue:
            with pytest.raises(NotFound, match="there is no run"):
                next(segue.events("r"))
            assert len(asked) == 1

    await asyncio.to_thread(program)


async def test_nobody_there_is_said_so() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(Unreachable, match="no Segue answers"):
        await asyncio.to_thread(lambda: Segue(url, max_retries=0).health())


async def test_every_typed_answer_is_one_of_the_documented(system: System) -> None:
    """The client's models name only fields that the API's own description has, and need only those it always gives."""
    described = (await system.http.get(f"{system.gateway.url}/openapi.json")).json()["components"]["schemas"]
    pairs: dict[type[BaseModel], str] = {
        answers.ChatAnswer: "ChatAnswer",
        answers.WorkflowAnswer: "WorkflowAnswer",
        answers.Begun: "BegunAnswer",
        answers.Plan: "PlanAnswer",
        answers.Run: "RunView",
        answers.RunLine: "RunLine",
        answers.Ledger: "Ledger",
        answers.Session: "SessionAnswer",
        answers.Model: "ModelBody",
        answers.Template: "TemplateBody",
        answers.Usage: "UsageAnswer",
        answers.UsageRow: "UsageRow",
        answers.Artifact: "ArtifactBody",
        answers.Tokens: "UsageBody",
    }
    for ours, theirs in pairs.items():
        there = described[theirs]
        unknown = ours.model_fields.keys() - there["properties"].keys()
        assert not unknown, f"{ours.__name__} has {unknown}, which {theirs} has not"
        needed = {name for name, one in ours.model_fields.items() if one.is_required()}
        missing = needed - set(there.get("required", ()))
        assert not missing, f"{ours.__name__} needs {missing}, which {theirs} may leave out"
