"""Callbacks of schedules: the report of every morning comes to whoever wants it, whoever dies on the way."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from client import Segue
from tests.e2e.test_callback_origins import Called, callback_of, came, said
from tests.e2e.test_callbacks import calling_back, delivered
from tests.e2e.test_schedules import TEMPLATE, get, put, runs_of
from tests.receiver import SECRET, Got, verified
from tests.system import System, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def called(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Called]:
    """A system whose answers may be POSTed to a receiver here."""
    async with calling_back(tmp_path_factory.mktemp("schedules")) as both:
        yield both


async def test_every_run_of_a_schedule_is_called_back(called: Called) -> None:
    """Signed, once a run, with the schedule's name; a schedule that is changed counts from the next fire on."""
    system, receiver = called
    await put(system, "/templates/speak", TEMPLATE)
    body = {"template": "speak", "variables": {"word": "tick"}, "every": "1s", "overlap": "allow"}
    hook = f"{receiver.url}/clock"
    written = await put(system, "/schedules/clock", {**body, "callback_url": hook})
    assert written["callback_url"] == (await get(system, "/schedules/clock"))["callback_url"] == hook
    listed = {one["name"]: one["callback_url"] for one in (await get(system, "/schedules"))["schedules"]}
    assert listed["clock"] == hook

    def at(path: str) -> list[Got]:
        return [got for got in receiver.got if got.path == path]

    async def twice() -> bool:
        return len({got.data["run_id"] for got in at("/clock")}) >= 2

    await eventually(twice)
    for got in at("/clock"):
        assert verified(got.headers, got.body, SECRET)
        assert got.headers["webhook-id"] == f"run_{got.data['run_id']}"
        assert (got.data["schedule"], got.data["outcome"]) == ("clock", "completed")
        assert got.data["result"]["said"]
    assert (await delivered(system, at("/clock")[0].data["run_id"]))["state"] == "delivered"

    await put(system, "/schedules/clock", {**body, "callback_url": f"{receiver.url}/other"})

    async def moved() -> bool:
        return bool(at("/other"))

    await eventually(moved)
    before = len(await runs_of(system, "clock"))
    written = await put(system, "/schedules/clock", body)
    assert written["callback_url"] is None

    async def silent() -> bool:
        runs = await runs_of(system, "clock")
        return len(runs) > before and await callback_of(system, runs[0]["run_id"]) is None

    await eventually(silent)
    await system.http.delete(f"{system.gateway.url}/schedules/clock")


@pytest.mark.parametrize("fault", ["planner.schedule.begun", "planner.accepted"])
async def test_a_planner_that_dies_over_a_fire_loses_no_callback(tmp_path: Path, fault: str) -> None:
    async with calling_back(tmp_path, planner=0) as (system, receiver):
        await put(system, "/templates/speak", TEMPLATE)
        body = {"template": "speak", "variables": {"word": "tick"}, "every": "4s", "overlap": "allow"}
        await put(system, "/schedules/clock", {**body, "callback_url": f"{receiver.url}/hook"})
        victim = system.start("planner", SEGUE_FAULT=fault)

        async def dead() -> bool:
            return not victim.alive

        await eventually(dead)
        system.start("planner")

        async def heard() -> bool:
            return bool(receiver.got)

        await eventually(heard)
        await system.http.delete(f"{system.gateway.url}/schedules/clock")
        runs = await runs_of(system, "clock")
        for run in runs:
            assert (await came(receiver, run["run_id"])).data["schedule"] == "clock"


async def test_a_schedule_that_was_stored_by_an_earlier_build_goes_on(called: Called) -> None:
    """It has no callback, is shown without one, and its runs begin as before."""
    system, _ = called
    await put(system, "/templates/speak", TEMPLATE)
    stored = (
        b'{"v":1,"tenant":"default","name":"older","version":1,"template":"speak","variables":{"word":"tick"},'
        b'"cron":null,"every":"1s","timezone":"UTC","priority":"medium","overlap":"skip","paused":false,'
        b'"deleted":false,"written_at":"2026-11-01T08:00:00Z","by":"nobody in particular","key":null}'
    )
    registry = await system.client.jetstream().key_value("registry")
    await registry.put("schedule.default.older", stored)
    assert (await get(system, "/schedules/older"))["callback_url"] is None
    assert (await said(system, "schedules", "pause", "older")).exit_code == 0
    assert (await said(system, "schedules", "resume", "older")).exit_code == 0  # this sets its clock

    async def begun() -> bool:
        return any(run["state"] == "completed" for run in await runs_of(system, "older"))

    await eventually(begun)
    await system.http.delete(f"{system.gateway.url}/schedules/older")
    assert await callback_of(system, (await runs_of(system, "older"))[0]["run_id"]) is None


