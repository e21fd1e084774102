"""Who are you, may you: keys at the door, as they are made, used up, rotated and revoked."""

import asyncio
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import httpx
import pytest
from starlette.requests import HTTPConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from services.gateway import app
from services.gateway import keys as keys_module
from services.gateway.guard import Guard, NotKnown
from services.gateway.http.access import Access
from services.gateway.http.identity import who
from services.gateway.identification import Identification
from services.gateway.principal import Principal
from shared.access import letters
from shared.access.book import NewKey
from shared.bus.buckets import Bucket
from shared.bus.server import NatsServer
from shared.contracts.access import Allowance, Scope, Tenant
from shared.contracts.message import Message
from tests.conftest import eventually
from tests.gateway.guarded import SECRET, bearing, guarded, keys_of, make
from tests.gateway.serving import ROLES, serving
from tests.gateway.test_socket import hear, say, talking, until

M = TypeVar("M", bound=Message)

OPEN = ("/", "/health", "/healthz", "/readyz", "/metrics", "/docs", "/redoc", "/openapi.json")


async def test_without_a_key_nothing_but_health_and_the_description_answers(own_nats_server: NatsServer) -> None:
    """401 says how to send one, before the body is looked at and before a route is looked for."""
    async with guarded(own_nats_server, takes=False) as (http, _):
        for path in OPEN:
            await eventually(partial(opens, http, path))
        for method, path in (("GET", "/models"), ("POST", "/chat"), ("GET", "/nowhere"), ("GET", "/admin/keys")):
            answer = await http.request(method, path)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith('Bearer realm="segue"')
            assert "x-api-key" in answer.json()["detail"]
            assert answer.headers["x-request-id"]


async def opens(http: httpx.AsyncClient, path: str) -> bool:
    """Whether a page is shown; health is when the bus takes a write in time."""
    answer = await http.get(path)
    assert answer.status_code in (200, 503), (path, answer.text)
    return answer.status_code == 200


async def test_a_key_is_taken_in_either_header_and_names_its_tenant(own_nats_server: NatsServer) -> None:
    """Whatever the body says of a tenant."""
    async with guarded(own_nats_server) as (http, backstage):
        key = await make(backstage, "acme", Scope.CHAT)
        for headers in (bearing(key), {"x-api-key": key.text}, {"Authorization": f"bearer  {key.text}"}):
            answer = await http.post("/chat", json={"message": "hello", "tenant": "other"}, headers=headers)
            assert answer.status_code == 200, answer.text
        assert {command.run.tenant for command in backstage.taken} == {"acme"}
        assert {command.run.key for command in backstage.taken} == {key.key.id}


@pytest.mark.parametrize(
    "wrong",
    [
        "sk-proj-somebody-elses",
        "sgk_",
        "sgk_aaaaaaaaaaaaaaaa_" + "a" * 39,
        letters.make(b"x" * letters.CHANCE_BYTES, b"another secret").text,
        "\u00e9" * 8,
    ],
)
async def test_what_is_no_key_of_ours_is_refused(own_nats_server: NatsServer, wrong: str) -> None:
    async with guarded(own_nats_server, takes=False) as (http, _):
        answer = await http.get("/models", headers={b"Authorization": f"Bearer {wrong}".encode()})
        assert answer.status_code == 401


async def test_a_key_with_another_ends_secret_is_refused(own_nats_server: NatsServer) -> None:
    """The id alone opens nothing."""
    async with guarded(own_nats_server, takes=False) as (http, backstage):
        key = await make(backstage)
        forged = letters.make(b"y" * letters.CHANCE_BYTES, SECRET, id=key.key.id)
        assert (await http.get("/models", headers=bearing(forged.text))).status_code == 401
        assert (await http.get("/models", headers=bearing(key))).status_code == 200


