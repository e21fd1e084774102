"""`POST /workflow` and `POST /template/{name}`: checked at the door, run, their results given back."""

import asyncio
from typing import Any

import pytest

from shared.contracts.commands import PlanRun, WorkflowRequest
from shared.topology import Limits
from tests.conftest import eventually
from tests.gateway.backstage import ended, ending, fault
from tests.gateway.conftest import Stage


def task(prompt: str, output: str | None = None, **more: Any) -> dict[str, Any]:
    return {"model": "medium_ai", "prompt": prompt, "output_variable": output, **more}


TWO_STEPS: dict[str, Any] = {
    "workflow": [
        {"type": "inline", "tasks": [task("Outline {topic}", "outline"), task("Write from {outline}", "text")]},
    ],
    "variables": {"topic": "tides"},
}


async def test_a_workflow_is_run(stage: Stage) -> None:
    """The planner gets it as it is, and its variables and outputs come back."""
    async with stage() as (http, backstage):
        answer = await http.post("/workflow", json={**TWO_STEPS, "priority": "low"})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        command = backstage.taken[0]
        assert isinstance(command, PlanRun)
        assert isinstance(command.request, WorkflowRequest)
        assert command.request.template is None
        assert command.request.workflow.model_dump(exclude_defaults=True) == {
            "workflow": (
                {
                    "type": "inline",
                    "tasks": (
                        {"model": "medium_ai", "prompt": "Outline {topic}", "output_variable": "outline"},
                        {"model": "medium_ai", "prompt": "Write from {outline}", "output_variable": "text"},
                    ),
                },
            ),
            "variables": {"topic": "tides"},
        }
        assert command.run.priority == "low"
        assert command.source == "gateway"
        assert body == {
            "status": "completed",
            "result": {"topic": "tides", "out": "2 tasks"},
            "execution_time": body["execution_time"],
            "run_id": command.run.run_id,
            "cost_usd": 0.0125,
            "cost_known": True,
            "baseline_usd": None,
            "saving_usd": None,
            "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
            "simulated": True,
            "calls": 2,
            "note": None,
            "artifacts": [],
        }
        assert answer.headers["x-segue-run-id"] == command.run.run_id
        await eventually(lambda: backstage.keeps(timers=0))


async def test_a_failed_workflow_says_what_it_kept(stage: Stage) -> None:
    async with stage() as (http, backstage):
        broken = fault("transient", "provider_unavailable", "task 'text' failed: 503")
        backstage.script = ending(outcome="failed", category=None, fault=broken, result={"outline": "1. Moon"})
        answer = await http.post("/workflow", json=TWO_STEPS)
        assert answer.status_code == 502
        assert answer.json()["result"] == {"outline": "1. Moon"}
        assert answer.json()["detail"].startswith("task 'text' failed: 503")
        late = fault("resource", "deadline", "not done within 20 s", 504)
        backstage.script = ending(outcome="failed", category=None, fault=late, result={"outline": "1. Moon"})
        answer = await http.post("/workflow", json=TWO_STEPS)
        assert (answer.status_code, answer.json()["result"]) == (504, {"outline": "1. Moon"})


