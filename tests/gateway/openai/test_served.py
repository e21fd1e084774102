"""The OpenAI front door over a real bus: what becomes of requests, errors in OpenAI's form, streams."""

import asyncio
import json
from typing import Any

import pytest

from shared.contracts.commands import ChatRequest, WorkflowRequest
from shared.topology import Limits
from tests.conftest import eventually
from tests.gateway.backstage import ending, fault
from tests.gateway.conftest import Stage
from tests.gateway.openai.telling import content, events, speaking
from tests.gateway.test_chat import queued

CHAT = "/v1/chat/completions"
HI = {"model": "segue-auto", "messages": [{"role": "user", "content": "Hi"}]}
CODE = {**HI, "model": "code_ai"}


async def test_models_are_us_the_roles_and_the_templates(stage: Stage) -> None:
    async with stage() as (http, _):
        listed = (await http.get("/v1/models")).json()
        assert listed["object"] == "list"
        names = [one["id"] for one in listed["data"]]
        assert names == ["segue-auto", "medium_ai", "thinking_ai", "code_ai", "template/report"]
        assert all({"object", "created", "owned_by"} <= one.keys() for one in listed["data"])
        one = await http.get("/v1/models/template/report")
        assert one.json() == listed["data"][-1]
        assert (await http.get("/v1/models/nobody")).json()["error"]["code"] == "model_not_found"


async def test_the_whole_list_goes_along_and_no_session_is_kept(stage: Stage) -> None:
    """The last question is the message; system messages, history and parameters travel in the conversation."""
    told = [
        {"role": "system", "content": "Be kind"},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "And now?"},
    ]
    async with stage() as (http, backstage):
        answer = await http.post(CHAT, json={"model": "segue-auto", "messages": told, "temperature": 0.5})
        body = answer.json()
        assert answer.status_code == 200
        assert body["choices"][0]["message"]["content"] == "8 characters, 0 images: And now?"
        assert body["id"] == f"chatcmpl-{answer.headers['x-segue-run-id']}"
        assert answer.headers["x-segue-simulated"] == "true"
        (command,) = backstage.taken
        assert isinstance(command.request, ChatRequest)
        assert command.run.session_id is None
        carried = command.request.conversation
        assert carried is not None
        assert carried.role is None
        assert [one.role for one in carried.messages] == ["system", "user", "assistant", "user"]
        assert carried.parameters.temperature == 0.5


