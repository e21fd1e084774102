"""What is a tenant's is seen by that tenant alone: every route is tried with another tenant's ids.

A route that is new has to be put into `CASES`, or the first test fails.
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from services.gateway.app import application
from services.gateway.bounds import Bounds
from services.gateway.http.scopes import OPEN, needed
from shared.bus.server import NatsServer
from shared.contracts.access import Scope
from shared.contracts.ids import new_run_id
from shared.contracts.message import Artifact
from tests.conftest import eventually
from tests.gateway.backstage import Backstage
from tests.gateway.guarded import bearing, guarded, make
from tests.gateway.serving import listings
from tests.gateway.test_ag_ui import asking
from tests.gateway.test_socket import hear, say, talking

TASK = {"model": "medium_ai", "prompt": "Write of moles", "output_variable": "text"}
TEMPLATE = {"description": "owner's", "workflow": [{"type": "inline", "tasks": [TASK]}]}
MARK = "a secret word: zibeline"


@dataclass(frozen=True)
class Id:
    """A route about one thing: asked for another's, and for one that nobody has, it answers the same."""

    of: str
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class List:
    """A route that lists or sums: nothing of another tenant's is in it."""


@dataclass(frozen=True)
class Own:
    """A route that makes something of the caller's own, whatever the name is elsewhere."""

    body: Mapping[str, Any]


@dataclass(frozen=True)
class Nobodys:
    """A route without anything of a tenant's, or one of the operators'."""


@dataclass(frozen=True)
class Socket:
    """Messages about runs over one connection: tried by a test of its own."""


Case = Id | List | Own | Nobodys | Socket
AGAIN: Mapping[str, Any] = {}
CASES: Mapping[tuple[str, str], Case] = {
    ("POST", "/chat"): Own({"message": "Who was here?", "session_id": "{session}"}),
    ("POST", "/ag-ui"): Own(asking(thread="{session}")),
    ("WEBSOCKET", "/ws"): Socket(),
    ("POST", "/v1/chat/completions"): Own({"model": "segue-auto", "messages": [{"role": "user", "content": "Hi"}]}),
    ("POST", "/v1/responses"): Own({"model": "segue-auto", "input": "Hi"}),
    ("POST", "/v1/embeddings"): Own({"model": "medium_ai", "input": "Hi"}),
    ("GET", "/v1/models"): List(),
    ("GET", "/v1/models/{model:path}"): Id("model"),
    ("GET", "/v1/responses/{response_id}"): Id("response"),
    ("GET", "/v1/responses/{response_id}/input_items"): Id("response"),
    ("POST", "/v1/responses/{response_id}/cancel"): Id("response", {}),
    ("DELETE", "/v1/responses/{response_id}"): Id("response"),
    ("POST", "/workflow"): Own({"workflow": [{"type": "inline", "tasks": [TASK]}]}),
    ("POST", "/template/{name}"): Id("template", AGAIN),
    ("POST", "/plan"): Own({"workflow": [{"type": "inline", "tasks": [TASK]}]}),
    ("GET", "/runs"): List(),
    ("GET", "/usage"): List(),
    ("GET", "/unknown-attempts"): List(),
    ("POST", "/runs/{run_id}/callback"): Id("run", {}),
    ("GET", "/runs/{run_id}"): Id("run"),
    ("GET", "/runs/{run_id}/timeline"): Id("run"),
    ("GET", "/runs/{run_id}/graph"): Id("run"),
    ("GET", "/runs/{run_id}/outputs/{name}"): Id("run"),
    ("GET", "/runs/{run_id}/events"): Id("run"),
    ("POST", "/runs/{run_id}/cancel"): Id("run", {}),
    ("POST", "/runs/{run_id}/pause"): Id("run", {}),
    ("POST", "/runs/{run_id}/resume"): Id("run", {}),
    ("POST", "/runs/{run_id}/approve"): Id("run", {}),
    ("POST", "/runs/{run_id}/reject"): Id("run", {}),
    ("POST", "/runs/{run_id}/retry"): Id("run", {}),
    ("POST", "/runs/{run_id}/fork"): Id("run", {"start_at": ["text"]}),
    ("GET", "/templates"): List(),
    ("GET", "/templates/{name}"): Id("template"),
    ("GET", "/templates/{name}/versions"): Id("template"),
    ("PUT", "/templates/{name}"): Own(TEMPLATE),
    ("DELETE", "/templates/{name}"): Id("template"),
    ("GET", "/schedules"): List(),
    ("GET", "/schedules/{name}"): Id("schedule"),
    ("PUT", "/schedules/{name}"): Id("schedule", {"template": "{template}", "every": "1h"}),
    ("DELETE", "/schedules/{name}"): Id("schedule"),
    ("GET", "/artifacts/{artifact_id}"): Id("artifact"),
    ("GET", "/session/{session_id}"): Id("session"),
    ("DELETE", "/session/{session_id}"): Id("session"),
    **{("GET", path): Nobodys() for path in ("/models/{name}", "/providers")},
    **{
        (method, f"/{what}/{{name}}{tail}"): Nobodys()
        for what in ("models", "providers")
        for method, tail in (("PUT", ""), ("DELETE", ""), ("POST", "/enable"), ("POST", "/disable"))
    },
    ("GET", "/breakers"): Nobodys(),
    ("POST", "/breakers/reset"): Nobodys(),
    **{("GET", path): Nobodys() for path in (*OPEN, "/models", "/addons", "/stats")},
    **{
        (method, path): Nobodys()
        for method, path in (
            ("GET", "/admin/keys"),
            ("POST", "/admin/keys"),
            ("GET", "/admin/keys/{key_id}"),
            ("PUT", "/admin/keys/{key_id}/limits"),
            ("POST", "/admin/keys/{key_id}/rotate"),
            ("POST", "/admin/keys/{key_id}/revoke"),
            ("DELETE", "/admin/keys/{key_id}"),
            ("GET", "/admin/tenants"),
            ("GET", "/admin/tenants/{name}"),
            ("PUT", "/admin/tenants/{name}"),
            ("DELETE", "/admin/tenants/{name}"),
        )
    },
}
PARAMETERS = ("run_id", "artifact_id", "session_id", "response_id", "model:path", "name")


