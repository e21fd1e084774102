"""Attempts of unknown cost, as people see them: listed while nobody knows, shown with what was found afterwards."""

import asyncio
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from cli.main import app
from tests.system import System, eventually

SLICE: dict[str, Any] = {"workflow": [{"type": "inline", "tasks": [{"model": "medium_ai", "prompt": "A slice."}]}]}


async def test_an_attempt_of_unknown_cost_is_listed_until_it_is_known(tmp_path: Path) -> None:
    """In the API, on the command line and in its run: held at its maximum, then with what its provider says."""

    async def costs(*arguments: str) -> Result:
        return await asyncio.to_thread(
            CliRunner().invoke, app, ["costs", "--unknown", *arguments, "--url", system.gateway.url]
        )

    async def attempt() -> dict[str, Any]:
        found: dict[str, Any] = (await system.http.get(f"{system.gateway.url}/runs/{run_id}")).json()
        first: dict[str, Any] = found["tasks"][0]["attempts"][0]
        return first

    async def known() -> bool:
        return bool((await attempt())["reconciled"] == "found")

    async with System(tmp_path) as system:
        assert "the cost of every attempt is known" in (await costs()).output
        await system.faults({"match": {"contains": "A slice"}, "fault": {"kind": "cut_stream", "after_chunks": 1}})
        run_id = (await system.post("/workflow", SLICE)).json()["run_id"]
        held = await attempt()
        if held["reconciled"] is None:  # the provider is asked two seconds after the settlement
            assert (held["cost_usd"], held["asked_after"], held["outcome"]) == (None, True, "stream_cut")
            assert held["reserved_usd"] > 0
        await eventually(known)
        cut = (await system.ledger())[0]
        assert ((await attempt())["cost_usd"], (await attempt())["reserved_usd"]) == (cut["cost_usd"], None)

        async def listed_no_more() -> bool:
            return "the cost of every attempt is known" in (await costs()).output

        await eventually(listed_no_more)
        answer = await system.http.get(f"{system.gateway.url}/unknown-attempts?cursor=x")
        assert (answer.status_code, answer.json()["detail"][0]["code"]) == (422, "bad_cursor")