async def test_a_role_is_named_in_the_request_and_a_template_is_a_workflow(stage: Stage) -> None:
    async with stage() as (http, backstage):
        await http.post(CHAT, json=CODE)
        body = {
            "model": "template/report",
            "metadata": {"length": "3"},
            "messages": [{"role": "user", "content": "Tides"}],
        }
        answer = (await http.post(CHAT, json=body)).json()
        assert answer["segue"]["result"]["out"] == "3 tasks"
        chat, template = backstage.taken
        assert isinstance(chat.request, ChatRequest)
        assert chat.request.conversation is not None
        assert chat.request.conversation.role == "code_ai"
        assert isinstance(template.request, WorkflowRequest)
        assert template.request.workflow.variables == {"topic": "Tides", "length": 3, "audience": "everyone"}


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({**HI, "model": "gpt-9"}, 404, "model", "model_not_found"),
        ({**HI, "model": "template/none"}, 404, "model", "model_not_found"),
        ({**HI, "n": 3}, 400, "n", "unsupported_value"),
        ({**HI, "temperature": 7}, 400, "temperature", "less_than_equal"),
        ({"model": "segue-auto", "messages": []}, 400, "messages", "too_short"),
        ({**HI, "stop": [7]}, 400, "stop", "string_type"),
        ({**HI, "response_format": {"type": "json_schema"}}, 400, "response_format.json_schema", "missing_schema"),
        ({"model": "segue-auto", "messages": [{"role": "user", "content": ""}]}, 400, "messages", "empty_message"),
        ({"model": "template/report", "messages": HI["messages"]}, 400, "metadata.length", "bad_variable"),
    ],
)
async def test_what_is_refused_is_refused_in_openais_form(
    stage: Stage, body: dict[str, Any], status: int, param: str, code: str
) -> None:
    async with stage() as (http, backstage):
        answer = await http.post(CHAT, json=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"], error["code"]) == (status, param, code)
        assert error["type"] == "invalid_request_error"
        assert not backstage.taken


async def test_errors_before_any_route_are_in_openais_form_too(stage: Stage) -> None:
    async with stage(body_bytes=500) as (http, _):
        for answer in (
            await http.get("/v1/nothing"),
            await http.get(CHAT),
            await http.post(CHAT, content=b"{}"),
            await http.post(CHAT, json={**HI, "user": "x" * 1_000}),
            await http.post(CHAT, content=b"{", headers={"content-type": "application/json"}),
            await http.post(
                CHAT,
                content=b'{"model": "code_ai", "messages": [{"role": "user", "content": "Hi"}], "tools": [{"type": '
                b'"function", "function": {"name": "f", "parameters": {"a": NaN}}}]}',
                headers={"content-type": "application/json"},
            ),
        ):
            assert answer.status_code in (400, 404, 405, 413, 415)
            assert answer.json()["error"]["type"] == "invalid_request_error"
        assert "detail" in (await http.get("/nothing")).json(), "elsewhere errors are as they were"


async def test_full_is_429_or_503_with_a_time_to_come_back(stage: Stage) -> None:
    async with stage(limits=Limits(max_queue_depth_per_tenant=1), takes=False, waiting=1) as (http, backstage):
        first = asyncio.create_task(http.post(CHAT, json=HI))
        await eventually(lambda: queued(backstage, 1))
        second = await http.post(CHAT, json=HI)
        assert (second.status_code, second.json()["error"]["code"]) == (503, "overloaded")
        assert second.headers["retry-after"]
        third = await http.post("/v1/responses", json={"model": "segue-auto", "input": "Hi", "background": True})
        assert (third.status_code, third.json()["error"]["type"]) == (429, "rate_limit_error")
        assert third.headers["retry-after"]
        assert third.json()["error"]["code"] == "rate_limit_exceeded"
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def test_a_run_that_fails_is_final(stage: Stage) -> None:
    async with stage() as (http, backstage):
        backstage.script = ending(
            outcome="failed", text=None, fault=fault("transient", "provider_unavailable", "nobody is there")
        )
        for path, body in ((CHAT, HI), ("/v1/responses", {"model": "segue-auto", "input": "Hi"})):
            answer = await http.post(path, json=body)
            assert (answer.status_code, answer.headers["x-should-retry"]) == (502, "false")
            assert answer.json()["error"]["code"] == "provider_unavailable"


async def test_an_idempotency_key_is_one_run(stage: Stage) -> None:
    key = {"Idempotency-Key": "one"}
    async with stage() as (http, backstage):
        first = await http.post(CHAT, json=HI, headers=key)
        again = await http.post(CHAT, json=HI, headers=key)
        assert again.json() == first.json()
        assert again.headers["idempotency-replayed"] == "true"
        other = await http.post(CHAT, json=CODE, headers=key)
        assert (other.status_code, other.json()["error"]["type"]) == (400, "invalid_request_error")
        streamed = await http.post(CHAT, json={**HI, "stream": True}, headers=key)
        assert content(events(streamed.text)) == first.json()["choices"][0]["message"]["content"]
        assert len(backstage.taken) == 1


async def test_a_stream_brings_the_pieces_as_they_come(stage: Stage) -> None:
    async with stage() as (http, backstage):
        backstage.script = speaking("Hel", "lo")
        answer = await http.post(CHAT, json={**HI, "stream": True, "stream_options": {"include_usage": True}})
        told = events(answer.text)
        assert told[-1] == "[DONE]"
        assert told[-2]["usage"]["total_tokens"] == 18
        assert content(told) == "Hello"
        assert "Category M" in answer.text
        direct = events((await http.post(CHAT, json={**CODE, "stream": True})).text)
        assert "reasoning_content" not in json.dumps(direct), "who answers was the caller's choice: nothing to tell"
        assert content(direct) == "Hello"


async def test_an_attempt_that_begins_again_and_says_the_same_goes_on(stage: Stage) -> None:
    async with stage() as (http, backstage):
        backstage.script = speaking("Hel", restarts="Hello")
        told = events((await http.post(CHAT, json={**HI, "stream": True})).text)
        assert (content(told), told[-1]) == ("Hello", "[DONE]")


async def test_an_attempt_that_says_something_else_is_an_error(stage: Stage) -> None:
    """What has gone out cannot be taken back: the stream says so, and where the whole answer is."""
    async with stage() as (http, backstage):
        heard = asyncio.Event()
        backstage.script = speaking("Hel", restarts="Goodbye", heard=heard)
        told = list[str]()
        async with http.stream("POST", CHAT, json={**HI, "stream": True}) as answer:
            async for line in answer.aiter_lines():
                told.append(line)
                if '"Hel"' in line:
                    heard.set()
        *_, last = events("\n".join(told))
        assert last["error"]["code"] == "stream_began_again"
        whole = await http.get(f"/v1/responses/resp_{answer.headers['x-segue-run-id']}")
        assert whole.json()["output"][-1]["content"][0]["text"] == "Goodbye"


async def test_a_stream_that_fails_ends_with_its_error(stage: Stage) -> None:
    async with stage() as (http, backstage):
        bad = fault("transient", "stream_cut", "cut")
        backstage.script = speaking("Hel", outcome="failed", fault=bad)
        told = events((await http.post(CHAT, json={**HI, "stream": True})).text)
        assert told[-1]["error"]["code"] == "stream_cut"
        assert "[DONE]" not in told
