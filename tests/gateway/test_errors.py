"""What goes wrong behind the door is said with a status, a `detail` and what to do."""

import pytest

from services.gateway.http import catalogue
from shared import subjects
from shared.bus.jetstream import JetStream
from shared.bus.payloads import HEADER
from shared.bus.server import NatsServer
from shared.contracts.ids import run_id_of_key
from tests.gateway.conftest import Stage

QUESTION = {"message": "Why is the sky blue?"}
KEY = {"Idempotency-Key": "one"}
ENDED = subjects.events("default", run_id_of_key("default", "one")).ended


async def test_a_bus_that_does_not_answer_is_said(
    stage: Stage, own_nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 with a time to come back and the run's id: whether the request was kept is not known."""
    defaults = JetStream.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "patience_s", 0.3)
    monkeypatch.setitem(defaults, "timeout_s", 0.2)
    async with stage(takes=False) as (http, _):
        own_nats_server.kill()
        answer = await http.post("/chat", json=QUESTION)
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert answer.json()["run_id"] == answer.headers["x-segue-run-id"]
        assert "SEGUE_NATS_URL" in answer.json()["detail"]
        session = await http.get("/session/somebody")
        assert (session.status_code, "NATS" in session.json()["detail"]) == (503, True)
        assert (await http.get("/stats")).status_code == 503
        await own_nats_server.start()


async def test_a_stream_that_is_missing_is_named(stage: Stage) -> None:
    async with stage(takes=False) as (http, backstage):
        await backstage.client.jetstream().delete_stream("CALLS")
        answer = await http.get("/stats")
        assert answer.status_code == 503
        assert "CALLS" in answer.json()["detail"]
        assert "shared.provision" in answer.json()["detail"]


async def test_a_log_of_a_later_version_is_not_guessed_at(stage: Stage) -> None:
    async with stage(takes=False) as (http, backstage):
        await backstage.bus.jetstream.publish(ENDED, b'{"v": 9}')
        for stream in (False, True):
            answer = await http.post("/chat", json={**QUESTION, "stream": stream}, headers=KEY)
            assert answer.status_code == 500
            assert "cannot read" in answer.json()["detail"]


async def test_an_answer_whose_body_has_aged_away_says_so(stage: Stage) -> None:
    async with stage(takes=False) as (http, backstage):
        await backstage.bus.jetstream.publish(ENDED, b"", headers={HEADER: "0" * 64})
        answer = await http.post("/chat", json=QUESTION, headers=KEY)
        assert answer.status_code == 500
        assert "object store" in answer.json()["detail"]


async def test_a_mistake_of_ours_is_an_answer_too(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 with a detail that leads to the log, and nothing of the exception itself."""

    def broken(_: object) -> object:
        raise RuntimeError("the inner life of the gateway")

    async with stage(takes=False) as (http, _):
        monkeypatch.setattr(catalogue, "gateway_of", broken)
        answer = await http.get("/models")
        assert answer.status_code == 500
        assert "X-Request-Id" in answer.json()["detail"]
        assert "inner life" not in answer.text
        assert answer.headers["x-request-id"]
