"""`/ws`: several requests at a time over one WebSocket, each answered under its id; whatever is wrong is said."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from services.gateway.http import socket
from services.gateway.origins import Origins
from services.gateway.principal import EVERYBODY, Principal
from shared.bus.server import NatsServer
from shared.config import ConfigInvalid
from shared.contracts.access import Scope
from shared.contracts.commands import SubmitRequest
from shared.contracts.ids import Category
from shared.topology import Limits
from tests.conftest import eventually
from tests.gateway.backstage import Backstage, Command, answer, ended, ending, fault, silence
from tests.gateway.conftest import Stage
from tests.gateway.serving import serving

Said = dict[str, Any]


def address(http: httpx.AsyncClient) -> str:
    return f"ws://{http.base_url.host}:{http.base_url.port}/ws"


@asynccontextmanager
async def talking(http: httpx.AsyncClient, **options: Any) -> AsyncIterator[ClientConnection]:
    async with connect(address(http), proxy=None, **options) as client:
        yield client


async def say(client: ClientConnection, **fields: Any) -> None:
    await client.send(json.dumps(fields))


async def hear(client: ClientConnection) -> Said:
    said: Said = json.loads(await asyncio.wait_for(client.recv(), 20))
    return said


async def until(client: ClientConnection, *kinds: str) -> list[Said]:
    """Return everything up to and with the next message of these types."""
    heard = [await hear(client)]
    while heard[-1]["type"] not in kinds:
        heard.append(await hear(client))
    return heard


async def told(stage: Backstage, command: Command) -> None:
    """Answer in two pieces."""
    assert isinstance(command, SubmitRequest)
    run = (await stage.accept(command)).run
    await stage.categorize(run, Category.M)
    await stage.attempt(run, "answer")
    await stage.token(run, "answer", attempt=1, offset=0, text="Pack ")
    await stage.token(run, "answer", attempt=1, offset=5, text="boxes.")
    await stage.settle(run, "answer", "Pack boxes.")
    await stage.end(ended(run, text="Pack boxes."))


async def test_an_answer_comes_with_everything_before_it(stage: Stage) -> None:
    async with stage() as (http, backstage), talking(http) as client:
        backstage.script = told
        await say(client, type="chat", id="a", message="How do I move?")
        heard = await until(client, "answer")
        assert {one["id"] for one in heard} == {"a"}
        run_id = backstage.taken[0].run.run_id
        assert heard[0] == {"type": "accepted", "id": "a", "run_id": run_id, "session_id": heard[0]["session_id"]}
        facts = [one for one in heard if one["type"] == "event"]
        assert [one["event"] for one in facts] == ["accepted", "category", "attempt", "settled", "ended"]
        assert "".join(one["text"] for one in heard if one["type"] == "token") == "Pack boxes."
        assert (heard[-1]["data"]["response"], heard[-1]["run_id"]) == ("Pack boxes.", run_id)
        # Its session goes on, and what a client does not care for it leaves out.
        backstage.script = answer
        await say(client, type="chat", message="And then?", session_id=heard[0]["session_id"], events=False)
        assert [one["type"] for one in await until(client, "answer")] == ["accepted", "answer"]


async def test_several_requests_go_on_at_the_same_time(stage: Stage) -> None:
    """The second is answered while the first waits; a third with the first one's id is refused until that is over."""
    async with stage() as (http, backstage), talking(http) as client:
        backstage.script = silence
        await say(client, type="chat", id=1, message="slow")
        assert (await until(client, "event"))[-1]["id"] == 1
        backstage.script = answer
        await say(client, type="chat", id=2, message="fast")
        assert (await until(client, "answer"))[-1]["id"] == 2
        await say(client, type="chat", id=1, message="again")
        refused = await hear(client)
        assert (refused["type"], refused["status"], refused["id"]) == ("error", 409, 1)
        await say(client, type="ping", id="p")
        assert await hear(client) == {"type": "pong", "id": "p"}
        await backstage.end(ended(backstage.taken[0].run, text="well"))
        assert (await until(client, "answer"))[-1]["data"]["response"] == "well"


