"""Callbacks of what begins runs in other ways: OpenAI's clients, WebSockets, retries and forks."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from typer.testing import CliRunner, Result
from websockets.asyncio.client import connect

from cli.main import app
from tests.e2e.test_callbacks import calling_back, delivered
from tests.e2e.test_openai_clients import CLIENTS, HERE, needs_python, ran
from tests.e2e.test_schedules import get
from tests.receiver import SECRET, Got, Receiver, verified
from tests.system import System, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOOK = "Segue-Callback-Url"
QUESTION = "What is the capital of France?"
ASKED: dict[str, Any] = {"model": "medium_ai", "messages": [{"role": "user", "content": QUESTION}]}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
TWO_TASKS: dict[str, Any] = {
    "workflow": [
        {
            "type": "graph",
            "tasks": [
                {"model": "fast_ai", "prompt": "solid", "output_variable": "a"},
                {"model": "fast_ai", "prompt": "fragile {a}", "output_variable": "b"},
            ],
        }
    ]
}
Called = tuple[System, Receiver]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def called(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Called]:
    """A system whose answers may be POSTed to a receiver here."""
    async with calling_back(tmp_path_factory.mktemp("origins")) as both:
        yield both


def of_run(receiver: Receiver, run_id: str) -> list[Got]:
    return [got for got in receiver.got if got.data["run_id"] == run_id]


async def came(receiver: Receiver, run_id: str) -> Got:
    """Wait until a run's answer has come, and return it, verified; copies may come, and are the same message."""

    async def there() -> bool:
        return bool(of_run(receiver, run_id))

    await eventually(there)
    copies = of_run(receiver, run_id)
    assert all(verified(got.headers, got.body, SECRET) for got in copies)
    assert len({(got.headers["webhook-id"], got.body) for got in copies}) == 1
    return copies[0]


async def callback_of(system: System, run_id: str) -> str | None:
    """Return where a run's answer is to go."""
    found = (await get(system, f"/runs/{run_id}"))["callback"]
    return None if found is None else str(found["url"])


async def failed(system: System, path: str, body: dict[str, Any], words: str) -> str:
    """Have a run fail at a task whose prompt has these words, and return it; the next one succeeds."""
    await system.faults({"match": {"contains": words}, "times": "forever", "fault": {"kind": "status", "status": 400}})
    answer = await system.post(path, body)
    assert answer.status_code == 502, answer.text
    await system.http.delete(f"{system.simulator.url}/__sim/faults")
    return str(answer.json()["run_id"])


