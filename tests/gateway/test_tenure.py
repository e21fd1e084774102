"""An open stream ends when the credential does that opened it, says so where its protocol can, and its run goes on."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from client import AsyncSegue, Event, Unauthorized
from services.gateway import tenure
from services.gateway.gateway import Gateway
from services.gateway.guard import NotKnown
from services.gateway.http import streams
from services.gateway.http.wire import Wire
from services.gateway.identification import Identification
from services.gateway.principal import Principal
from services.gateway.tenure import Asker, CredentialOver, Tenures
from services.gateway.waiting import Stopping, Waiting
from shared.access.records import Records
from shared.bus.buckets import Bucket
from shared.bus.errors import Unavailable
from shared.bus.server import NatsServer
from shared.contracts.access import Allowance, ApiKey
from shared.contracts.message import Run
from tests.conftest import eventually
from tests.gateway.backstage import Backstage, ended, silence
from tests.gateway.guarded import SECRET, bearing, guarded, keys_of, make
from tests.gateway.serving import serving
from tests.gateway.test_ag_ui import asking
from tests.gateway.test_bearers import chosen, counts, provider, token
from tests.gateway.test_socket import hear, say, talking, until

SOON_S = 10.0
"""Well before the deadline of a run, which nobody ends here, and before a stream says that it is still there twice."""
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


@dataclass(slots=True)
class Story:
    """A stream that is open: what it said so far, and whether it has ended."""

    said: str = ""
    over: bool = False

    @property
    def events(self) -> list[dict[str, Any]]:
        """What was said in JSON, one after the other."""
        return [json.loads(line[6:]) for line in self.said.splitlines() if line.startswith("data: {")]


@asynccontextmanager
async def open_stream(http: httpx.AsyncClient, method: str, path: str, body: Any, said: str) -> AsyncIterator[Story]:
    """Open a stream, wait until it has begun, and go on reading it."""
    story = Story()

    async def read() -> None:
        async with http.stream(method, path, json=body, headers=bearing(said)) as response:
            assert response.status_code == 200, await response.aread()
            async for text in response.aiter_text():
                story.said += text
        story.over = True

    task = asyncio.create_task(read())
    try:
        await eventually(lambda: bool(story.said) or task.done())
        if task.done():
            task.result()
        yield story
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def begun(http: httpx.AsyncClient, backstage: Backstage, path: str, body: Any, said: str) -> Run:
    """Begin a run that nobody goes on with but the test."""
    before = len(backstage.taken)
    answer = await http.post(path, json=body, headers=bearing(said))
    assert answer.status_code < 300, answer.text
    await eventually(lambda: len(backstage.taken) == before + 1)
    run = backstage.taken[-1].run
    await eventually(lambda: backstage.bus.log.exists(backstage.facts(run).accepted))
    return run


@asynccontextmanager
async def every_stream(http: httpx.AsyncClient, backstage: Backstage, said: str) -> AsyncIterator[dict[str, Story]]:
    """Open one stream of each kind with a credential."""
    hello = [{"role": "user", "content": "Hi"}]
    model = "segue-auto"
    followed = await begun(http, backstage, "/chat", {"message": "Hi", "async": True}, said)
    background = {"model": model, "input": "Hi", "background": True}
    response = await begun(http, backstage, "/v1/responses", background, said)
    kinds: dict[str, tuple[str, str, Any]] = {
        "events": ("GET", f"/runs/{followed.run_id}/events", None),
        "chat": ("POST", "/chat", {"message": "Hi", "stream": True}),
        "completion": ("POST", "/v1/chat/completions", {"model": model, "messages": hello, "stream": True}),
        "response": ("POST", "/v1/responses", {"model": model, "input": "Hi", "stream": True}),
        "read response": ("GET", f"/v1/responses/resp_{response.run_id}?stream=true", None),
        "ag-ui": ("POST", "/ag-ui", asking()),
    }
    async with AsyncExitStack() as stack:
        yield {
            kind: await stack.enter_async_context(open_stream(http, method, path, body, said))
            for kind, (method, path, body) in kinds.items()
        }


def told_why(kind: str, story: Story, why: str) -> bool:
    """Whether the last that a stream said is that its credential is over, in the words of its protocol."""
    events = story.events
    match kind:
        case "events" | "chat":
            last = next(one for one in reversed(events) if one)  # of /chat, `done` has nothing to say
            return last["status"] == 401 and why in last["detail"] and last["run_id"] in story.said
        case "completion":
            error = events[-1]["error"]
            return "[DONE]" not in story.said and error["code"] == "invalid_api_key" and why in error["message"]
        case "response" | "read response":
            return events[-1]["type"] == "error" and why in events[-1]["message"]
        case "ag-ui":
            return events[-1]["type"] == "RUN_ERROR" and why in events[-1]["message"]
    raise AssertionError(kind)


async def test_every_open_stream_ends_when_its_key_is_revoked(
    own_nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each says why, another key's goes on, and so do the runs. Facts that go by read nothing of the key."""
    reads: list[str] = []
    get = Bucket.get

    async def counting(self: Bucket, key: str, kind: type[Any]) -> tuple[Any, int]:
        reads.extend([key] if key.startswith("key.") else [])
        return await get(self, key, kind)

    async with guarded(own_nats_server) as (http, backstage):
        backstage.script = silence
        key, other = await make(backstage), await make(backstage)
        async with every_stream(http, backstage, key.text) as stories:
            path = f"/runs/{backstage.taken[0].run.run_id}/events"
            async with open_stream(http, "GET", path, None, other.text) as others:
                monkeypatch.setattr(Bucket, "get", counting)
                run = backstage.taken[0].run
                for number in range(20):
                    await backstage.attempt(run, f"0-{number}")
                await eventually(lambda: all("0-19" in one.said for one in (stories["events"], others)))
                assert reads == []
                assert not any(story.over for story in stories.values())

                await keys_of(backstage).revoke(key.key.id)
                await eventually(lambda: all(story.over for story in stories.values()), within_s=SOON_S)
                assert reads.count(f"key.{key.key.id}") <= 2, "once by whoever revokes, once for all streams"
                for kind, story in stories.items():
                    assert told_why(kind, story, "was revoked at"), (kind, story.said[-500:])
                assert not others.over
                await backstage.attempt(run, "1-0")
                await eventually(lambda: "1-0" in others.said)
                await backstage.end(ended(run, text="all the same"))
                await eventually(lambda: others.over)
                assert "event: done" in others.said
        await eventually(lambda: backstage.has_taken(6))
        assert (await http.get(path, headers=bearing(key))).status_code == 401


