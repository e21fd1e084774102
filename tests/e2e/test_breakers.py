"""Breakers over the running system: seen, said, and reset by hand."""

import asyncio
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from cli.main import app
from tests.system import System, eventually


def _impatient(document: dict[str, Any]) -> None:
    document["error_handling"]["circuit_breaker"] = {"failure_threshold": 3, "timeout_seconds": 600}
    document["error_handling"]["retry_config"] = {"base_delay_ms": 10, "max_delay_ms": 20}


async def test_a_model_that_is_down_is_left_alone_by_all_until_somebody_says_otherwise(tmp_path: Path) -> None:
    """Two executors: after three failures nobody asks it, whoever stands in answers; the list says why; reset works."""
    async with System(tmp_path, copies={"executor": 2}, configure=_impatient) as system:
        models = (await system.http.get(f"{system.gateway.url}/models")).json()["models"]
        medium = next(one["model"] for one in models if one["name"] == "medium_ai")
        await system.faults(
            {"match": {"model": medium}, "times": "forever", "fault": {"kind": "status", "status": 500}}
        )
        answers = [await system.chat(f"What is {number} plus one?") for number in range(6)]
        assert all(answer["model_used"] != medium for answer in answers)
        asked = [one for one in await system.ledger() if one.get("model") == medium]
        assert len(asked) == 3, "three failures in a row, over both executors, and then nobody asked"
        listed = (await system.http.get(f"{system.gateway.url}/breakers")).json()["breakers"]
        assert [(one["model"], one["state"], one["failures"]) for one in listed] == [(medium, "open", 3)]
        assert "500" in listed[0]["reason"]

        async def shown() -> bool:
            pages = [(await system.http.get(f"{one.url}/metrics")).text for one in system.running("executor")]
            return all(f'model="{medium}"' in page and "segue_breaker_open" in page for page in pages)

        await eventually(shown)
        await system.http.delete(f"{system.simulator.url}/__sim/faults")

        def said(*arguments: str) -> str:
            done = CliRunner().invoke(app, ["breakers", *arguments, "--url", system.gateway.url])
            assert done.exit_code == 0, done.output
            return done.output

        assert medium in await asyncio.to_thread(said, "ls")
        await asyncio.to_thread(said, "reset", listed[0]["provider"], medium)
        assert "every model is asked" in await asyncio.to_thread(said, "ls")

        async def asked_again() -> bool:
            return bool((await system.chat("What is two plus two?"))["model_used"] == medium)

        await eventually(asked_again)
        again = await system.post("/breakers/reset", {"provider": "openrouter", "model": medium})
        assert again.status_code == 404