async def said(system: System, *arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--url", system.gateway.url])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_chat_completion_is_called_back_by_its_header(called: Called, stream: bool) -> None:
    """Whole or streamed: what is POSTed is what was answered."""
    system, receiver = called
    answer = await system.post(
        "/v1/chat/completions", {**ASKED, "stream": stream}, **{HOOK: f"{receiver.url}/completion"}
    )
    assert answer.status_code == 200, answer.text
    run_id = answer.headers["x-segue-run-id"]
    got = await came(receiver, run_id)
    assert (got.path, got.data["outcome"], got.data["finish_reason"]) == ("/completion", "completed", "stop")
    if not stream:
        assert got.data["response"] == answer.json()["choices"][0]["message"]["content"]


async def test_a_background_response_is_called_back_when_it_is_ready(called: Called) -> None:
    """Its id is `resp_` and the run's; a role, the whole system and a template; nothing is called back unasked."""
    system, receiver = called
    hook = {HOOK: f"{receiver.url}/response"}
    for body in (
        {"model": "medium_ai", "input": QUESTION},
        {"model": "segue-auto", "input": QUESTION},
        {"model": "template/research_report", "input": "tides"},
    ):
        answer = await system.post("/v1/responses", {**body, "background": True}, **hook)
        assert (answer.status_code, answer.json()["status"]) == (200, "queued"), answer.text
        run_id = answer.json()["id"].removeprefix("resp_")
        got = await came(receiver, run_id)
        assert (got.path, got.data["outcome"]) == ("/response", "completed")
        told = (await get(system, f"/v1/responses/resp_{run_id}"))["output"][-1]["content"][0]["text"]
        assert (got.data.get("response") or got.data["result"]["report"]) in told
    without = (await system.post("/v1/responses", {"model": "medium_ai", "input": QUESTION})).json()
    assert await callback_of(system, without["id"].removeprefix("resp_")) is None


async def test_functions_that_a_model_wants_called_are_in_the_callback(called: Called) -> None:
    system, receiver = called
    answer = await system.post(
        "/v1/chat/completions", {**ASKED, "tools": [TOOL], "tool_choice": "required"}, **{HOOK: f"{receiver.url}/tools"}
    )
    [wanted] = answer.json()["choices"][0]["message"]["tool_calls"]
    [got] = (await came(receiver, answer.headers["x-segue-run-id"])).data["tool_calls"]
    assert (got["id"], got["name"], got["arguments"]) == (
        wanted["id"], wanted["function"]["name"], wanted["function"]["arguments"],
    )  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_a_header_that_is_no_url_to_call_is_refused_in_openais_form(called: Called, path: str) -> None:
    """Before anything is begun or streamed, with the header as the parameter."""
    system, _ = called
    words = f"this is never asked of {path}"
    for url in ("https://10.1.2.3/x", "nothing", "https://a.example/a, https://b.example/b", ""):
        for more in ({}, {"stream": True}, {"background": True}):
            body = {"model": "medium_ai", "messages": [{"role": "user", "content": words}], "input": words, **more}
            answer = await system.post(path, body, **{HOOK: url})
            assert answer.status_code == 400, (url, answer.text)
            error = answer.json()["error"]
            assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", HOOK, "callback_url")
    assert not [one for one in await system.ledger() if words in str(one["asked"])]


async def test_a_key_is_for_one_callback(called: Called) -> None:
    """The same question under the same key is another request when its answer is to go elsewhere."""
    system, receiver = called
    key = {"Idempotency-Key": "one callback"}
    first = await system.post("/v1/chat/completions", ASKED, **key, **{HOOK: f"{receiver.url}/one"})
    again = await system.post("/v1/chat/completions", ASKED, **key, **{HOOK: f"{receiver.url}/one"})
    assert (again.status_code, again.headers["idempotency-replayed"]) == (200, "true")
    other = await system.post("/v1/chat/completions", ASKED, **key, **{HOOK: f"{receiver.url}/other"})
    none = await system.post("/v1/chat/completions", ASKED, **key)
    assert [one.status_code for one in (other, none)] == [400, 400]
    run_id = first.headers["x-segue-run-id"]
    await came(receiver, run_id)
    assert (await delivered(system, run_id))["state"] == "delivered"
    assert {got.path for got in of_run(receiver, run_id)} == {"/one"}


@needs_python
async def test_openais_own_client_says_it_in_extra_headers(called: Called) -> None:
    system, receiver = called
    told = await ran(
        CLIENTS / "python", HERE / "openai_callback.py", f"{system.gateway.url}/v1", f"{receiver.url}/client"
    )
    for response_id in told.split():
        assert (await came(receiver, response_id.removeprefix("resp_"))).path == "/client"


async def test_a_question_over_a_socket_is_called_back(called: Called) -> None:
    """Also when the client hangs up at once; a URL that is refused is an error under the message's id."""
    system, receiver = called
    async with connect(f"ws://127.0.0.1:{system.gateway.port}/ws", proxy=None) as client:
        asked = {"type": "chat", "id": 1, "message": QUESTION}
        await client.send(json.dumps({**asked, "callback_url": "https://169.254.169.254/x"}))
        refused = json.loads(await asyncio.wait_for(client.recv(), 30))
        assert (refused["type"], refused["id"], refused["status"]) == ("error", 1, 422)
        assert (refused["detail"][0]["path"], refused["detail"][0]["code"]) == ("$.callback_url", "callback_url")
        await client.send(json.dumps({**asked, "callback_url": f"{receiver.url}/socket"}))
        begun = json.loads(await asyncio.wait_for(client.recv(), 30))
        assert begun["type"] == "accepted"
    got = await came(receiver, begun["run_id"])
    assert (got.path, got.data["session_id"], got.data["outcome"]) == ("/socket", begun["session_id"], "completed")


async def test_a_retry_calls_back_whom_the_first_was_to_call_back(called: Called) -> None:
    """It says whose retry it is; its body can name somebody else, or nobody."""
    system, receiver = called
    hook, other = f"{receiver.url}/first", f"{receiver.url}/elsewhere"
    parent = await failed(system, "/workflow", {**TWO_TASKS, "callback_url": hook}, "fragile")
    assert (await came(receiver, parent)).data["outcome"] == "failed"
    runs = {}
    for name, body in (("same", {}), ("other", {"callback_url": other}), ("none", {"callback_url": None})):
        answer = await system.post(f"/runs/{parent}/retry", body)
        assert answer.status_code == 200, answer.text
        runs[name] = answer.json()["run_id"]
    empty = await system.http.post(f"{system.gateway.url}/runs/{parent}/retry")
    runs["no body"] = empty.json()["run_id"]
    for name, path in (("same", "/first"), ("other", "/elsewhere"), ("no body", "/first")):
        got = await came(receiver, runs[name])
        assert (got.path, got.data["outcome"], got.data["parent"]) == (path, "completed", parent)
    assert await callback_of(system, runs["none"]) is None
    refused = await system.post(f"/runs/{parent}/retry", {"callback_url": "https://10.0.0.1/"})
    assert (refused.status_code, refused.json()["detail"][0]["path"]) == (422, "$.callback_url")


async def test_a_chat_that_failed_is_done_again_for_whoever_waits_for_it(called: Called) -> None:
    system, receiver = called
    chat = await failed(system, "/chat", {"message": QUESTION, "callback_url": f"{receiver.url}/chat"}, QUESTION)
    again = await said(system, "runs", "retry", chat)
    assert again.exit_code == 0, again.output
    got = await came(receiver, again.output.strip())
    assert (got.path, got.data["parent"], got.data["outcome"]) == ("/chat", chat, "completed")


async def test_a_fork_calls_back_only_whom_it_names(called: Called) -> None:
    """It asks something else than its parent, so whoever waits for that one's answer does not get it."""
    system, receiver = called
    asked = await system.post("/workflow", {**TWO_TASKS, "callback_url": f"{receiver.url}/parent"})
    parent = asked.json()["run_id"]
    edits = {"edits": {"b": {"prompt": "other {a}"}}}
    silent = await system.post(f"/runs/{parent}/fork", edits)
    assert await callback_of(system, silent.json()["run_id"]) is None
    named = await said(system, "runs", "fork", parent, "--start-at", "b", "--callback-url", f"{receiver.url}/fork")
    assert named.exit_code == 0, named.output
    got = await came(receiver, named.output.strip())
    assert (got.path, got.data["parent"]) == ("/fork", parent)
    refused = await system.post(f"/runs/{parent}/fork", {**edits, "callback_url": "https://10.0.0.1/"})
    assert (refused.status_code, refused.json()["detail"][0]["path"]) == (422, "$.callback_url")


async def test_a_key_is_for_one_retry_or_fork(called: Called) -> None:
    """Sent again it is the same run, still for the same receiver; another parent, change or receiver is refused."""
    system, receiver = called
    body = {**TWO_TASKS, "callback_url": f"{receiver.url}/first"}
    one, other = [await failed(system, "/workflow", body, "fragile") for _ in range(2)]
    key = {"Idempotency-Key": "one retry"}
    first = await system.post(f"/runs/{one}/retry", {}, **key)
    again = await system.post(f"/runs/{one}/retry", {}, **key)
    assert (first.status_code, again.json()) == (200, first.json())
    for refused in (
        await system.post(f"/runs/{one}/retry", {"callback_url": None}, **key),
        await system.post(f"/runs/{other}/retry", {}, **key),
        await system.post(f"/runs/{one}/fork", {"callback_url": f"{receiver.url}/first"}, **key),
    ):
        assert (refused.status_code, "Idempotency-Key" in refused.text) == (422, True), refused.text


async def test_a_retry_from_the_command_line_says_otherwise(called: Called) -> None:
    system, receiver = called
    parent = await failed(system, "/workflow", {**TWO_TASKS, "callback_url": f"{receiver.url}/first"}, "fragile")
    nobody = await said(system, "runs", "retry", parent, "--no-callback")
    other = await said(system, "runs", "retry", parent, "--callback-url", f"{receiver.url}/cli")
    both = await said(system, "runs", "retry", parent, "--callback-url", f"{receiver.url}/cli", "--no-callback")
    assert [one.exit_code for one in (nobody, other, both)] == [0, 0, 2], (nobody.output, other.output, both.output)
    assert (await came(receiver, other.output.strip())).path == "/cli"

    async def over() -> bool:
        return bool((await get(system, f"/runs/{nobody.output.strip()}"))["state"] == "completed")

    await eventually(over)
    assert await callback_of(system, nobody.output.strip()) is None