async def test_a_stream_at_another_gateway_ends_too(own_nats_server: NatsServer) -> None:
    """Each gateway hears of the change by itself, and the place that the stream held is free again."""
    async with (
        guarded(own_nats_server, waiting=2) as (http, backstage),
        serving(own_nats_server.url, identification=Identification("keys", (SECRET,)), waiting=2) as other,
    ):
        backstage.script = silence
        key = await make(backstage)
        run = await begun(http, backstage, "/chat", {"message": "Hi", "async": True}, key.text)
        path = f"/runs/{run.run_id}/events"
        async with (
            open_stream(http, "GET", path, None, key.text) as here,
            open_stream(other, "GET", path, None, key.text) as there,
        ):
            await keys_of(backstage).revoke(key.key.id)
            await eventually(lambda: here.over and there.over, within_s=SOON_S)
            assert told_why("events", here, "was revoked at")
            assert told_why("events", there, "was revoked at")
        fresh = await make(backstage)
        for gateway in (http, other):
            async with open_stream(gateway, "GET", path, None, fresh.text) as story:
                assert not story.over


async def test_a_socket_that_only_listens_is_closed_when_its_key_is_revoked(own_nats_server: NatsServer) -> None:
    async with guarded(own_nats_server) as (http, backstage):
        backstage.script = silence
        key = await make(backstage)
        async with talking(http, additional_headers=bearing(key)) as client:
            await say(client, type="chat", id=1, message="Hello")
            await until(client, "event")
            await keys_of(backstage).revoke(key.key.id)
            async with asyncio.timeout(SOON_S):
                told = (await until(client, "error"))[-1]
                assert (told["status"], "was revoked at" in told["detail"]) == (401, True)
                with pytest.raises(ConnectionClosed) as closed:
                    await hear(client)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008
        run = backstage.taken[0].run
        await backstage.end(ended(run, text="all the same"))
        assert await backstage.bus.log.exists(backstage.facts(run).ended)