async def test_what_a_schedule_may_not_call_back_is_refused_when_it_is_written(called: Called) -> None:
    """As everywhere; nothing is kept, or the one before is."""
    system, _ = called
    await put(system, "/templates/speak", TEMPLATE)
    body = {"template": "speak", "variables": {"word": "x"}, "cron": "0 0 1 1 *"}
    for url in ("https://10.1.2.3/x", "http://10.1.2.3/x", "ftp://a.example", "https://a.example/" + "x" * 3_000, ""):
        answer = await system.http.put(f"{system.gateway.url}/schedules/refused", json={**body, "callback_url": url})
        assert answer.status_code == 422, url
        [problem] = answer.json()["detail"]
        assert (problem["path"], problem["code"]) == ("$.callback_url", "callback_url")
    assert (await system.http.get(f"{system.gateway.url}/schedules/refused")).status_code == 404


async def test_a_schedule_without_a_secret_to_sign_with_is_refused(tmp_path: Path) -> None:
    async with System(tmp_path) as system:
        await put(system, "/templates/speak", TEMPLATE)
        body = {"template": "speak", "variables": {"word": "x"}, "every": "1h", "callback_url": "https://a.example/x"}
        answer = await system.http.put(f"{system.gateway.url}/schedules/unsigned", json=body)
        assert (answer.status_code, "SEGUE_CALLBACK_SECRETS" in answer.text) == (422, True)


async def test_schedules_with_callbacks_from_the_command_line(called: Called) -> None:
    """Put, shown, kept when paused and resumed, and gone when it is put without one."""
    system, receiver = called
    hook = f"{receiver.url}/daily"
    arguments = ["schedules", "put", "daily", "research_report", "--cron", "@daily", "-v", "topic=bees"]
    made = await said(system, *arguments, "--callback-url", hook)
    assert (made.exit_code, hook in made.output) == (0, True), made.output

    async def shown() -> Any:
        return json.loads((await said(system, "schedules", "show", "daily")).output)["callback_url"]

    assert await shown() == hook
    for verb in ("pause", "resume"):
        assert (await said(system, "schedules", verb, "daily")).exit_code == 0
        assert await shown() == hook
    refused = await said(system, *arguments, "--callback-url", "https://192.168.1.1/x")
    assert (refused.exit_code, "callback_url" in refused.output) == (1, True), refused.output
    assert await shown() == hook
    assert (await said(system, *arguments)).exit_code == 0
    assert await shown() is None
    assert (await said(system, "schedules", "rm", "daily")).exit_code == 0


async def test_schedules_with_callbacks_from_a_program(called: Called) -> None:
    """The Python client writes, reads, lists and deletes them; a template that it begins is called back, too."""
    system, receiver = called
    hook = f"{receiver.url}/program"

    def program() -> str:
        with Segue(system.gateway.url) as segue:
            made = segue.put_schedule("weekly", "research_report", {"topic": "bees"}, cron="@weekly", callback_url=hook)
            assert (made.callback_url, made.version, made.paused) == (hook, 1, False)
            assert segue.schedule("weekly").callback_url == hook
            assert "weekly" in {one.name for one in segue.schedules()}
            again = segue.put_schedule("weekly", "research_report", {"topic": "bees"}, every="6h")
            assert (again.callback_url, again.version, again.every) == (None, 2, "6h")
            segue.delete_schedule("weekly")
            assert "weekly" not in {one.name for one in segue.schedules()}
            begun = segue.start_template("research_report", {"topic": "bees"}, callback_url=hook)
            run = segue.wait(begun.run_id)
            assert run.callback is not None
            assert run.callback["url"] == hook
            return run.run_id

    run_id = await asyncio.to_thread(program)
    assert (await came(receiver, run_id)).path == "/program"


async def test_the_retry_of_a_schedules_run_brings_its_report(called: Called) -> None:
    """A report that failed is done again for whoever waits for it, and says of which schedule it is."""
    system, receiver = called
    words = "the tide tables"
    await system.faults({"match": {"contains": words}, "times": "forever", "fault": {"kind": "status", "status": 400}})
    await put(system, "/templates/speak", TEMPLATE)
    body = {"template": "speak", "variables": {"word": words}, "every": "1s", "callback_url": f"{receiver.url}/report"}
    await put(system, "/schedules/report", body)

    async def failing() -> bool:
        return any(run["state"] == "failed" for run in await runs_of(system, "report"))

    await eventually(failing)
    await system.http.delete(f"{system.gateway.url}/schedules/report")
    await system.http.delete(f"{system.simulator.url}/__sim/faults")
    parent = next(run["run_id"] for run in await runs_of(system, "report") if run["state"] == "failed")
    retried = await system.post(f"/runs/{parent}/retry", {})
    got = await came(receiver, retried.json()["run_id"])
    assert (got.path, got.data["schedule"], got.data["parent"]) == ("/report", "report", parent)
