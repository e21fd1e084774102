"""Templates and schedules over HTTP: written, versioned, refused with reasons, started."""

from typing import Any

import pytest

from shared import subjects
from shared.contracts.commands import PlanRun, WorkflowRequest
from shared.contracts.registry import ScheduleDue
from shared.topology import FINISHES, REGISTRY
from tests.gateway.conftest import Stage


def document(prompt: str = "Write about {topic}", **fields: Any) -> dict[str, Any]:
    task = {"model": "medium_ai", "prompt": prompt, "output_variable": "text"}
    return {"description": "A text.", "workflow": [{"type": "inline", "tasks": [task]}], **fields}


async def test_a_template_is_written_read_run_changed_and_deleted(stage: Stage) -> None:
    async with stage() as (http, backstage):
        written = await http.put("/templates/letter", json=document())
        assert (written.status_code, written.headers["etag"], written.json()["version"]) == (201, '"1"', 1)
        assert [one["name"] for one in (await http.get("/templates")).json()["templates"]] == ["letter", "report"]
        read = (await http.get("/templates/letter")).json()
        assert (read["source"], read["steps"], read["parameters"][0]["name"]) == ("registry", 1, "topic")
        assert (await http.put("/templates/letter", json=read)).json()["version"] == 2, "what is read can be written"
        assert (await http.get("/templates/letter")).json()["workflow"] == read["workflow"]
        changed = await http.put("/templates/letter", json=document("Rhyme about {topic} for {who}"))
        assert changed.json()["version"] == 3
        answer = await http.post("/template/letter", json={"topic": "bees"})
        assert (answer.status_code, answer.json()["detail"][0]["path"]) == (422, "$.who")
        assert (await http.post("/template/letter", json={"topic": "bees", "who": "me"})).status_code == 200
        command = backstage.taken[-1]
        assert isinstance(command, PlanRun)
        assert isinstance(command.request, WorkflowRequest)
        assert (command.request.template, command.request.template_version) == ("letter", 3)
        assert command.request.workflow.workflow[0].tasks[0].prompt == "Rhyme about {topic} for {who}"
        first = (await http.get("/templates/letter?version=1")).json()
        assert first["workflow"][0]["tasks"][0]["prompt"] == "Write about {topic}"
        assert (await http.get("/templates/letter?version=9")).status_code == 404
        assert (await http.delete("/templates/letter")).json() == {"status": "deleted", "name": "letter", "now": None}
        assert (await http.get("/templates/letter")).status_code == 404
        assert (await http.post("/template/letter", json={"topic": "bees"})).status_code == 404
        kept = (await http.get("/templates/letter/versions")).json()["versions"]
        assert [(one["version"], one["deleted"]) for one in kept] == [(1, False), (2, False), (3, False), (4, True)]
        assert (await http.put("/templates/letter", json=document())).json()["version"] == 5


async def test_an_entry_that_nobody_can_read_is_left_out_and_written_over(stage: Stage) -> None:
    """Of templates and schedules: the lists show the others, and a new version goes on above what was there."""
    async with stage() as (http, backstage):
        assert (await http.put("/templates/letter", json=document())).status_code == 201
        timed = {"template": "letter", "variables": {"topic": "bees"}, "cron": "0 7 * * *"}
        assert (await http.put("/schedules/morning", json=timed)).status_code == 201
        for key in ("template.default.letter", "schedule.default.morning"):
            await backstage.bus.jetstream.publish(f"$KV.{REGISTRY}.{key}", b'{"v": 1, "odd": true}')
        assert [one["name"] for one in (await http.get("/templates")).json()["templates"]] == ["report"]
        assert (await http.get("/schedules")).json()["schedules"] == []
        again = await http.put("/templates/letter", json=document())
        assert (again.status_code, again.json()["version"] > 1) == (200, True)
        kept = (await http.get("/templates/letter/versions")).json()["versions"]
        assert [one["version"] for one in kept] == [1, again.json()["version"]]
        assert (await http.put("/schedules/morning", json=timed)).json()["version"] > 1
        assert [one["name"] for one in (await http.get("/schedules")).json()["schedules"]] == ["morning"]