async def test_a_stream_ends_when_a_rotated_secret_or_a_key_is_over(own_nats_server: NatsServer) -> None:
    """The old secret's with its grace, the new one's with the key's own end; a change of limits ends none."""
    async with guarded(own_nats_server) as (http, backstage):
        backstage.script = silence
        old = await make(backstage)
        run = await begun(http, backstage, "/chat", {"message": "Hi", "async": True}, old.text)
        path = f"/runs/{run.run_id}/events"
        async with open_stream(http, "GET", path, None, old.text) as first:
            await keys_of(backstage).change(old.key.id, Allowance(requests_per_minute=7))
            # Long enough that it is heard of before: a stream whose secret is over by then is told other words.
            new = await keys_of(backstage).rotate(old.key.id, timedelta(seconds=5))
            assert new is not None
            await eventually(lambda: counts(http, new.text))
            async with open_stream(http, "GET", path, None, new.text) as second:
                await eventually(lambda: first.over, within_s=5 + SOON_S)
                assert told_why("events", first, "ended at")
                assert not second.over

                def ends(record: ApiKey | None) -> ApiKey | None:
                    assert record is not None
                    return record.model_copy(update={"expires_at": datetime.now(UTC) + timedelta(seconds=0.5)})

                await backstage.bus.keys.update(f"key.{old.key.id}", ApiKey, ends)
                await eventually(lambda: second.over, within_s=SOON_S)
                assert "event: error" in second.said


async def test_a_tokens_streams_end_at_its_exp(own_nats_server: NatsServer) -> None:
    """Without any record to look at: a token says itself until when it counts."""
    async with (
        provider() as issuer,
        guarded(own_nats_server, identification=chosen(issuer.url)) as (http, backstage),
    ):
        backstage.script = silence
        exp = int(time.time()) + 3
        long, short = token(), token(exp=exp)
        run = await begun(http, backstage, "/chat", {"message": "Hi", "async": True}, long)
        path = f"/runs/{run.run_id}/events"
        async with (
            open_stream(http, "GET", path, None, long) as going_on,
            open_stream(http, "GET", path, None, short) as story,
        ):
            await eventually(lambda: story.over, within_s=3 + SOON_S + 10)
            assert time.time() >= exp
            assert told_why("events", story, "ended at")
            assert not going_on.over


# What ends, and when, without a bus


@dataclass(slots=True)
class Says:
    """A credential whose end a test decides."""

    found: Principal | Exception
    asked: int = 0

    async def again(self) -> Principal:
        self.asked += 1
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@dataclass(slots=True)
class Watched:
    """A process's streams, and who tells them that a record has changed."""

    tenures: Tenures
    bus: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(on_reconnect=[]))
    on_change: list[Any] = field(default_factory=list)
    waiting: Waiting = field(default_factory=lambda: Waiting(10))

    def changed(self, record: str) -> None:
        for tell in self.on_change:
            tell(record)


@asynccontextmanager
async def watched() -> AsyncIterator[Watched]:
    there = Watched(cast("Tenures", None))
    there.tenures = Tenures(cast("Records", there), lambda: NOW)
    await there.tenures.start()
    try:
        yield there
    finally:
        await there.tenures.stop()


async def hold(there: Watched, says: Says, principal: Principal) -> None:
    """Hold a stream open until it is ended."""
    async with there.waiting.place("acme") as place:
        with there.tenures.holding(place, Asker(principal, "secret", says.again)):
            await asyncio.sleep(60)


async def test_a_stream_whose_credential_is_over_by_then_ends_at_once() -> None:
    """It took longer to open than the credential had left; and nothing is left of it."""
    over = Principal("acme", until=NOW - timedelta(seconds=1))
    async with watched() as there:
        with pytest.raises(CredentialOver, match="ended at 2026-11-29 11:59:59 UTC"):
            await hold(there, Says(over), over)
        assert len(there.tenures) == 0
        assert len(there.waiting) == 0


async def test_a_key_that_was_revoked_before_its_stream_was_held_is_noticed() -> None:
    """The word was said between the request and the stream, when nobody listened for it here."""
    async with watched() as there:
        with pytest.raises(CredentialOver, match="gone"):
            await hold(there, Says(NotKnown("gone")), Principal("acme", "k1"))