async def test_a_scope_opens_what_it_says_and_nothing_else(own_nats_server: NatsServer) -> None:
    async with guarded(own_nats_server) as (http, backstage):
        workflow = {"workflow": [{"type": "inline", "tasks": [{"model": "medium_ai", "prompt": "x"}]}]}
        requests = {
            Scope.CHAT: ("POST", "/chat", {"message": "x"}),
            Scope.WORKFLOWS: ("POST", "/workflow", workflow),
            Scope.READ: ("GET", "/models", None),
            Scope.ADMIN: ("GET", "/admin/keys", None),
        }
        for has in Scope:
            key = await make(backstage, "acme", has)
            for wants, (method, path, body) in requests.items():
                answer = await http.request(method, path, json=body, headers=bearing(key))
                assert answer.status_code == (200 if has is wants else 403), (has, wants, answer.text)
                if has is not wants:
                    assert f"scope {wants.value!r}" in answer.json()["detail"]
                    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


class Clock:
    """The gateway's, which a test puts on."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(app, "_now", found)
    return found


async def test_an_expired_key_is_refused_with_the_time(own_nats_server: NatsServer, clock: Clock) -> None:
    async with guarded(own_nats_server, takes=False) as (http, backstage):
        key = await make(backstage, expires_at=datetime.now(UTC) + timedelta(hours=1))
        assert (await http.get("/models", headers=bearing(key))).status_code == 200
        clock.ahead = timedelta(hours=1)
        answer = await http.get("/models", headers=bearing(key))
        assert (answer.status_code, "expired at" in answer.json()["detail"]) == (401, True)


async def test_a_rotated_key_has_two_secrets_for_a_while(own_nats_server: NatsServer, clock: Clock) -> None:
    """The old one until its grace is over, the new one at once; both are the same key."""
    async with guarded(own_nats_server, takes=False) as (http, backstage):
        admin = await make(backstage, "ops", Scope.ADMIN)
        old = await make(backstage, "acme", Scope.READ)
        answer = await http.post(f"/admin/keys/{old.key.id}/rotate", json={"grace_s": 3600}, headers=bearing(admin))
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        new = answer.json()["api_key"]
        assert answer.json()["key"]["id"] == old.key.id
        assert new != old.text

        async def heard() -> bool:
            return (await http.get("/models", headers=bearing(new))).status_code == 200

        await eventually(heard)
        assert (await http.get("/models", headers=bearing(old))).status_code == 200
        clock.ahead = timedelta(hours=1)
        assert (await http.get("/models", headers=bearing(old))).status_code == 401
        assert (await http.get("/models", headers=bearing(new))).status_code == 200


async def test_a_revoked_key_is_refused_by_every_gateway_within_a_second(own_nats_server: NatsServer) -> None:
    async with (
        guarded(own_nats_server, takes=False) as (http, backstage),
        serving(own_nats_server.url, identification=Identification("keys", (SECRET,))) as other,
    ):
        admin = await make(backstage, "ops", Scope.ADMIN)

        async def revoked() -> float:
            """Revoke a key that counts; returns how long it took until no gateway took it any more."""
            key = await make(backstage)
            for gateway in (http, other):
                assert (await gateway.get("/models", headers=bearing(key))).status_code == 200
            answer = await http.post(f"/admin/keys/{key.key.id}/revoke", headers=bearing(admin))
            assert answer.json()["state"] == "revoked"

            async def refused() -> bool:
                answers = [await gateway.get("/models", headers=bearing(key)) for gateway in (http, other)]
                return all(one.status_code == 401 and "revoked at" in one.json()["detail"] for one in answers)

            return await eventually(refused)

        assert min([await revoked() for _ in range(3)]) < 1.0, "but for what the machine itself may stand still"


async def test_a_socket_that_is_open_asks_nothing_more_once_its_key_is_revoked(own_nats_server: NatsServer) -> None:
    """It was let in with a key that counted; each message is looked at anew, with the limits of that moment."""
    async with guarded(own_nats_server) as (http, backstage):
        key = await make(backstage)
        async with talking(http, additional_headers=bearing(key)) as client:
            await say(client, type="chat", id=1, message="Hello")
            assert (await until(client, "answer", "error"))[-1]["type"] == "answer"
            await keys_of(backstage).change(key.key.id, Allowance(requests_per_minute=1))

            async def limited() -> bool:
                await say(client, type="chat", message="Hello")
                return (await until(client, "answer", "error"))[-1].get("status") == 429

            await eventually(limited)
            await keys_of(backstage).revoke(key.key.id)

            heard: list[dict[str, Any]] = []

            async def asking_on() -> None:
                while True:  # it may be closed before a message is refused, while one is sent, or after
                    with suppress(ConnectionClosed):
                        await say(client, type="chat", message="Hello")
                    heard.append(await hear(client))

            with pytest.raises(ConnectionClosed) as closed:
                await asyncio.wait_for(asking_on(), 30.0)
            assert {one["type"] for one in heard} == {"error"}
            assert "revoked at" in heard[-1]["detail"]
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008


async def test_no_tenant_alone_takes_every_place(own_nats_server: NatsServer) -> None:
    """Four places: of one tenant's four sockets the last is refused, and another tenant is still answered."""
    async with guarded(own_nats_server, waiting=4) as (http, backstage), AsyncExitStack() as open_:
        greedy, other = await make(backstage, "greedy"), await make(backstage, "other")
        for _ in range(3):
            await open_.enter_async_context(talking(http, additional_headers=bearing(greedy)))
        with pytest.raises(InvalidStatus) as refused:
            await open_.enter_async_context(talking(http, additional_headers=bearing(greedy)))
        assert refused.value.response.status_code == 503
        assert (await http.post("/chat", json={"message": "Hello"}, headers=bearing(other))).status_code == 200


