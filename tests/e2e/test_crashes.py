"""Processes killed with SIGKILL at every named point: one answer all the same."""

import asyncio
import json
import os
import re
import signal
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared import subjects
from shared.bus.connection import Bus, open_bus
from shared.contracts.commands import BeginRun, ChatRequest, ControlRun, PlanRun, SubmitRequest, WorkflowRequest
from shared.contracts.events import RunAccepted, RunPlanned
from shared.contracts.ids import Purpose, Verb, new_run_id
from shared.contracts.message import Run
from shared.contracts.workflow import Workflow
from tests.system import ROOT, System, eventually

SERVICES = ("categorizer", "planner", "executor", "finisher")
QUESTION = "What is the capital of France?"
WORKFLOW: dict[str, Any] = {
    "workflow": [
        {
            "type": "linear",
            "tasks": [
                {"model": "medium_ai", "prompt": "One side of {topic}.", "output_variable": "one"},
                {"model": "fast_ai", "prompt": "Other side of {topic}.", "output_variable": "other"},
            ],
        },
        {
            "type": "inline",
            "tasks": [{"model": "medium_ai", "prompt": "Join {one} and {other}.", "output_variable": "both"}],
        },
    ],
    "variables": {"topic": "a coin"},
}
CAMPAIGN = (
    "Plan a whole campaign: research the market for kites, then write three posts and an e-mail, "
    "then evaluate all of it and summarise it in a report."
)


def points(service: str) -> list[str]:
    """Return every fault point that a service's code names."""
    found: list[str] = []
    for path in sorted((ROOT / "services" / service).rglob("*.py")):
        found += re.findall(r"point\(\"([a-z_.]+)\"\)", path.read_text())
    return list(dict.fromkeys(found))


def test_every_service_names_its_points() -> None:
    """The list below is taken from the code: an empty one would prove nothing."""
    for service in SERVICES:
        assert len(points(service)) >= 4, service


KINDS_OF = {
    "categorizer.timer_set": ("bus",),
    "planner.timer_set": ("bus workflow",),
    "planner.decided": ("orchestrated", "workflow"),
    "planner.accepted": ("workflow",),
    "planner.begin.taken": ("planned",),
    "planner.expanded": ("expansion",),
    "planner.approval.taken": ("approval",),
    "planner.due.taken": ("approval",),
    "planner.control.taken": ("paused",),
    "planner.held": ("paused",),
    "planner.recorded": ("workflow", "expansion", "approval", "paused"),
    "planner.schedule.begun": (),  # of the clock, not of a request: see test_schedules
    "finisher.place_left": ("workflow",),
    "finisher.callback.begun": (),  # of requests with a callback: see test_callbacks
    "finisher.callback.taken": (),
    "finisher.callback.sent": (),
    "finisher.callback.put_back": (),
    "finisher.callback.settled": (),
    "finisher.presenting": ("orchestrated",),
    "executor.scheduled": ("limited",),
    "executor.inquired": ("cut",),
    "executor.reconcile.taken": ("cut",),
    "executor.reconcile.asked": ("cut",),
    "executor.reconciled": ("cut",),
    "executor.reconcile.again": (),  # of questions that are not answered yet: see tests/executor/test_reconciling
    "executor.written_off": (),  # of calls that others have settled: see test_money
    "executor.watched": (),
    "executor.submitted": (),  # of videos: see test_media
    "executor.job_named": (),
}
"""Which requests pass a point; else those of the service: see `KINDS`."""
KINDS = {
    "categorizer": ("chat",),
    "planner": ("workflow",),
    "executor": ("chat", "workflow"),
    "finisher": ("chat", "workflow"),
}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("service", SERVICES)
async def test_a_kill_at_any_point_leaves_one_answer(service: str, tmp_path: Path) -> None:
    """For each named point: the only copy dies there, a fresh one goes on, the caller gets one answer."""
    async with System(tmp_path, copies={name: 0 if name == service else 1 for name in SERVICES}) as system:
        for point in points(service):
            for kind in KINDS_OF.get(point, KINDS[service]):
                await _killed_at(system, service, point, kind)