@pytest.mark.parametrize(
    ("body", "problems"),
    [
        ({}, [("$.workflow", "missing")]),
        ({"workflow": []}, [("$.workflow", "too_short")]),
        ([], [("$", "dict_type")]),
        ({"workflow": [{"type": "round", "tasks": [task("x")]}]}, [("$.workflow[0].type", "literal_error")]),
        (
            {"workflow": [{"type": "inline", "tasks": [task("{a} {b}", "c"), {**task("{c}"), "model": "medium"}]}]},
            [
                ("$.workflow[0].tasks[0].prompt", "undefined_variable"),
                ("$.workflow[0].tasks[0].prompt", "undefined_variable"),
                ("$.workflow[0].tasks[1].model", "unknown_model"),
            ],
        ),
        (
            {"workflow": [{"type": "linear", "tasks": [task("{b}", "a"), task("{a}", "b")]}]},
            [
                ("$.workflow[0].tasks[0].prompt", "circular_variable"),
                ("$.workflow[0].tasks[1].prompt", "circular_variable"),
            ],
        ),
        (
            {"workflow": [{"type": "inline", "tasks": [task("x", config={"addons": ["newsletters"]})]}]},
            [("$.workflow[0].tasks[0].config.addons[0]", "unknown_addon")],
        ),
        ({**TWO_STEPS, "priority": "urgent"}, [("$.priority", "enum")]),
        ({"workflow": [{"type": "linear", "tasks": [task("x")] * 11}]}, [("$.workflow", "too_many_tasks")]),
    ],
)
async def test_an_invalid_workflow_is_refused_with_every_problem(
    stage: Stage, body: object, problems: list[tuple[str, str]]
) -> None:
    async with stage() as (http, backstage):
        answer = await http.post("/workflow", json=body)
        assert answer.status_code == 422
        assert [(one["path"], one["code"]) for one in answer.json()["detail"]] == problems
        assert all(one["message"] for one in answer.json()["detail"])
        assert "x-segue-run-id" not in answer.headers
        assert backstage.taken == []


async def test_a_full_queue_is_said_at_once(stage: Stage) -> None:
    async with stage(limits=Limits(max_queue_depth=1), takes=False) as (http, backstage):
        await backstage.bus.jetstream.publish("segue.workflow.default.low.somebody", b"{}")
        answer = await http.post("/workflow", json=TWO_STEPS)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        await eventually(lambda: backstage.keeps(timers=0))


async def test_a_template_is_run_with_its_defaults(stage: Stage) -> None:
    async with stage() as (http, backstage):
        answer = await http.post("/template/report", json={"topic": "tides", "length": 3})
        assert answer.status_code == 200, answer.text
        command = backstage.taken[0]
        assert isinstance(command.request, WorkflowRequest)
        assert command.request.template == "report"
        assert command.request.workflow.variables == {"topic": "tides", "length": 3, "audience": "everyone"}
        assert [len(queue.tasks) for queue in command.request.workflow.workflow] == [2, 1]
        given = await http.post("/template/report", json={"topic": "tides", "length": 3, "audience": "sailors"})
        assert given.status_code == 200
        assert backstage.taken[1].request.workflow.variables["audience"] == "sailors"  # type: ignore[union-attr]  # a workflow's


async def test_what_a_template_needs_is_listed(stage: Stage) -> None:
    """Everything that is missing, of the wrong type or unknown, at once."""
    async with stage(takes=False) as (http, _):
        answer = await http.post("/template/report", json={})
        assert answer.status_code == 422
        assert [(one["path"], one["code"]) for one in answer.json()["detail"]] == [
            ("$.topic", "bad_variable"),
            ("$.length", "bad_variable"),
        ]
        assert "What it is about." in answer.json()["detail"][0]["message"]
        answer = await http.post("/template/report", json={"topic": "x", "length": "three", "audiense": "y"})
        assert [one["path"] for one in answer.json()["detail"]] == ["$.length", "$.audiense"]


async def test_an_unknown_template_is_not_there(stage: Stage) -> None:
    async with stage(takes=False) as (http, _):
        answer = await http.post("/template/raport", json={})
        assert answer.status_code == 404
        assert "report" in answer.json()["detail"]


async def test_a_workflow_that_others_end_late_is_answered(stage: Stage) -> None:
    """The answer comes from the log, however the run got there."""
    async with stage(takes=False) as (http, backstage):
        asking = asyncio.create_task(http.post("/workflow", json=TWO_STEPS))
        await eventually(lambda: waiting(backstage))
        info = await backstage.client.jetstream().get_last_msg("WORKFLOWS", "segue.workflow.>")
        run = PlanRun.decode(info.data or b"").run
        await backstage.end(ended(run, category=None, result={"text": "late"}))
        assert (await asking).json()["result"] == {"text": "late"}


async def waiting(backstage: Any) -> bool:
    info = await backstage.client.jetstream().stream_info("WORKFLOWS")
    return bool(info.state.messages == 1)