def routes() -> set[tuple[str, str]]:
    """Return every route of the application."""
    app: Any = application("nats://127.0.0.1:1", listings(), Bounds())
    while not hasattr(app, "router"):
        app = app._app
    return {
        (method, route.path)
        for route in app.router.routes
        for method in (getattr(route, "methods", None) or {"WEBSOCKET"}) - {"HEAD"}
    }


def test_every_route_is_tried() -> None:
    """A route that is not in `CASES` has not been thought about."""
    assert routes() == set(CASES)


def test_what_is_of_no_tenant_is_the_operators_or_open() -> None:
    """But for lists of what the system offers, and its figures."""
    for (method, path), case in CASES.items():
        scope = needed(method, path)
        if path.startswith(("/admin", "/breakers", "/providers")) or (path.startswith("/models") and method != "GET"):
            assert scope is Scope.ADMIN
        elif isinstance(case, Nobodys) and path not in ("/models", "/models/{name}", "/addons", "/stats"):
            assert scope is None
        else:
            assert scope is not None, path


async def test_another_tenants_things_are_as_if_they_were_not(own_nats_server: NatsServer, tmp_path: Path) -> None:
    """The same status and body as for an id that nobody has; afterwards the owner has everything as it was."""
    async with guarded(own_nats_server, tmp_path) as (http, backstage):
        owner, other = bearing(await make(backstage, "owner")), bearing(await make(backstage, "other"))
        there = await owned(http, backstage, owner)
        before = await seen(http, owner, there)
        nowhere = {"run": new_run_id(), "template": "no-such-name", "schedule": "no-such-plan"}
        nowhere |= {"model": "template/no-such-name", "response": f"resp_{new_run_id()}"}
        nowhere |= {"artifact": secrets.token_hex(16), "session": secrets.token_hex(16)}
        for (method, path), case in CASES.items():
            match case:
                case Id():
                    theirs = await ask(http, method, path, case.of, case.body, there, other)
                    nobodys = await ask(http, method, path, case.of, case.body, nowhere, other)
                    assert theirs == nobodys, (method, path)
                    assert theirs[0] in (404, 409), (method, path, theirs)
                case List():
                    answer = await http.get(path, headers=other)
                    assert answer.status_code == 200, (path, answer.text)
                    assert not any(mark in answer.text for mark in (*there.values(), MARK, "owner")), (
                        path,
                        answer.text,
                    )
        for (method, path), case in CASES.items():
            if isinstance(case, Own):
                body = json.loads(json.dumps(case.body).replace("{session}", there["session"]))
                url = path.replace("{name}", there["template"])
                answer = await http.request(method, url, json=body, headers=other)
                assert answer.status_code in (200, 201), (path, answer.text)
                assert MARK not in answer.text
        assert await seen(http, owner, there) == before
        mine = await http.get(f"/session/{there['session']}", headers=other)
        assert MARK not in mine.text, "the same name is another conversation"


async def test_responses_of_another_tenant_cannot_be_gone_on_from(own_nats_server: NatsServer) -> None:
    """Whole, or by their items: the same as for those that nobody has. Their owner can."""
    async with guarded(own_nats_server) as (http, backstage):
        owner, other = bearing(await make(backstage, "owner")), bearing(await make(backstage, "other"))
        asked = {"model": "segue-auto", "input": MARK}
        there = (await http.post("/v1/responses", json=asked, headers=owner)).json()
        run_id, nobodys = there["id"].removeprefix("resp_"), new_run_id()
        refers: list[dict[str, Any]] = [
            {"input": "Hi", "previous_response_id": there["id"]},
            {"input": [{"type": "item_reference", "id": there["output"][-1]["id"]}]},
            {"input": [{"type": "item_reference", "id": f"msg_{run_id}.in0"}]},
        ]
        for one in refers:
            body = {"model": "segue-auto", **one}
            theirs = await http.post("/v1/responses", json=body, headers=other)
            none = await http.post(
                "/v1/responses", json=json.loads(json.dumps(body).replace(run_id, nobodys)), headers=other
            )
            assert theirs.status_code == none.status_code == 404
            assert theirs.text.replace(run_id, nobodys) == none.text
            mine = await http.post("/v1/responses", json=body, headers=owner)
            assert mine.status_code == 200, mine.text