async def test_more_at_once_than_it_takes_is_refused_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "MOST_AT_ONCE", 2)
    async with stage() as (http, backstage), talking(http) as client:
        backstage.script = silence
        for number in range(3):
            await say(client, type="chat", id=number, message="slow", events=False)
        refused = (await until(client, "error"))[-1]
        assert (refused["status"], refused["id"]) == (429, 2)
        await eventually(lambda: backstage.has_taken(2))


async def test_what_cannot_be_understood_is_answered_with_what_to_change(stage: Stage) -> None:
    """And the connection goes on."""
    async with stage() as (http, _), talking(http) as client:
        for said, status, expected in (
            ("{", 422, "EOF"),
            ("[1]", 422, "JSON object"),
            ('{"id": 7}', 422, "chat, subscribe, cancel"),
            ('{"type": "chat", "id": 7}', 422, "Field required"),
            ('{"type": "chat", "id": 7, "message": " "}', 422, "say what you want"),
            ('{"type": "chat", "id": 7, "message": "x", "idempotency_key": "\\u0000"}', 422, "printable"),
            ('{"type": "subscribe", "id": 7, "run_id": "a.b"}', 422, "$.run_id"),
            ('{"type": "subscribe", "id": 7, "run_id": "nobody"}', 404, "no run 'nobody'"),
            ('{"type": "cancel", "id": 7, "run_id": "nobody"}', 404, "no run 'nobody'"),
            ('{"type": "chat", "id": 7, "message": "' + "x" * socket.MOST_BYTES + '"}', 413, "POST /chat"),
            (b"{}", 415, "text frame"),
        ):
            await client.send(said)
            heard = await hear(client)
            assert (heard["type"], heard["status"]) == ("error", status), heard
            assert expected in json.dumps(heard["detail"]), heard
            assert heard.get("id") in (7, None)
        await say(client, type="ping")
        assert await hear(client) == {"type": "pong"}


async def test_a_run_that_fails_and_a_queue_that_is_full_are_errors_of_their_request(stage: Stage) -> None:
    async with stage(limits=Limits(max_queue_depth=1), takes=False) as (http, backstage), talking(http) as client:
        backstage.script = ending(outcome="failed", fault=fault("resource", "deadline", "not done within 20 s", 504))
        await say(client, type="chat", id="first", message="x", events=False)
        assert (await hear(client))["type"] == "accepted"
        await say(client, type="chat", id="second", message="y")
        full = await hear(client)
        assert (full["id"], full["status"], "queue is full" in full["detail"]) == ("second", 503, True)
        await backstage.begin()
        failed = await hear(client)
        assert (failed["type"], failed["id"], failed["status"]) == ("error", "first", 504)
        assert failed["detail"] == "not done within 20 s"


async def test_after_a_reconnect_a_run_is_followed_from_where_one_was(stage: Stage) -> None:
    """The run goes on without its client; what it missed comes, nothing twice, then the answer."""
    async with stage() as (http, backstage):
        backstage.script = silence
        async with talking(http) as client:
            await say(client, type="chat", id="a", message="x", idempotency_key="k")
            seq = (await until(client, "event"))[-1]["seq"]
        run = backstage.taken[0].run
        await backstage.categorize(run, Category.M)
        await backstage.attempt(run, "answer")
        await backstage.knows(run, "answer", 1, "Pack ")
        async with talking(http) as client:
            await say(client, type="subscribe", id="b", run_id=run.run_id, after=seq)
            heard = await until(client, "token")
            assert [one.get("event", one["type"]) for one in heard] == ["accepted", "category", "attempt", "token"]
            assert heard[-1]["text"] == "Pack "
            await backstage.settle(run, "answer", "Pack boxes.")
            await backstage.end(ended(run, text="Pack boxes."))
            heard = await until(client, "answer")
            assert [one.get("event", one["type"]) for one in heard] == ["token", "settled", "ended", "answer"]
            await say(client, type="chat", id="c", message="x", idempotency_key="k", events=False)
            assert (await until(client, "answer"))[-1]["run_id"] == run.run_id, "the same key is the same run"
        assert len(backstage.taken) == 1