async def _killed_at(system: System, service: str, point: str, kind: str) -> None:
    """One request of `kind` with the service's only copy armed at `point`; a fresh copy joins when that one is dead."""
    armed = system.start(service, SEGUE_FAULT=point)
    await system.ready(armed)
    if kind == "limited":
        fault = {"kind": "rate_limit", "retry_after_s": 2}
        await system.faults({"match": {"contains": "France"}, "times": 1, "fault": fault})
    if kind == "cut":
        await system.faults({"match": {"contains": "A slice"}, "times": 1, "fault": {"kind": "cut_stream"}})
    calls_before = len(await system.ledger())
    asked = asyncio.create_task(_asked(system, kind))
    while armed.alive and not asked.done():
        await asyncio.sleep(0.01)
    # An answer can be heard of just before the process that ended it comes to the point after it.
    assert armed.gone(20), f"a {kind} request does not pass {point}"
    fresh = system.start(service)
    run_id = await asked
    facts = await system.facts(run_id, "outside" if kind in BY_BUS else "default")
    where = f"{kind} killed at {point}: {json.dumps(facts)[-800:]}"
    assert facts["ended"]["outcome"] == "completed", where
    # What the dead process had asked for, the two parallel tasks of the workflow at most, may be asked for once more.
    asked_for = Counter(str(entry["call"]) for entry in (await system.ledger())[calls_before:])
    again = {call: times for call, times in asked_for.items() if times > 1}
    most_again = 2 if kind in {"workflow", "planned"} else 1
    limited = 1 if kind in {"limited", "cut"} else 0
    if kind == "cut":
        cost_usd = sum(entry["cost_usd"] for entry in (await system.ledger())[calls_before:])
        ledger = (await system.http.get(f"{system.gateway.url}/runs/{run_id}")).json()["ledger"]
        assert (ledger["cost_known"], round(ledger["cost_usd"] - cost_usd, 9)) == (True, 0), where
    assert sum(again.values()) - len(again) <= most_again + limited, f"{where}: asked for more than once: {again}"
    assert all(times <= 2 + limited for times in again.values()), f"{where}: asked for too often: {again}"
    if kind in {"workflow", "bus workflow", "planned"}:
        assert set(facts["ended"]["result"]) >= {"one", "other", "both"}
    fresh.kill()


BY_BUS = {"bus", "bus workflow", "planned", "paused"}
SLOWLY: dict[str, Any] = {
    "workflow": [
        {
            "type": "inline",
            "tasks": [
                {"model": "medium_ai", "prompt": "slowly"},
                {"model": "medium_ai", "prompt": "{task_1_1}", "approve": {"timeout_s": 50}},
            ],
        }
    ]
}
SLICE: dict[str, Any] = {"workflow": [{"type": "inline", "tasks": [{"model": "medium_ai", "prompt": "A slice."}]}]}
APPROVED: dict[str, Any] = {
    "workflow": [
        {
            "type": "inline",
            "tasks": [
                {"model": "fast_ai", "prompt": "Go.", "approve": {"timeout_s": 0.5, "default": "approve"}},
                {"model": "fast_ai", "prompt": "On with {task_1_1}."},
            ],
        }
    ]
}
EXPANDING: dict[str, Any] = {
    "workflow": [
        {
            "type": "inline",
            "tasks": [
                {"model": "sub_master_ai", "prompt": CAMPAIGN, "expand": True},
                {"model": "fast_ai", "prompt": "Shorten {task_1_1}."},
            ],
        }
    ]
}


async def _asked(system: System, kind: str) -> str:
    """Ask, wait for the answer, and return its run."""
    if kind in BY_BUS:
        return await _asked_by_bus(system, kind)
    requests: dict[str, tuple[str, dict[str, Any]]] = {
        "chat": ("/chat", {"message": QUESTION}),
        "limited": ("/chat", {"message": QUESTION}),
        "cut": ("/workflow", SLICE),
        "workflow": ("/workflow", WORKFLOW),
        "orchestrated": ("/chat", {"message": CAMPAIGN}),
        "approval": ("/workflow", APPROVED),
        "expansion": ("/workflow", EXPANDING),
    }
    path, body = requests[kind]
    answer: httpx.Response = await system.post(path, body)
    assert answer.status_code == 200, answer.text
    run_id = str(answer.json()["run_id"])
    if kind == "cut":
        facts = subjects.events("default", run_id)
        bus = await open_bus(system.client)
        await eventually(partial(bus.log.exists, facts.reconciled(Purpose.TASK, "0-0", 1)))
    return run_id


async def _asked_by_bus(system: System, kind: str) -> str:
    """Publish the request as an outside system does, and read its end from the log."""
    bus, now = await open_bus(system.client), datetime.now(UTC)
    run = Run(run_id=new_run_id(), tenant="outside", born_at=now, deadline_at=now + timedelta(seconds=60))
    if kind == "bus":
        await bus.log.submit(SubmitRequest(run=run, request=ChatRequest(message=QUESTION)))
    else:
        document = SLOWLY if kind == "paused" else WORKFLOW
        if kind == "paused":
            await system.faults({"match": {"contains": "slowly"}, "fault": {"kind": "delay", "delay_s": 1}})
        workflow = Workflow.model_validate(document)
        request = WorkflowRequest(workflow=workflow)
        if kind == "planned":  # as a planner leaves it that finds no place
            facts = subjects.facts(run)
            await bus.log.write(facts.accepted, RunAccepted(run=run, request=request, by="planner"))
            await bus.log.write(facts.plan, RunPlanned(run=run, workflow=workflow, source="request"))
            await bus.log.send(subjects.begin(run), BeginRun(run=run))
        else:
            await bus.log.send(subjects.workflow(run), PlanRun(run=run, request=request))
        if kind == "paused":
            await _pause_and_resume(bus, run)
    ended = subjects.facts(run).ended

    async def over() -> bool:
        return await bus.log.exists(ended)

    await eventually(over, within_s=30)
    return run.run_id


