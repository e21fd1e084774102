"""Schedules over the running system: the bus keeps the time, one run a fire, whoever dies."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from shared import subjects
from shared.bus.connection import open_bus
from shared.registry.schedules import Schedules
from shared.topology import FINISHES
from tests.system import System, eventually

TEMPLATE = {
    "workflow": [{"type": "inline", "tasks": [{"model": "fast_ai", "prompt": "Say {word}", "output_variable": "said"}]}]
}


async def put(system: System, path: str, body: Any) -> dict[str, Any]:
    answer = await system.http.put(system.gateway.url + path, json=body)
    assert answer.status_code in (200, 201), answer.text
    found: dict[str, Any] = answer.json()
    return found


async def get(system: System, path: str) -> dict[str, Any]:
    answer = await system.http.get(system.gateway.url + path)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def runs_of(system: System, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await get(system, f"/runs?schedule={name}"))["runs"]
    return found


async def test_the_clock_starts_a_template_and_the_newest_version_of_it(tmp_path: Path) -> None:
    async with System(tmp_path) as system:
        await put(system, "/templates/speak", TEMPLATE)
        body = {"template": "speak", "variables": {"word": "tick"}, "every": "1s", "overlap": "allow"}
        await put(system, "/schedules/clock", body)

        async def begun(count: int) -> bool:
            return len([run for run in await runs_of(system, "clock") if run["state"] == "completed"]) >= count

        await eventually(lambda: begun(2))
        found = await get(system, "/schedules/clock")
        assert found["started"] >= 2
        assert found["next_at"] > found["last_at"]
        run = (await runs_of(system, "clock"))[0]
        assert (run["template"], run["schedule"], run["kind"]) == ("speak", "clock", "workflow")
        changed = {"workflow": [{"type": "inline", "tasks": [{"model": "fast_ai", "prompt": "Sing {word} {tune}"}]}]}
        await put(system, "/templates/speak", changed)

        async def told() -> bool:
            return "tune" in ((await get(system, "/schedules/clock"))["problem"] or "")

        await eventually(told)
        started = (await get(system, "/schedules/clock"))["started"]
        await system.http.put(
            f"{system.gateway.url}/schedules/clock", json={**body, "variables": {"word": "a", "tune": "b"}}
        )
        await eventually(lambda: _more(system, started))
        assert (await get(system, "/schedules/clock"))["problem"] is None
        await system.http.delete(f"{system.gateway.url}/schedules/clock")
        await system.idle("FINISHES", "WORKFLOWS")  # no clock is left, and what had been begun is over
        before = await system.runs_begun()
        await asyncio.sleep(1.5)
        assert await system.runs_begun() == before


async def _more(system: System, started: int) -> bool:
    found = (await get(system, "/schedules/clock"))["started"]
    return isinstance(found, int) and found > started


@pytest.mark.parametrize("fault", ["planner.schedule.begun", "planner.taken", "planner.accepted"])
async def test_a_planner_that_dies_over_a_fire_begins_its_run_once(tmp_path: Path, fault: str) -> None:
    async with System(tmp_path, environment={}) as system:
        for planner in system.running("planner"):
            planner.kill()
        await put(system, "/templates/speak", TEMPLATE)
        body = {"template": "speak", "variables": {"word": "tick"}, "every": "4s", "overlap": "allow"}
        await put(system, "/schedules/clock", body)
        victim = system.start("planner", SEGUE_FAULT=fault)
        await asyncio.to_thread(victim.gone, 20)
        assert not victim.alive
        system.start("planner")

        async def done() -> bool:
            return any(run["state"] == "completed" for run in await runs_of(system, "clock"))

        await eventually(done)
        await system.http.delete(f"{system.gateway.url}/schedules/clock")
        await system.idle("FINISHES", "WORKFLOWS", "CALLS")  # no clock is left, and what had been begun is over
        begun = await system.runs_begun()

        async def listed() -> bool:
            return len(await runs_of(system, "clock")) == begun

        await eventually(listed)
        born = {run["born_at"] for run in await runs_of(system, "clock")}
        assert len(born) == begun
        assert len(await system.ledger()) == begun, "every fire was paid for once"


async def test_a_run_that_goes_on_is_waited_for_and_said_so(tmp_path: Path) -> None:
    async with System(tmp_path) as system:
        await put(
            system, "/templates/ask", {"workflow": [{"type": "inline", "tasks": [{"approve": {"message": "may I?"}}]}]}
        )
        await put(system, "/schedules/asking", {"template": "ask", "every": "1s"})

        async def skipped() -> bool:
            found = await get(system, "/schedules/asking")
            return found["skipped"] >= 2 and "has not ended" in found["problem"]

        await eventually(skipped)
        runs = await runs_of(system, "asking")
        assert [run["state"] for run in runs] == ["awaiting_approval"]
        assert runs[0]["questions"][0]["message"] == "may I?"


async def test_clocks_are_set_right_after_whatever_happened_to_them(tmp_path: Path) -> None:
    """One that is lost is set again, one of an older version changed, one that nobody wants stopped.

    Without a planner, which does so by itself now and then.
    """
    async with System(tmp_path, copies={"planner": 0}) as system:
        await put(system, "/templates/speak", TEMPLATE)
        for name in ("lost", "old", "paused"):
            body = {"template": "speak", "variables": {"word": "x"}, "cron": "0 0 1 1 *", "paused": name == "paused"}
            await put(system, f"/schedules/{name}", body)
        bus = await open_bus(system.client)
        schedules = Schedules(bus)
        assert await schedules.reconcile() == 0
        await bus.jetstream.purge(FINISHES, subjects.schedule("default", "lost"))
        old = await bus.jetstream.last(FINISHES, subjects.schedule("default", "old"))
        assert old is not None
        headers = {"Nats-Schedule": "0 0 0 2 1 *", "Nats-Schedule-Target": subjects.schedule_due("default", "old")}
        stale = old.data.replace(b'"version":1', b'"version":9')
        await bus.jetstream.publish(subjects.schedule("default", "old"), stale, headers=headers)
        for name in ("paused", "nobodys"):
            headers = {"Nats-Schedule": "0 0 0 2 1 *", "Nats-Schedule-Target": subjects.schedule_due("default", name)}
            await bus.jetstream.publish(subjects.schedule("default", name), old.data, headers=headers)
        assert await schedules.reconcile() == 4
        assert await schedules.reconcile() == 0
        there = {}
        for name in ("lost", "old", "paused", "nobodys"):
            stored = await bus.jetstream.last(FINISHES, subjects.schedule("default", name))
            there[name] = None if stored is None else stored.data
        assert there == {"lost": old.data.replace(b"old", b"lost"), "old": old.data, "paused": None, "nobodys": None}


async def test_the_bus_goes_on_with_its_clocks_after_it_was_killed(tmp_path: Path) -> None:
    async with System(tmp_path) as system:
        await put(system, "/templates/speak", TEMPLATE)
        await put(system, "/schedules/clock", {"template": "speak", "variables": {"word": "tick"}, "every": "1s"})
        await eventually(lambda: _more(system, 0))
        assert system.nats is not None
        system.nats.kill()
        await asyncio.sleep(1)
        await system.nats.start()

        async def goes_on() -> bool:
            with contextlib.suppress(AssertionError):
                return await _more(system, 2)
            return False

        await eventually(goes_on)
