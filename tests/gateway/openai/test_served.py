"""The OpenAI front door over a real bus: what becomes of requests, errors in OpenAI's form, streams, responses."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from shared.bus.server import NatsServer
from shared.contracts.commands import ChatRequest, SubmitRequest, WorkflowRequest
from shared.contracts.events import AttemptStarted
from shared.contracts.ids import Category, Purpose
from shared.contracts.message import Run
from shared.topology import Limits
from tests.conftest import eventually
from tests.gateway.backstage import Backstage, Command, ended, ending, fault, silence
from tests.gateway.conftest import Stage
from tests.gateway.serving import serving
from tests.gateway.test_chat import queued

CHAT = "/v1/chat/completions"
HI = {"model": "segue-auto", "messages": [{"role": "user", "content": "Hi"}]}
CODE = {**HI, "model": "code_ai"}


async def attempt(stage: Backstage, run: Run, number: int = 1) -> None:
    """Claim an attempt of the call that answers."""
    fact = AttemptStarted(
        run=run,
        call="answer",
        attempt=number,
        role="medium_ai",
        provider="openrouter",
        model="maker/medium_ai",
        claimed_by="x.y",
        started_at=datetime.now(UTC),
    )
    await stage.bus.log.write(stage.facts(run).attempt(Purpose.ANSWER, "answer", number), fact)


def speaking(*pieces: str, restarts: str | None = None, heard: asyncio.Event | None = None, **end: Any) -> Any:
    """Return a script that says its pieces; `restarts`: what a second attempt says instead, once they were heard."""

    async def script(stage: Backstage, command: Command) -> None:
        run = (await stage.accept(command)).run
        await stage.categorize(run, Category.M)
        await attempt(stage, run)
        said = ""
        for piece in pieces:
            await stage.token(run, "answer", attempt=1, offset=len(said), text=piece)
            said += piece
        if heard is not None:
            await asyncio.wait_for(heard.wait(), 10)
        if restarts is not None:
            await attempt(stage, run, 2)
            await stage.token(run, "answer", attempt=2, restart=True)
            await stage.token(run, "answer", attempt=2, offset=0, text=restarts)
            said = restarts
        await stage.client.flush()
        await stage.end(ended(run, **{"text": said, **end}))

    return script


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def content(told: list[Any]) -> str:
    chunks = [one for one in told if isinstance(one, dict) and one.get("choices")]
    return "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks)


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


async def test_a_background_response_is_queued_until_it_is_taken_up(stage: Stage) -> None:
    """Its state comes from the bus alone: no service has taken it, and it can be read."""
    async with stage(takes=False) as (http, backstage):
        begun = (
            await http.post("/v1/responses", json={"model": "segue-auto", "input": "Hi", "background": True})
        ).json()
        assert (begun["status"], begun["background"], begun["output"]) == ("queued", True, [])
        assert begun["id"].startswith("resp_")
        waiting = (await http.get(f"/v1/responses/{begun['id']}")).json()
        assert (waiting["id"], waiting["status"]) == (begun["id"], "queued")
        await backstage.begin()
        body = await until(http, begun["id"], "completed")
        assert body["output"][-1]["content"][0]["text"] == "2 characters, 0 images: Hi"
        assert body["model"] == "segue-auto"


async def test_a_response_that_waits_is_streamed_with_the_numbers_that_it_has_later(stage: Stage) -> None:
    """They depend on what was asked, which is not known before: nothing is told before the run is taken up."""
    async with stage(takes=False) as (http, backstage):
        body = {"model": "medium_ai", "input": "Hi", "background": True}
        begun = (await http.post("/v1/responses", json=body)).json()
        where, asked = f"/v1/responses/{begun['id']}", {"stream": "true"}
        async with http.stream("GET", where, params=asked) as early:
            assert early.status_code == 200
            await backstage.begin()
            told = events((await early.aread()).decode())
        later = events((await http.get(where, params=asked)).text)
        assert told[0]["response"]["model"] == "medium_ai"
        assert [one for one in told if "delta" not in one["type"]] == [
            one for one in later if "delta" not in one["type"]
        ]
        assert text(told) == text(later)


async def until(http: httpx.AsyncClient, response_id: str, status: str) -> dict[str, Any]:
    """Return a response once it has a status."""
    body = dict[str, Any]()

    async def there() -> bool:
        nonlocal body
        body = (await http.get(f"/v1/responses/{response_id}")).json()
        return bool(body.get("status") == status)

    await eventually(there)
    return body


async def test_a_stream_is_taken_up_at_another_gateway(stage: Stage, own_nats_server: NatsServer) -> None:
    """Numbers follow from the log: any gateway tells the rest behind the last one, each event once."""
    async with stage() as (http, backstage):
        backstage.script = speaking("Hello, ", "who is there?")
        body = {"model": "segue-auto", "input": "Hi", "stream": True}
        told = events((await http.post("/v1/responses", json=body)).text)
        response_id = told[0]["response"]["id"]
        async with serving(own_nats_server.url) as other:
            for place in range(len(told)):
                last = told[place]["sequence_number"]
                asked = {"stream": "true", "starting_after": str(last)}
                rest = events((await other.get(f"/v1/responses/{response_id}", params=asked)).text)
                had = [one for one in told[: place + 1]]
                assert text(had) + text(rest) == "Hello, who is there?"
                assert [one["type"] for one in rest if "delta" not in one["type"]] == [
                    one["type"] for one in told[place + 1 :] if "delta" not in one["type"]
                ]
            bad = await other.get(f"/v1/responses/{response_id}", params={"stream": "true", "starting_after": "x"})
            assert (bad.status_code, bad.json()["error"]["param"]) == (400, "starting_after")


async def test_a_stream_is_taken_up_in_the_middle_of_its_text(stage: Stage, own_nats_server: NatsServer) -> None:
    """Another gateway asks whoever streams what it says so far, and goes on behind what the reader has."""
    left, taken_up = asyncio.Event(), asyncio.Event()
    first, second = "Hello, ", "who is there?"

    async def script(stage: Backstage, command: Command) -> None:
        run = (await stage.accept(command)).run
        await stage.categorize(run, Category.M)
        await attempt(stage, run)
        await stage.token(run, "answer", attempt=1, offset=0, text=first)
        await asyncio.wait_for(left.wait(), 10)
        await stage.knows(run, "answer", 1, f"{first}wh")
        await asyncio.wait_for(taken_up.wait(), 10)
        await stage.token(run, "answer", attempt=1, offset=len(first) + 2, text=second[2:])
        await stage.client.flush()
        await stage.end(ended(run, text=first + second))

    async with stage() as (http, backstage), serving(own_nats_server.url) as other:
        backstage.script = script
        had, rest = list[Any](), list[Any]()
        body = {"model": "segue-auto", "input": "Hi", "stream": True}
        async with http.stream("POST", "/v1/responses", json=body) as answer:
            async for line in answer.aiter_lines():
                had += events(line)
                if text(had):
                    break
        left.set()
        url = f"/v1/responses/{had[0]['response']['id']}"
        after = {"stream": "true", "starting_after": str(had[-1]["sequence_number"])}
        async with other.stream("GET", url, params=after) as answer:
            async for line in answer.aiter_lines():
                rest += events(line)
                if text(rest) == "wh":
                    taken_up.set()
        assert text(had) + text(rest) == first + second
        assert taken_up.is_set(), "it did not wait for the end"
        assert rest[-1]["type"] == "response.completed"


def text(told: list[Any]) -> str:
    return "".join(one["delta"] for one in told if one["type"] == "response.output_text.delta")


async def test_the_next_turn_reads_the_one_before_from_the_log(stage: Stage) -> None:
    """Instructions are one turn's only; what was said and answered is carried on."""
    async with stage() as (http, backstage):
        first = {"model": "code_ai", "input": "My name is Bo", "instructions": "Be kind", "metadata": {"a": "b"}}
        one = (await http.post("/v1/responses", json=first)).json()
        assert (one["metadata"], one["instructions"]) == ({"a": "b"}, "Be kind")
        two = {"model": "code_ai", "input": "Who am I?", "previous_response_id": one["id"]}
        answer = (await http.post("/v1/responses", json=two)).json()
        assert answer["previous_response_id"] == one["id"]
        command = backstage.taken[-1]
        assert isinstance(command, SubmitRequest)
        assert command.request.conversation is not None
        assert [(m.role, m.content) for m in command.request.conversation.told] == [
            ("user", "My name is Bo"),
            ("assistant", one["output"][-1]["content"][0]["text"]),
            ("user", "Who am I?"),
        ]
        items = (await http.get(f"/v1/responses/{answer['id']}/input_items?order=asc")).json()
        assert [item["role"] for item in items["data"]] == ["user", "assistant", "user"]


