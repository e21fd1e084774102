"""Health, models, addons, templates, statistics, probes, the generated description."""

import asyncio

import httpx

from shared import version
from shared.bus.server import NatsServer
from shared.contracts.ids import Verb
from tests.conftest import eventually
from tests.gateway.conftest import Client, Stage
from tests.gateway.test_chat import queued


async def test_health_says_that_requests_can_be_taken(stage: Stage) -> None:
    async with stage() as (http, _):
        for path in ("/", "/health"):
            answer = await shown(http, path)
            body = answer.json()
            assert body == {
                "status": "healthy",
                "timestamp": body["timestamp"],
                "version": "1.2.3",
                "models_available": 3,
                "name": "Segue under test",
                "problem": None,
            }
        assert (await http.get("/healthz")).json() == {"status": "alive", "service": "gateway", "version": version()}
        ready = await shown(http, "/readyz")
        assert ready.json() == {"status": "ready", "service": "gateway"}


async def test_health_follows_the_bus(stage: Stage, own_nats_server: NatsServer) -> None:
    """Without the bus nothing can be taken: it says so and why, is alive all the same, and comes back by itself."""
    async with stage() as (http, _):
        own_nats_server.kill()
        await eventually(lambda: status(http, "/readyz", 503))
        answer = await http.get("/health")
        assert (answer.status_code, answer.json()["status"]) == (503, "unhealthy")
        assert "NATS" in answer.json()["problem"]
        assert await status(http, "/healthz", 200)
        await own_nats_server.start()
        await eventually(lambda: status(http, "/readyz", 200), within_s=30)


async def test_what_is_offered_is_listed(stage: Stage) -> None:
    async with stage() as (http, _):
        models = (await http.get("/models")).json()
        assert models["count"] == 3
        assert models["models"][0] == {
            "name": "medium_ai",
            "provider": "openrouter",
            "model": "maker/medium_ai",
            "purpose": "to be medium_ai",
            "available": True,
            "simulated": False,
            "disabled": None,
            "fallbacks": [],
            "weight": 100,
            "variants": {},
            "expires_on": None,
            "version": None,
        }
        assert (await http.get("/addons")).json() == {"addons": ["executive_summary", "newsletter"], "count": 2}
        templates = (await http.get("/templates")).json()
        assert templates["count"] == 1
        report = templates["templates"][0]
        assert (report["name"], report["description"], report["steps"]) == ("report", "A report about a topic.", 3)
        assert [(one["name"], one["required"], one["type"], one["default"]) for one in report["parameters"]] == [
            ("topic", True, "string", None),
            ("length", True, "integer", None),
            ("audience", False, "string", "everyone"),
        ]


async def test_statistics_are_counted_by_the_streams(stage: Stage) -> None:
    async with stage(takes=False) as (http, backstage):
        before = (await http.get("/stats")).json()
        assert (before["active_sessions"], before["total_messages"], before["waiting_requests"]) == (0, 0, 0)
        asking = [asyncio.create_task(http.post("/chat", json={"message": "x"})) for _ in range(3)]
        await eventually(lambda: queued(backstage, 3))
        during = (await http.get("/stats")).json()
        assert (during["total_messages"], during["queued_requests"], during["waiting_requests"]) == (3, 3, 3)
        await backstage.begin()
        await asyncio.gather(*asking)
        await eventually(lambda: queued(backstage, 0))
        after = (await http.get("/stats")).json()
        assert after["active_sessions"] == 3
        assert (after["total_messages"], after["queued_requests"], after["waiting_requests"]) == (3, 0, 0)
        assert after["uptime_seconds"] >= before["uptime_seconds"] >= 0
        assert after["timestamp"] > before["timestamp"]


async def test_metrics_count_what_was_answered(stage: Stage) -> None:
    """By kind and status; the probes are not requests."""
    async with stage() as (http, _):
        before = await counted(http)
        await http.post("/chat", json={"message": "x"})
        await http.post("/chat", json={})
        await http.get("/models")
        await http.get("/nowhere")
        await http.get("/healthz")
        after = await counted(http)
        assert {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)} == {
            'kind="chat",status="200"': 1,
            'kind="chat",status="422"': 1,
            'kind="catalogue",status="200"': 1,
            'kind="catalogue",status="404"': 1,
        }


async def test_the_interface_describes_itself(stage: Stage) -> None:
    """The description has every path, and the bodies that are parsed by hand."""
    async with stage() as (http, _):
        described = (await http.get("/openapi.json")).json()
        assert set(described["paths"]) == {
            "/ag-ui",
            "/chat",
            "/workflow",
            "/plan",
            "/runs",
            "/unknown-attempts",
            "/usage",
            "/template/{name}",
            "/runs/{run_id}",
            *(
                f"/runs/{{run_id}}/{part}"
                for part in ("timeline", "events", "graph", "outputs/{name}", "retry", "fork", "callback")
            ),
            *(f"/runs/{{run_id}}/{verb}" for verb in Verb),
            "/session/{session_id}",
            "/health",
            "/models",
            "/models/{name}",
            "/models/{name}/disable",
            "/models/{name}/enable",
            "/providers",
            "/providers/{name}",
            "/providers/{name}/disable",
            "/providers/{name}/enable",
            "/addons",
            "/templates",
            "/templates/{name}",
            "/templates/{name}/versions",
            "/artifacts/{artifact_id}",
            "/breakers",
            "/breakers/reset",
            "/admin/keys",
            "/admin/keys/{key_id}",
            *(f"/admin/keys/{{key_id}}/{part}" for part in ("limits", "rotate", "revoke")),
            "/admin/tenants",
            "/admin/tenants/{name}",
            "/schedules",
            "/schedules/{name}",
            "/stats",
            "/v1/models",
            "/v1/models/{model}",
            "/v1/chat/completions",
            "/v1/embeddings",
            "/v1/responses",
            "/v1/responses/{response_id}",
            "/v1/responses/{response_id}/cancel",
            "/v1/responses/{response_id}/input_items",
        }
        chat = described["paths"]["/chat"]["post"]
        body = chat["requestBody"]["content"]["application/json"]["schema"]
        assert body["required"] == ["message"]
        assert body["properties"]["priority"]["enum"] == ["high", "medium", "low"]
        assert "ChatAnswer" in str(chat["responses"]["200"])
        assert "#/$defs" not in str(described)
        for page in ("/docs", "/redoc"):
            assert (await http.get(page)).headers["content-type"].startswith("text/html")


async def status(http: Client, path: str, expected: int) -> bool:
    return (await http.get(path)).status_code == expected


async def shown(http: Client, path: str) -> httpx.Response:
    """Return a page of health once it says yes: it says no while the bus does not take a write in time."""
    answers = list[httpx.Response]()

    async def well() -> bool:
        answers.append(await http.get(path))
        return answers[-1].status_code == 200

    await eventually(well)
    return answers[-1]


async def counted(http: Client) -> dict[str, float]:
    found = {}
    for line in (await http.get("/metrics")).text.splitlines():
        if line.startswith("segue_http_requests_total{"):
            labels, value = line.removeprefix("segue_http_requests_total{").split("} ")
            found[labels] = float(value)
    return found