async def test_what_cannot_be_looked_up_ends_nothing_and_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the bus is away nobody knows; nobody tells it when it is back, and it is found out all the same."""
    monkeypatch.setattr(tenure, "LOOKED_AT_EVERY_S", 0.05)
    async with watched() as there:
        says = Says(Unavailable("key.k1", 2.0))
        task = asyncio.create_task(hold(there, says, Principal("acme", "k1")))
        await eventually(lambda: says.asked >= 3)
        assert not task.done()
        says.found = NotKnown("gone")
        with pytest.raises(CredentialOver, match="gone"):
            await task


async def test_only_the_streams_of_the_key_that_changed_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """And those of every key after a reconnect, when words may have been missed."""
    monkeypatch.setattr(tenure, "LOOKED_AT_EVERY_S", 3_600.0)
    async with watched() as there:
        mine, others = Says(Principal("acme", "k1")), Says(Principal("acme", "k2"))
        tasks = [
            asyncio.create_task(hold(there, says, cast("Principal", says.found))) for says in (mine, mine, mine, others)
        ]
        await eventually(lambda: len(there.tenures) == 4 and mine.asked >= 1 and others.asked >= 1)
        before, other = mine.asked, others.asked
        there.changed("key.k1")
        there.changed("tenant.acme")
        await eventually(lambda: mine.asked == before + 1)
        assert others.asked == other
        for hook in there.bus.on_reconnect:
            await hook()
        await eventually(lambda: (mine.asked, others.asked) == (before + 2, other + 1))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert len(there.tenures) == 0


async def ended_by(waiting: Waiting, *ends: tuple[float, Exception | None]) -> None:
    """Wait in a place whose ends are set one after the other, so many seconds from now; None: the gateway's own."""
    loop = asyncio.get_running_loop()
    async with waiting.place("acme") as place:
        for left_s, why in ends:
            if why is None:
                waiting.stop_at(loop.time() + left_s)
            else:
                place.end_at(loop.time() + left_s, why)
        await asyncio.sleep(60)


async def test_whoever_takes_nothing_is_let_go_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream whose reader stands still does not outlive its credential by the patience that readers have."""
    monkeypatch.setattr(streams, "FAREWELL_S", 0.05)
    taken: list[str] = []

    async def send(message: Any) -> None:
        taken.append(message["type"])
        if message["type"] == "http.response.body":
            await asyncio.sleep(60)

    over = Principal("acme", until=NOW + timedelta(seconds=0.05))
    async with watched() as there, asyncio.timeout(SOON_S):
        gateway = cast("Gateway", SimpleNamespace(waiting=there.waiting, tenures=there.tenures))
        state = {"principal": over, "asker": Asker(over, "secret", Says(over).again)}
        wire = Wire(send)
        scope = {"type": "http", "path": "/x", "headers": [], "state": state}
        async with streams.streaming(gateway, scope, wire, lambda why: wire.fail(why, "r1")):
            await wire.begin(replayed=False)
            await wire.write(b"data: 1\n\n")
        assert taken == ["http.response.start", "http.response.body", "http.response.body"]
        assert len(there.waiting) == 0


async def test_of_two_ends_the_first_counts_and_says_why() -> None:
    """A gateway that stops does not keep a stream open whose credential ends before, nor the other way round."""
    over = CredentialOver("over")
    with pytest.raises(CredentialOver, match="over"):
        await ended_by(Waiting(10), (60, None), (0, over), (60, None))
    with pytest.raises(Stopping):
        await ended_by(Waiting(10), (60, over), (0, None))


async def test_our_client_is_told_that_its_key_is_over(own_nats_server: NatsServer) -> None:
    """It follows a run over broken connections; this one it does not try again and again."""
    async with guarded(own_nats_server) as (http, backstage):
        backstage.script = silence
        key = await make(backstage)
        run = await begun(http, backstage, "/chat", {"message": "Hi", "async": True}, key.text)
        seen: list[Event] = []

        async def follow() -> None:
            async with AsyncSegue(str(http.base_url), api_key=key.text) as client:
                async for event in client.events(run.run_id):
                    seen.append(event)

        task = asyncio.create_task(follow())
        await eventually(lambda: bool(seen))
        await keys_of(backstage).revoke(key.key.id)
        with pytest.raises(Unauthorized, match="was revoked"):
            await asyncio.wait_for(task, SOON_S)
        assert (seen[-1].name, seen[-1].data["status"]) == ("error", 401)