async def test_the_secret_is_shown_once_and_kept_nowhere(own_nats_server: NatsServer) -> None:
    """What the bus has is a digest; what is listed is how it begins and its last four letters."""
    async with guarded(own_nats_server, takes=False) as (http, backstage):
        admin = await make(backstage, "ops", Scope.ADMIN)
        made = await http.post("/admin/keys", json={"name": "ci", "tenant": "acme"}, headers=bearing(admin))
        assert made.status_code == 201, made.text
        text, id_ = made.json()["api_key"], made.json()["key"]["id"]
        assert made.json()["key"]["scopes"] == ["chat", "workflows", "read"]
        assert made.json()["key"]["by"] == f"key {admin.key.id}"
        stored = await backstage.bus.jetstream.last("KV_keys", f"$KV.keys.key.{id_}")
        assert stored is not None
        assert text[-39:-7].encode() not in stored.data
        listed = (await http.get("/admin/keys?tenant=acme", headers=bearing(admin))).json()
        assert [one["id"] for one in listed["keys"]] == [id_]
        assert listed["keys"][0]["shown_as"] == f"sgk_{id_}_…{text[-4:]}"
        assert text not in str(listed)
        assert (await http.delete(f"/admin/keys/{id_}", headers=bearing(admin))).status_code == 200
        assert (await http.get("/models", headers=bearing(text))).status_code == 401
        assert (await http.get(f"/admin/keys/{id_}", headers=bearing(admin))).status_code == 404