async def _pause_and_resume(bus: Bus, run: Run) -> None:
    """Before its question is answered it cannot be over, however long somebody takes."""
    facts = subjects.facts(run)
    await eventually(lambda: bus.log.exists(facts.attempt(Purpose.TASK, "0-0", 1)))
    for verb, needs, then in (
        (Verb.PAUSE, facts.plan, facts.hold(1)),
        (Verb.RESUME, facts.hold(1), facts.hold(2)),
        (Verb.APPROVE, facts.asked("0-1"), facts.approval("0-1")),
    ):
        await eventually(partial(bus.log.exists, needs))
        command = ControlRun(run_id=run.run_id, tenant=run.tenant, verb=verb)
        await bus.log.send(subjects.control(run.tenant, run.run_id, verb), command)
        await eventually(partial(bus.log.exists, then))


@pytest.mark.parametrize("service", SERVICES)
async def test_killed_in_the_middle_is_taken_over_within_two_and_a_half_seconds(service: str, tmp_path: Path) -> None:
    """Two copies, one killed at work: the other one takes over when the ack wait is over.

    Of some times once is enough: any process, this one too, may stand still.
    """
    point = {"categorizer": "categorizer.accepted", "planner": "planner.planned", "finisher": "finisher.read"}.get(
        service, "executor.claimed"
    )
    path, body = ("/workflow", WORKFLOW) if service == "planner" else ("/chat", {"message": QUESTION})
    async with System(tmp_path, copies={service: 0}) as system:

        async def in_time() -> bool:
            armed = system.start(service, SEGUE_FAULT=point)
            await system.ready(armed)
            asked = asyncio.create_task(system.post(path, body))
            while armed.alive:
                await asyncio.sleep(0.002)
            died = time.monotonic()
            spare = system.start(service)
            await system.ready(spare)
            ready = time.monotonic()
            answer = await asked
            answered = time.monotonic()
            assert answer.status_code == 200, answer.text
            await system.idle("REQUESTS", "WORKFLOWS", "CALLS", "FINISHES")
            spare.kill()
            return answered - died < 3.5 or answered - ready < 2.5  # 2.5 s and the start of the spare copy

        await eventually(in_time)


async def test_a_stopped_process_that_wakes_up_again_changes_nothing(tmp_path: Path) -> None:
    """One of two copies of each service stands still past its ack wait, twice, and goes on: every run ends once."""
    async with System(tmp_path, copies=dict.fromkeys(SERVICES, 2)) as system:

        async def ask(number: int) -> str:
            path, body = ("/workflow", WORKFLOW) if number % 3 == 0 else ("/chat", {"message": f"What is {number}?"})
            answer = await system.post(path, body)
            assert answer.status_code == 200, answer.text
            return str(answer.json()["run_id"])

        async def stand_still(service: str) -> None:
            zombie = system.running(service)[0]
            for _ in range(2):
                os.kill(zombie.pid, signal.SIGSTOP)
                await asyncio.sleep(2.6)  # past the ack wait: its work is another's now
                os.kill(zombie.pid, signal.SIGCONT)
                await asyncio.sleep(0.2)

        asked = 0
        for service in SERVICES:
            runs, _ = await asyncio.gather(asyncio.gather(*map(ask, range(30))), stand_still(service))
            asked += len(set(runs))
        assert asked == 120
        ended = await system.client.jetstream().stream_info("EVENTS", subjects_filter="segue.event.*.*.ended")
        assert list((ended.state.subjects or {}).values()) == [1] * 120

        async def quiet() -> bool:
            """Nothing is left in any queue."""
            infos = [await system.client.jetstream().stream_info(name) for name in ("CALLS", "WORKFLOWS", "FINISHES")]
            return all(info.state.messages == 0 for info in infos)

        await eventually(quiet)


async def test_server_killed_under_200_requests_in_flight(tmp_path: Path) -> None:
    """The NATS server dies and comes back with 200 requests in flight: all are answered, none twice."""
    async with System(tmp_path, profile="fast", copies={"executor": 2}) as system:
        assert system.nats is not None

        async def ask(number: int) -> httpx.Response:
            body = {"message": f"What is {number} plus {number}?"}
            return await system.post("/chat", body, **{"Idempotency-Key": f"request-{number}"})

        asked = [asyncio.create_task(ask(number)) for number in range(200)]
        while len(await system.ledger()) < 60:
            await asyncio.sleep(0.01)
        system.nats.kill()
        await asyncio.sleep(0.5)
        await system.nats.start()
        answers = await asyncio.gather(*asked)
        assert [answer.status_code for answer in answers] == [200] * 200
        bodies = [answer.json() for answer in answers]
        assert len({body["run_id"] for body in bodies}) == 200
        again = await asyncio.gather(*(ask(number) for number in range(20)))
        assert [one.json()["response"] for one in again] == [body["response"] for body in bodies[:20]]
        ended = await system.client.jetstream().stream_info("EVENTS", subjects_filter="segue.event.*.*.ended")
        counts = ended.state.subjects or {}
        assert len(counts) == 200
        assert set(counts.values()) == {1}, json.dumps(counts)[:500]