async def test_the_configurations_template_is_written_over_and_comes_back(stage: Stage) -> None:
    async with stage() as (http, _):
        assert (await http.get("/templates/report")).headers["etag"] == '"file"'
        refused = await http.delete("/templates/report")
        assert (refused.status_code, "configuration" in refused.json()["detail"]) == (409, True)
        written = await http.put("/templates/report", json=document())
        assert written.status_code == 201, written.text
        assert (await http.get("/templates/report")).json()["source"] == "registry"
        assert (await http.delete("/templates/report")).json()["now"] == "file"
        assert (await http.get("/templates/report")).json()["source"] == "file"


async def test_nobody_writes_over_what_he_has_not_seen(stage: Stage) -> None:
    async with stage() as (http, _):
        first = {"If-None-Match": "*"}
        assert (await http.put("/templates/letter", json=document(), headers=first)).status_code == 201
        again = await http.put("/templates/letter", json=document(), headers=first)
        assert (again.status_code, "version 1" in again.json()["detail"]) == (412, True)
        second = await http.put("/templates/letter", json=document(), headers={"If-Match": '"1"'})
        assert second.json()["version"] == 2
        for method in ("PUT", "DELETE"):
            stale = await http.request(method, "/templates/letter", json=document(), headers={"If-Match": '"1"'})
            assert stale.status_code == 412
        assert (await http.delete("/templates/letter", headers={"If-Match": 'W/"2"'})).status_code == 200
        odd = await http.put("/templates/letter", json=document(), headers={"If-Match": "two"})
        assert odd.status_code == 422


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"workflow": []}, "too_short"),
        (document("x" * 200_000), "too_large"),
        ({}, "missing"),
        (document("Write about {topic}", variables={"topic": {"type": "colour"}}), "literal_error"),
        ({"workflow": [{"type": "inline", "tasks": [{"model": "nobody", "prompt": "x"}]}]}, "unknown_model"),
        ({"workflow": [{"type": "inline", "tasks": [{"template": "nothing"}]}]}, "unknown_template"),
        (
            {"workflow": [{"type": "inline", "tasks": [{"template": "letter", "variables": {"topic": "x"}}]}]},
            "circular_template",
        ),
    ],
)
async def test_what_cannot_run_is_refused(stage: Stage, body: dict[str, Any], code: str) -> None:
    async with stage() as (http, _):
        await http.put("/templates/letter", json=document())
        answer = await http.put("/templates/letter", json=body)
        assert answer.status_code == 422, answer.text
        assert code in {problem["code"] for problem in answer.json()["detail"]}
        assert (await http.get("/templates/letter")).json()["version"] == 1


async def test_templates_that_stand_for_each_other_are_refused(stage: Stage) -> None:
    """By way of another one, too; and a bad name has no place on the bus."""
    async with stage() as (http, _):
        await http.put("/templates/one", json=document())
        use = {"workflow": [{"type": "inline", "tasks": [{"template": "one", "variables": {"topic": "x"}}]}]}
        assert (await http.put("/templates/two", json=use)).status_code == 201
        back = {"workflow": [{"type": "inline", "tasks": [{"template": "two"}]}]}
        answer = await http.put("/templates/one", json=back)
        assert "circular_template" in {problem["code"] for problem in answer.json()["detail"]}
        for name in ("a.b", "a b", "x" * 65, "*", "%3E"):
            assert (await http.put(f"/templates/{name}", json=document())).status_code == 422
            assert (await http.get(f"/templates/{name}")).status_code == 404


