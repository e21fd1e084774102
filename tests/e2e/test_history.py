"""Lists and sums over the running system: what they say is what happened, whoever is killed in between."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.system import ROOT, System, eventually


async def listed(system: System, query: str = "") -> dict[str, Any]:
    answer = await system.http.get(f"{system.gateway.url}/runs{query}")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def used(system: System, query: str) -> dict[str, Any]:
    answer = await system.http.get(f"{system.gateway.url}/usage{query}")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_what_was_just_done_is_listed_at_once(tmp_path: Path) -> None:
    """Runs of every kind are there when their answers are, found by filters, and cost what the provider says."""
    async with System(tmp_path) as system:
        first = await system.chat("What is the capital of France?")
        await system.chat("And of Italy?", session_id=first["session_id"])
        await system.post("/template/research_report", {"topic": "bees"})
        await eventually(lambda: _complete(system, 3))
        whole = await listed(system)
        assert whole["next"] is None
        by_id = {run["run_id"]: run for run in whole["runs"]}
        assert by_id[first["run_id"]]["title"] == "What is the capital of France?"
        assert {run["state"] for run in whole["runs"]} == {"completed"}
        assert [run["run_id"] for run in (await listed(system, f"?session={first['session_id']}"))["runs"]] == [
            run["run_id"] for run in whole["runs"] if run["session_id"] == first["session_id"]
        ]
        template = (await listed(system, "?template=research_report"))["runs"]
        assert [run["kind"] for run in template] == ["workflow"]
        assert (await listed(system, "?q=italy"))["runs"][0]["title"] == "And of Italy?"
        assert (await listed(system, "?state=failed,cancelled"))["runs"] == []
        page = await listed(system, "?limit=2")
        rest = await listed(system, f"?limit=2&cursor={page['next']}")
        assert page["runs"] + rest["runs"] == whole["runs"]
        told = await system.ledger()
        total = (await used(system, "?by=model"))["total"]
        assert total["calls"] == len(told)
        assert total["cost_usd"] == pytest.approx(sum(one.get("cost_usd") or one.get("cost") or 0 for one in told))
        assert total["simulated"] == total["calls"]
        one = (await system.http.get(f"{system.gateway.url}/runs/{template[0]['run_id']}")).json()
        assert one["ledger"]["cost_usd"] == pytest.approx(template[0]["cost_usd"])
        assert template[0]["baseline_usd"] == one["ledger"]["baseline_usd"]
        assert template[0]["saving_usd"] == pytest.approx(template[0]["baseline_usd"] - template[0]["cost_usd"])
        assert first["saving_usd"] == pytest.approx(first["baseline_usd"] - first["cost_usd"])

        async def at_once() -> bool:
            run_id = (await system.chat("And of Spain?"))["run_id"]
            return run_id in {run["run_id"] for run in (await listed(system, "?state=completed"))["runs"]}

        # The gateway waits for its history, but no longer than a second: of some times once is enough.
        assert any([await at_once() for _ in range(4)])


async def test_a_query_that_is_not_understood_is_refused(tmp_path: Path) -> None:
    async with System(tmp_path) as system:
        answer = await system.http.get(f"{system.gateway.url}/runs?stat=failed&limit=0&cursor=%00&since=monday")
        assert answer.status_code == 422
        problems = {problem["path"]: problem["message"] for problem in answer.json()["detail"]}
        assert set(problems) == {"?stat", "?limit", "?since"}
        assert "state" in problems["?stat"]
        answer = await system.http.get(f"{system.gateway.url}/runs?cursor=%00")
        assert answer.json()["detail"][0]["code"] == "bad_cursor"
        answer = await system.http.get(f"{system.gateway.url}/usage?by=colour")
        assert answer.status_code == 422


async def test_gateways_that_die_and_share_a_database_tell_the_same(tmp_path: Path) -> None:
    """Two gateways on one database, one killed in the middle: every run once, every cost once."""
    async with System(tmp_path, copies={"gateway": 2}) as system:
        asked = [asyncio.create_task(system.chat(f"What is {n} plus one?")) for n in range(20)]
        await asyncio.gather(*asked)
        await listed(system)
        victim = system.running("gateway")[1]
        victim.kill()
        answers = await asyncio.gather(*(system.chat(f"What is {n} plus two?") for n in range(20)))
        await eventually(lambda: _complete(system, 40))
        assert {answer["run_id"] for answer in answers} <= {run["run_id"] for run in (await listed(system))["runs"]}
        total = (await used(system, "?by=day"))["total"]
        assert total["calls"] == len(await system.ledger())


async def _complete(system: System, count: int) -> bool:
    return len((await listed(system, "?state=completed"))["runs"]) == count


async def test_it_is_rebuilt_by_one_command(tmp_path: Path) -> None:
    """With the file gone, and with a gateway that goes on keeping it."""
    async with System(tmp_path) as system:
        for number in range(3):
            await system.chat(f"What is {number} plus one?")
        await eventually(lambda: _complete(system, 3))
        before = await listed(system)
        environment = {
            **os.environ,
            "SEGUE_NATS_URL": system.nats_url or "",
            "SEGUE_HISTORY_URL": f"sqlite:///{tmp_path}/other.db",
        }
        for database in ("other.db", "history.db"):
            environment["SEGUE_HISTORY_URL"] = f"sqlite:///{tmp_path}/{database}"
            done = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-m", "cli", "history", "rebuild", "--from-nothing"],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert "facts" in done.stdout
        await eventually(lambda: _complete(system, 3))
        assert await listed(system) == before
        system.start("gateway", SEGUE_HISTORY_URL=f"sqlite:///{tmp_path}/other.db")
        await system.ready(system.gateway)
        assert await listed(system) == before


async def test_a_history_that_cannot_be_kept_stops_nothing_else(tmp_path: Path) -> None:
    async with System(tmp_path, environment={"SEGUE_HISTORY_URL": "postgresql://segue:geheim@127.0.0.1:9/x"}) as system:
        run_id = (await system.chat("What is one plus one?"))["run_id"]
        answer = await system.http.get(f"{system.gateway.url}/runs")
        assert answer.status_code == 503
        assert "127.0.0.1:9" in answer.json()["detail"]
        assert "geheim" not in answer.text
        assert (await system.http.get(f"{system.gateway.url}/runs/{run_id}")).status_code == 200
        system.start("gateway", SEGUE_HISTORY_URL="off")
        await system.ready(system.gateway)
        answer = await system.http.get(f"{system.gateway.url}/usage")
        assert (answer.status_code, "off" in answer.json()["detail"]) == (503, True)
