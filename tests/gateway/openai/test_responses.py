"""Responses over a real bus: queued, streamed and taken up again, gone on from, referred to, deleted."""

import asyncio
from typing import Any

import httpx
import pytest

from services.gateway.http.openai import stored
from shared.bus.server import NatsServer
from shared.contracts.commands import SubmitRequest
from shared.contracts.ids import Category
from tests.conftest import eventually
from tests.gateway.backstage import Backstage, Command, ended, silence
from tests.gateway.conftest import Stage
from tests.gateway.openai.telling import attempt, events, speaking
from tests.gateway.serving import serving


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


async def test_a_response_that_was_not_taken_up_is_not_waited_for_to_have_items(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be very many in one request."""
    monkeypatch.setattr(stored, "ACCEPTED_WITHIN_S", 3_600)
    async with stage(takes=False) as (http, _):
        hi = {"model": "code_ai", "input": "Hi", "background": True}
        waiting = (await http.post("/v1/responses", json=hi)).json()["id"].removeprefix("resp_")
        given = [{"type": "item_reference", "id": f"msg_{waiting}.in0"}, {"role": "user", "content": "Go on"}]
        answer = await http.post("/v1/responses", json={"model": "code_ai", "input": given})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "item_not_found")


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