async def test_a_websocket_knows_no_run_of_another_tenant(own_nats_server: NatsServer) -> None:
    """Followed, cancelled or decided about: the same answer as for a run that nobody has."""
    async with guarded(own_nats_server) as (http, backstage):
        owner, other = bearing(await make(backstage, "owner")), bearing(await make(backstage, "other"))
        run_id = (await http.post("/chat", json={"message": MARK}, headers=owner)).json()["run_id"]
        async with talking(http, additional_headers=other) as client:
            for kind in ("subscribe", "cancel", "approve", "reject"):
                said = []
                for asked in (run_id, new_run_id()):
                    await say(client, type=kind, id="x", run_id=asked)
                    said.append(json.dumps(await hear(client)).replace(asked, "<id>"))
                assert said[0] == said[1], kind
                assert "there is no run" in said[0]
                assert MARK not in said[0]
        async with talking(http, additional_headers=owner) as client:
            await say(client, type="subscribe", id="y", run_id=run_id)
            assert (await hear(client))["type"] == "accepted"


async def owned(http: httpx.AsyncClient, backstage: Backstage, owner: Mapping[str, str]) -> dict[str, str]:
    """Make one of everything, and return the ids."""
    asked = await http.post("/chat", json={"message": MARK}, headers=owner)
    assert asked.status_code == 200, asked.text
    assert (await http.put("/templates/owners-own", json=TEMPLATE, headers=owner)).status_code == 201
    schedule = {"template": "owners-own", "every": "1h"}
    assert (await http.put("/schedules/owners-plan", json=schedule, headers=owner)).status_code == 201
    artifact = Artifact(
        id=secrets.token_hex(16), media_type="image/png", bytes=3, expires_at=datetime.now(UTC) + timedelta(days=1)
    )
    await backstage.bus.artifacts.store(f"owner/{artifact.id}", b"png", {"media_type": "image/png"})

    async def told() -> bool:
        return bool((await http.get("/runs", headers=owner)).json()["runs"])

    await eventually(told)
    answered = await http.post("/v1/responses", json={"model": "segue-auto", "input": MARK}, headers=owner)
    assert answered.status_code == 200, answered.text
    body = asked.json()
    return {
        "model": "template/owners-own",
        "response": answered.json()["id"],
        "run": body["run_id"],
        "session": body["session_id"],
        "template": "owners-own",
        "schedule": "owners-plan",
        "artifact": artifact.id,
    }


async def seen(http: httpx.AsyncClient, owner: Mapping[str, str], there: Mapping[str, str]) -> list[tuple[int, str]]:
    """Return what the owner sees of all of it."""
    urls = (
        f"/runs/{there['run']}",
        f"/session/{there['session']}",
        f"/templates/{there['template']}/versions",
        f"/schedules/{there['schedule']}",
        f"/artifacts/{there['artifact']}",
        f"/v1/responses/{there['response']}",
        f"/v1/models/{there['model']}",
    )
    answers = [await http.get(url, headers=owner) for url in urls]
    assert all(answer.status_code == 200 for answer in answers), [answer.text for answer in answers]
    return [(answer.status_code, answer.text) for answer in answers]


async def ask(
    http: httpx.AsyncClient,
    method: str,
    path: str,
    of: str,
    body: Mapping[str, Any] | None,
    ids: Mapping[str, str],
    headers: Mapping[str, str],
) -> tuple[int, str]:
    """Return status and body of a route with one of these ids, which is taken out of the body."""
    url = path
    for parameter in PARAMETERS:
        url = url.replace(f"{{{parameter}}}", ids[of], 1)
    given = None if body is None else json.loads(json.dumps(body).replace("{template}", ids["template"]))
    answer = await http.request(method, url, json=given, headers=headers)
    text = answer.text
    for id_ in sorted(ids.values(), key=len, reverse=True):
        text = text.replace(id_, "<id>")
    return answer.status_code, text


async def test_usage_of_all_tenants_is_for_operators(own_nats_server: NatsServer, tmp_path: Path) -> None:
    """By tenant it is everybody's, which a key without the scope `admin` does not get."""
    async with guarded(own_nats_server, tmp_path) as (http, backstage):
        reader = bearing(await make(backstage, "owner", Scope.READ, Scope.CHAT))
        operator = bearing(await make(backstage, "operators"))
        refused = await http.get("/usage?by=tenant", headers=reader)
        assert (refused.status_code, "admin" in refused.json()["detail"]) == (403, True)
        assert (await http.get("/usage?by=model", headers=reader)).status_code == 200
        assert (await http.get("/usage?by=tenant,model", headers=operator)).status_code == 200