async def test_a_credential_for_asking_neither_follows_nor_steers(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a key may do is the same as over HTTP: it asks, and is told what it would need for more."""
    asking = replace(EVERYBODY, scopes=frozenset({Scope.CHAT}))

    async def who_now(_: object) -> Principal:
        return asking

    monkeypatch.setattr(socket, "who_now", who_now)
    async with stage() as (http, _), talking(http) as client:
        for kind, wanted in (("subscribe", "read"), ("cancel", "workflows"), ("approve", "workflows")):
            await say(client, type=kind, id=kind, run_id="r")
            refused = await hear(client)
            assert (refused["id"], refused["status"]) == (kind, 403)
            assert refused["detail"] == f"this needs the scope '{wanted}'; the credential has: chat"
        await say(client, type="chat", message="x", events=False)
        assert (await until(client, "answer"))[-1]["type"] == "answer"


async def test_pages_of_others_may_not_connect(own_nats_server: NatsServer) -> None:
    """A browser says where its page is from: ours may, those that the operator lists may, nobody else."""
    origins = Origins.read({"SEGUE_CORS_ORIGINS": "https://app.example.org"})
    async with (
        Backstage(own_nats_server.url, Limits()) as _,
        serving(own_nats_server.url, origins=origins) as http,
    ):
        for origin in (f"http://{http.base_url.host}:{http.base_url.port}", "https://app.example.org"):
            async with talking(http, origin=origin) as client:
                await say(client, type="ping")
                assert (await hear(client))["type"] == "pong"
        for origin in ("https://evil.example.org", "null", "http://app.example.org"):
            with pytest.raises(InvalidStatus) as refused:
                async with talking(http, origin=origin):
                    pass
            assert refused.value.response.status_code == 403
            assert b"SEGUE_CORS_ORIGINS" in bytes(refused.value.response.body or b"")


def test_what_is_no_origin_is_named() -> None:
    with pytest.raises(ConfigInvalid, match=r"app\.example\.org/path"):
        Origins.read({"SEGUE_CORS_ORIGINS": "https://app.example.org/path"})
    assert Origins.read({"SEGUE_CORS_ORIGINS": "*"}).allow("https://anybody.example", "here")
    assert Origins().allow(None, "here")
    assert not Origins().allow("https://here.evil.example", "here")


async def test_a_silent_socket_is_closed_and_a_busy_one_is_not(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage() as (http, backstage), talking(http) as client:
        backstage.script = silence
        await say(client, type="chat", message="slow", events=False)
        assert (await hear(client))["type"] == "accepted"
        monkeypatch.setattr(socket, "IDLE_S", 0.3)  # from the next message on
        await say(client, type="ping")
        assert (await hear(client))["type"] == "pong"
        await eventually(lambda: backstage.has_taken(1))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.recv(), 1.0)
        await backstage.end(ended(backstage.taken[0].run, text="well"))
        assert (await hear(client))["type"] == "answer"
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(client.recv(), 20)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, "nothing was said" in closed.value.rcvd.reason) == (1001, True)


async def test_a_socket_takes_a_place_and_a_client_that_leaves_frees_it(stage: Stage) -> None:
    """The run goes on; what listened for the client is gone with it."""
    async with stage(waiting=1) as (http, backstage):
        backstage.script = silence
        async with talking(http, subprotocols=["segue"]) as client:
            assert client.subprotocol == "segue"
            await say(client, type="chat", message="x")
            await until(client, "event")
            with pytest.raises(InvalidStatus) as refused:
                async with talking(http):
                    pass
            assert refused.value.response.status_code == 503
        run = backstage.taken[0].run
        await eventually(lambda: unheard(backstage, run))
        backstage.script = answer
        await eventually(lambda: has_room(http))


async def has_room(http: httpx.AsyncClient) -> bool:
    """Whether a socket is taken on: then it is answered."""
    with suppress(InvalidStatus):
        async with talking(http) as client:
            await say(client, type="chat", message="Is there room now?", events=False)
            return bool((await until(client, "answer"))[-1]["type"] == "answer")
    return False


async def unheard(backstage: Backstage, run: Any) -> bool:
    return not await backstage.listeners(run)