async def test_wrong_keys_do_not_reach_the_bus(own_nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids that nobody made under our secret are looked up only so often, and an id that is not there only once."""
    reads: list[str] = []
    get = Bucket.get

    async def counting(self: Bucket, key: str, kind: type[M]) -> tuple[M | None, int]:
        if key.startswith("key."):
            reads.append(key)
        return await get(self, key, kind)

    monkeypatch.setattr(Bucket, "get", counting)
    monkeypatch.setattr(keys_module, "MISSES_AT_ONCE", 5.0)
    monkeypatch.setattr(keys_module, "MISSES_A_SECOND", 0.001)
    async with guarded(own_nats_server, takes=False) as (http, backstage):
        key = await make(backstage)
        assert (await http.get("/models", headers=bearing(key))).status_code == 200
        reads.clear()
        chances = [bytes([number]) * letters.CHANCE_BYTES for number in range(120)]
        strangers = [letters.make(chance, b"a stranger's secret").text for chance in chances]
        answers = [(await http.get("/models", headers=bearing(text))).status_code for text in strangers]
        assert set(answers) == {401, 429}
        assert len(reads) <= 100
        reads.clear()
        deleted = letters.make(b"z" * letters.CHANCE_BYTES, SECRET).text
        for _ in range(50):
            assert (await http.get("/models", headers=bearing(deleted))).status_code == 401
        assert len(reads) == 1
        assert (await http.get("/models", headers=bearing(key))).status_code == 200


async def test_a_server_secret_is_changed_without_a_key_being_lost(own_nats_server: NatsServer) -> None:
    """With both secrets old keys work and new ones are made under the first; rotated, a key works without the old."""
    fresh = b"another-secret-of-a-test-long-enough"
    async with guarded(own_nats_server, takes=False) as (http, backstage):
        key = await make(backstage)
        assert (await http.get("/models", headers=bearing(key))).status_code == 200
        both, only = Identification("keys", (fresh, SECRET)), Identification("keys", (fresh,))
        async with (
            serving(own_nats_server.url, identification=both) as between,
            serving(own_nats_server.url, identification=only) as after,
        ):
            assert (await between.get("/models", headers=bearing(key))).status_code == 200
            assert (await after.get("/models", headers=bearing(key))).status_code == 401
            rotated = await keys_of(backstage, fresh, SECRET).rotate(key.key.id, timedelta(hours=1))
            assert rotated is not None

            async def works() -> bool:
                return (await after.get("/models", headers=bearing(rotated.text))).status_code == 200

            await eventually(works)


async def test_the_first_key_is_there_only_once_however_many_ask(own_nats_server: NatsServer) -> None:
    """A cold key that many requests bring at once is read once."""
    async with guarded(own_nats_server, takes=False) as (http, backstage):
        key = await make(backstage)
        answers = await asyncio.gather(*(http.get("/models", headers=bearing(key)) for _ in range(40)))
        assert {one.status_code for one in answers} == {200}


async def test_a_priority_above_what_a_key_may_ask_is_served_as_that(own_nats_server: NatsServer) -> None:
    async with guarded(own_nats_server) as (http, backstage):
        key = await make(backstage, priority="low")
        for priority in ("high", "medium", "low"):
            body = {"message": "x", "priority": priority}
            assert (await http.post("/chat", json=body, headers=bearing(key))).status_code == 200
        assert [command.run.priority for command in backstage.taken] == ["low", "low", "low"]


async def test_a_tenants_limits_are_written_read_and_taken_away(own_nats_server: NatsServer) -> None:
    """They count for all its keys together, at once; a misspelt limit is refused."""
    async with guarded(own_nats_server) as (http, backstage):
        admin, one, two = await make(backstage, "ops"), await make(backstage), await make(backstage)
        wrong = await http.put("/admin/tenants/acme", json={"limits": {"usd_a_day": 1}}, headers=bearing(admin))
        assert (wrong.status_code, "usd_a_day" in wrong.text) == (422, True)
        unknown = await http.put("/admin/tenants/acme", json={"limits": {"models": ["gpt"]}}, headers=bearing(admin))
        assert (unknown.status_code, "medium_ai" in unknown.text) == (422, True)
        limits = {"concurrent_runs": 0}
        written = await http.put("/admin/tenants/acme", json={"limits": limits}, headers=bearing(admin))
        assert written.status_code == 200, written.text

        async def stopped() -> bool:
            answers = [await http.post("/chat", json={"message": "x"}, headers=bearing(key)) for key in (one, two)]
            return [answer.status_code for answer in answers] == [429, 429]

        await eventually(stopped)
        read = (await http.get("/admin/tenants/acme", headers=bearing(admin))).json()
        assert read["limits"]["concurrent_runs"] == 0
        assert read["used"]["concurrent_runs"] == 0
        assert (await http.delete("/admin/tenants/acme", headers=bearing(admin))).status_code == 200
        assert (await http.get("/admin/tenants/acme", headers=bearing(admin))).status_code == 404

        async def free() -> bool:
            return (await http.post("/chat", json={"message": "x"}, headers=bearing(one))).status_code == 200

        await eventually(free)


class Known:
    """Knows one credential."""

    async def principal_of(self, credential: str | None) -> Principal:
        if credential != "the-key":
            raise NotKnown("another, please")
        return Principal("acme", scopes=frozenset({Scope.CHAT}))


async def through(headers: list[tuple[bytes, bytes]], path: str = "/ws", **scope: Any) -> tuple[list[Any], str | None]:
    """Send a WebSocket through the door; returns what was answered, and the tenant that came through."""
    sent: list[Any] = []
    came: list[str] = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        came.append(who(HTTPConnection(scope)).tenant)

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    given = {"type": "websocket", "path": path, "headers": headers, **scope}
    await Access(inside, Guard(Known()))(given, receive, send)
    return sent, came[0] if came else None


async def test_a_websocket_says_who_it_is_in_a_header_or_where_browsers_can() -> None:
    """`new WebSocket(url, ["segue", "bearer.<key>"])`; without it the handshake is refused."""
    for headers in (
        [(b"authorization", b"Bearer the-key")],
        [(b"x-api-key", b"the-key")],
        [(b"sec-websocket-protocol", b"segue, bearer.the-key")],
    ):
        assert await through(headers) == ([], "acme")
    refused, came = await through([(b"sec-websocket-protocol", b"segue, bearer.other")])
    assert (refused[0]["type"], refused[0]["code"], came) == ("websocket.close", 1008, None)
    told, came = await through([], extensions={"websocket.http.response": {}})
    assert (told[0]["type"], told[0]["status"], came) == ("websocket.http.response.start", 401, None)
    missing, came = await through([(b"x-api-key", b"the-key")], path="/admin/ws")
    assert (missing[0]["type"], came) == ("websocket.close", None)


async def test_openai_clients_are_told_in_their_own_form(own_nats_server: NatsServer) -> None:
    """A missing key, a missing scope, a limit and a model that is not allowed: each with `error.message` and a code."""
    async with guarded(own_nats_server) as (http, backstage):
        body = {"model": "thinking_ai", "messages": [{"role": "user", "content": "Hi"}]}
        reading = await make(backstage, "acme", Scope.READ)
        narrow = await make(backstage, models=("medium_ai",))
        full = await make(backstage, concurrent_runs=0)
        told = []
        for headers in ({}, bearing(reading), bearing(narrow), bearing(full)):
            answer = await http.post("/v1/chat/completions", json=body, headers=headers)
            told.append((answer.status_code, bool(answer.json()["error"]["message"])))
        assert told == [(401, True), (403, True), (403, True), (429, True)]
        allowed = {**body, "model": "medium_ai"}
        assert (await http.post("/v1/chat/completions", json=allowed, headers=bearing(narrow))).status_code == 200


async def test_only_the_models_that_a_key_may_ask_are_listed(own_nats_server: NatsServer) -> None:
    """By its own list and its tenant's; a template is one of them if every role behind it is."""
    async with guarded(own_nats_server, takes=False) as (http, backstage):

        async def listed(key: NewKey) -> tuple[list[str], list[str]]:
            ours = (await http.get("/models", headers=bearing(key))).json()
            theirs = (await http.get("/v1/models", headers=bearing(key))).json()
            assert ours["count"] == len(ours["models"])
            return [one["name"] for one in ours["models"]], [one["id"] for one in theirs["data"]]

        everything = ["segue-auto", *ROLES, "template/report"]
        assert await listed(await make(backstage)) == (list(ROLES), everything)
        both = await make(backstage, models=("medium_ai", "thinking_ai"))
        assert await listed(both) == (
            ["medium_ai", "thinking_ai"],
            ["segue-auto", "medium_ai", "thinking_ai", "template/report"],
        )
        narrow = await make(backstage, models=("medium_ai",))
        assert await listed(narrow) == (["medium_ai"], ["segue-auto", "medium_ai"])
        for name in ("thinking_ai", "template/report"):
            missing = await http.get(f"/v1/models/{name}", headers=bearing(narrow))
            assert (missing.status_code, "code_ai" in missing.text) == (404, False)
        assert (await http.get("/v1/models/medium_ai", headers=bearing(narrow))).status_code == 200
        assert await listed(await make(backstage, models=())) == ([], [])

        limits = Allowance(models=("thinking_ai", "code_ai"))
        await keys_of(backstage).write_tenant(
            Tenant(name="acme", allowance=limits, written_at=datetime.now(UTC), by="a test")
        )

        async def narrower() -> bool:
            return await listed(both) == (["thinking_ai"], ["segue-auto", "thinking_ai"])

        await eventually(narrower)