async def test_a_response_that_is_not_there_cannot_be_read_or_gone_on_from(stage: Stage) -> None:
    async with stage() as (http, backstage):
        unstored = (await http.post("/v1/responses", json={"model": "code_ai", "input": "Hi", "store": False})).json()
        deleted = (await http.post("/v1/responses", json={"model": "code_ai", "input": "Hi"})).json()
        gone = (await http.delete(f"/v1/responses/{deleted['id']}")).json()
        assert gone == {"id": deleted["id"], "object": "response", "deleted": True}
        chat = (await http.post("/chat", json={"message": "Hi"})).json()
        for response_id in (
            unstored["id"],
            deleted["id"],
            "resp_none",
            "resp_a.b",
            "nothing",
            f"resp_{chat['run_id']}",
        ):
            answer = await http.get(f"/v1/responses/{response_id}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
            then = {"model": "code_ai", "input": "Hi", "previous_response_id": response_id}
            assert (await http.post("/v1/responses", json=then)).status_code == 404
        backstage.script = silence
        begun = (await http.post("/v1/responses", json={"model": "code_ai", "input": "Hi", "background": True})).json()
        then = {"model": "code_ai", "input": "Hi", "previous_response_id": begun["id"]}
        early = await http.post("/v1/responses", json=then)
        assert early.status_code == 400
        assert early.json()["error"]["code"] == "previous_response_not_completed"


async def test_items_of_stored_responses_can_be_referred_to(stage: Stage) -> None:
    """By their ids alone, what was asked as well as what was answered; reasoning is left out, as where it is sent."""
    async with stage() as (http, backstage):
        first = {"model": "code_ai", "input": [{"role": "user", "content": "My name is Bo"}]}
        one = (await http.post("/v1/responses", json=first)).json()
        asked = (await http.get(f"/v1/responses/{one['id']}/input_items")).json()["data"]
        said = one["output"][-1]
        given = [
            {"type": "item_reference", "id": asked[0]["id"]},
            {"type": "item_reference", "id": f"rs_{one['id'].removeprefix('resp_')}"},
            {"id": said["id"]},
            {"role": "user", "content": "Who am I?"},
        ]
        answer = await http.post("/v1/responses", json={"model": "code_ai", "input": given})
        assert answer.status_code == 200, answer.text
        command = backstage.taken[-1]
        assert isinstance(command, SubmitRequest)
        assert command.request.conversation is not None
        assert [(m.role, m.content) for m in command.request.conversation.told] == [
            ("user", "My name is Bo"),
            ("assistant", said["content"][0]["text"]),
            ("user", "Who am I?"),
        ]
        for missing in ("msg_none", "nothing", f"{said['id']}.7", ""):
            item = {"type": "item_reference", "id": missing}
            refused = await http.post("/v1/responses", json={"model": "code_ai", "input": [item, *given]})
            error = refused.json()["error"]
            assert (refused.status_code, error["code"], error["param"]) == (404, "item_not_found", "input[0].id")


async def test_what_is_referred_to_is_bounded(stage: Stage) -> None:
    """A small body can refer to much: by one item named often, and by many responses."""
    async with stage() as (http, _):
        one = (await http.post("/v1/responses", json={"model": "code_ai", "input": "x" * 200_000})).json()
        asked = (await http.get(f"/v1/responses/{one['id']}/input_items")).json()["data"][0]
        item = {"type": "item_reference", "id": asked["id"]}
        often = await http.post("/v1/responses", json={"model": "code_ai", "input": [item] * 100})
        assert (often.status_code, often.json()["error"]["code"]) == (413, "too_large")
        many = [{"type": "item_reference", "id": f"msg_{number}"} for number in range(201)]
        refused = await http.post("/v1/responses", json={"model": "code_ai", "input": many})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "too_many_references")


async def test_cancelling_what_has_ended_shows_it_as_it_is(stage: Stage) -> None:
    async with stage() as (http, _):
        one = (await http.post("/v1/responses", json={"model": "code_ai", "input": "Hi"})).json()
        again = await http.post(f"/v1/responses/{one['id']}/cancel")
        assert (again.status_code, again.json()["status"]) == (200, "completed")
