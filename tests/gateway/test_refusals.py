"""What a key that is refused for what it may is told: why, by which code, and whether to come back."""

from typing import Any

from shared.bus.server import NatsServer
from tests.gateway.conftest import Stage
from tests.gateway.guarded import bearing, guarded, make

HI: dict[str, Any] = {"model": "segue-auto", "messages": [{"role": "user", "content": "Hi"}]}


async def test_whoever_may_begin_nothing_is_not_told_to_wait(own_nats_server: NatsServer) -> None:
    """A limit of 0 does not pass: no `Retry-After`, and OpenAI's clients, which would wait twice, do not try again."""
    async with guarded(own_nats_server) as (http, backstage):
        for limit in ("requests_per_minute", "concurrent_runs"):
            nothing: dict[str, Any] = {limit: 0}
            key = await make(backstage, **nothing)
            plain = await http.post("/chat", json={"message": "x"}, headers=bearing(key))
            theirs = await http.post("/v1/chat/completions", json=HI, headers=bearing(key))
            for refused in (plain, theirs):
                assert refused.status_code == 429
                assert "Retry-After" not in refused.headers
                assert "will not change by waiting" in refused.json()["error"]["message"]
            assert theirs.headers["x-should-retry"] == "false"
            assert theirs.json()["error"]["code"] == "rate_limit_exceeded"


async def test_a_budget_that_is_used_up_says_so_to_openai_s_clients_too(own_nats_server: NatsServer) -> None:
    """By the code that a run fails with which meets it on its way; it lasts for the day, so they do not try again."""
    async with guarded(own_nats_server) as (http, backstage):
        for status, limit in ((402, "usd_per_day"), (429, "tokens_per_day")):
            nothing: dict[str, Any] = {limit: 0}
            key = await make(backstage, **nothing)
            refused = await http.post("/v1/chat/completions", json=HI, headers=bearing(key))
            assert (refused.status_code, refused.json()["error"]["code"]) == (status, "budget_exceeded")
            assert refused.headers["Retry-After"]
            assert refused.headers["x-should-retry"] == "false"


async def test_a_role_that_is_not_the_key_s_is_refused_by_its_code(own_nats_server: NatsServer) -> None:
    """At every door the same that a run fails with."""
    async with guarded(own_nats_server) as (http, backstage):
        key = await make(backstage, models=("fast_ai",))
        task = {"model": "medium_ai", "prompt": "Say", "output_variable": "said"}
        workflow = {"workflow": [{"type": "inline", "tasks": [task]}]}
        for path, body in (("/workflow", workflow), ("/v1/chat/completions", {**HI, "model": "medium_ai"})):
            refused = await http.post(path, json=body, headers=bearing(key))
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")


async def test_whoever_may_ask_no_model_is_not_told_of_any(own_nats_server: NatsServer) -> None:
    """Nor that there is the one which it was told is not there."""
    async with guarded(own_nats_server) as (http, backstage):
        key = await make(backstage, models=())
        absent = await http.get("/v1/models/segue-auto", headers=bearing(key))
        assert absent.status_code == 404
        assert "there are" not in absent.json()["error"]["message"]
        key = await make(backstage, models=("medium_ai",))
        absent = await http.get("/v1/models/nope", headers=bearing(key))
        assert "there are segue-auto, medium_ai, and template/" in absent.json()["error"]["message"]


async def test_a_callback_into_a_closed_network_says_what_opens_it(stage: Stage) -> None:
    async with stage() as (http, _):
        for url in ("https://10.1.2.3/", "https://ours.internal/"):
            refused = await http.post("/chat", json={"message": "x", "callback_url": url})
            assert refused.status_code == 422
            assert "SEGUE_ALLOWED_NETWORKS" in refused.text


async def test_an_entry_that_cannot_be_read_says_what_to_do(stage: Stage) -> None:
    """And that does it: what is written over it is there."""
    async with stage() as (http, backstage):
        await backstage.bus.jetstream.publish("$KV.registry.template.default.odd", b'{"v": 99}')
        unreadable = await http.get("/templates/odd")
        assert unreadable.status_code == 500
        assert "a PUT of the template" in unreadable.json()["detail"]
        task = {"model": "medium_ai", "prompt": "Say", "output_variable": "said"}
        document = {"description": "A test's.", "workflow": [{"type": "inline", "tasks": [task]}]}
        assert (await http.put("/templates/odd", json=document)).status_code in (200, 201)
        assert (await http.get("/templates/odd")).status_code == 200