async def test_a_schedule_is_kept_by_the_bus(stage: Stage) -> None:
    async with stage() as (http, backstage):
        await http.put("/templates/letter", json=document())
        body = {
            "template": "letter",
            "variables": {"topic": "bees"},
            "cron": "0 8 * * 1-5",
            "timezone": "Europe/Berlin",
        }
        written = await http.put("/schedules/mornings", json=body)
        assert written.status_code == 201, written.text
        subject = subjects.schedule("default", "mornings")
        stored = await backstage.client.jetstream().get_last_msg(FINISHES, subject)
        assert (stored.headers or {})["Nats-Schedule"] == "0 0 8 * * 1-5"
        assert (stored.headers or {})["Nats-Schedule-Time-Zone"] == "Europe/Berlin"
        assert ScheduleDue.decode(stored.data or b"").version == 1
        changed = await http.put("/schedules/mornings", json={**body, "cron": None, "every": "90m"})
        assert (changed.status_code, changed.json()["version"]) == (200, 2)
        stored = await backstage.client.jetstream().get_last_msg(FINISHES, subject)
        assert (stored.headers or {})["Nats-Schedule"] == "@every 90m"
        listed = (await http.get("/schedules")).json()
        assert [(one["name"], one["every"], one["started"]) for one in listed["schedules"]] == [("mornings", "90m", 0)]
        used = await http.delete("/templates/letter")
        assert (used.status_code, "mornings" in used.json()["detail"]) == (409, True)
        await http.put("/schedules/mornings", json={**body, "paused": True})
        assert await backstage.bus.jetstream.last(FINISHES, subject) is None
        await http.put("/schedules/mornings", json=body)
        assert await backstage.bus.jetstream.last(FINISHES, subject) is not None
        assert (await http.delete("/schedules/mornings")).status_code == 200
        assert await backstage.bus.jetstream.last(FINISHES, subject) is None
        assert (await http.get("/schedules/mornings")).status_code == 404
        assert (await http.get("/schedules")).json()["count"] == 0
        state = await backstage.client.jetstream().stream_info(FINISHES, subjects_filter="segue.schedule.>")
        assert not state.state.subjects, "no probe is left behind"


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"cron": "61 * * * *"}, "$.cron"),
        ({"cron": "whenever it suits"}, "$.cron"),
        ({"cron": None, "every": "0.1s"}, "$.every"),
        ({"cron": None, "every": "a day"}, "$.every"),
        ({"every": "1h"}, "$.cron"),
        ({"cron": None}, "$.cron"),
        ({"timezone": "Mars/Olympus"}, "$.timezone"),
        ({"variables": {}}, "$.variables.topic"),
        ({"overlap": "maybe"}, "$.overlap"),
        ({"cron": "0 8 * * *\r\nNats-Rollup: all"}, "$.cron"),
        ({"cron": None, "every": "1h\n"}, "$.every"),
        ({"timezone": "Europe/Berlin\r\nNats-TTL: 1s"}, "$.timezone"),
        ({"variables": {"topic": "x" * 200_000}}, "$.variables"),
        ({"templat": "x"}, "$.templat"),
    ],
)
async def test_a_schedule_that_cannot_be_kept_is_refused(stage: Stage, change: dict[str, Any], path: str) -> None:
    async with stage() as (http, _):
        await http.put("/templates/letter", json=document())
        body = {"template": "letter", "variables": {"topic": "bees"}, "cron": "0 8 * * *", **change}
        answer = await http.put("/schedules/mornings", json=body)
        assert answer.status_code == 422, answer.text
        assert path in {problem["path"] for problem in answer.json()["detail"]}
        assert (await http.get("/schedules")).json()["count"] == 0


async def test_a_task_that_stands_for_a_name_that_cannot_be_is_refused(stage: Stage) -> None:
    """Whatever stands there: nothing of it reaches the bus."""
    async with stage() as (http, _):
        for name in ("", "a b", "\x1d", "a.b", "*", "\u00fc" * 300):
            task = {"template": name, "output_variable": "text"}
            answer = await http.post("/workflow", json={"workflow": [{"type": "inline", "tasks": [task]}]})
            assert answer.status_code == 422, (name, answer.text)
            assert (await http.post("/plan", json={"template": name})).status_code in (404, 422)
