"""The dashboard's expressions, run by a real Prometheus that scrapes the real services."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from shared.bus.server import free_port
from tests.system import System, eventually

ROOT = Path(__file__).resolve().parents[2]
EMPTY_WHEN_ALL_IS_WELL = {"Dead letters a second", "Redelivered a second"}
"""Panels whose series begin with the first mishap."""


def panels() -> list[dict[str, Any]]:
    document = json.loads((ROOT / "deploy/grafana/dashboards/overview.json").read_text())
    return [panel for panel in document["panels"] if panel["type"] == "timeseries"]


@pytest.mark.slow
async def test_every_panel_shows_something(tmp_path: Path) -> None:
    """A few requests of each category, then every expression returns data."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian: apt-get install prometheus)")
    async with System(tmp_path) as system:
        configuration = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
        by_name = {process.name: f"127.0.0.1:{process.port}" for process in system.processes}
        jobs = [job["job_name"] for job in configuration["scrape_configs"] if job["job_name"] in by_name]
        assert set(jobs) == {"gateway", "categorizer", "planner", "executor", "finisher"}
        scraped = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "scrape_configs": [{"job_name": job, "static_configs": [{"targets": [by_name[job]]}]} for job in jobs],
        }
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(scraped))
        port = free_port()
        command = [
            program,
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        quiet = asyncio.subprocess.DEVNULL
        prometheus = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet)
        try:
            await _shows(system, f"http://127.0.0.1:{port}")
        finally:
            prometheus.kill()
            await prometheus.wait()


async def _shows(system: System, url: str) -> None:
    async def ask() -> None:
        await system.chat("What is the capital of France?")
        await system.chat(
            "Create a whole campaign: research the market, write three posts and an e-mail, then evaluate it."
        )

    async with httpx.AsyncClient(timeout=30) as client:

        async def empty() -> list[str]:
            missing = []
            for panel in panels():
                for target in panel["targets"]:
                    expression = target["expr"].replace("$__rate_interval", "15s")
                    answer = await client.get(f"{url}/api/v1/query", params={"query": expression})
                    assert answer.status_code == 200, f"{panel['title']}: {answer.text}"
                    if not answer.json()["data"]["result"]:
                        missing.append(panel["title"])
            return [title for title in missing if title not in EMPTY_WHEN_ALL_IS_WELL]

        async def up() -> bool:
            try:
                answer = await client.get(f"{url}/api/v1/query", params={"query": "sum(up)"})
            except httpx.TransportError:
                return False
            if answer.status_code != 200:  # it listens before it is ready
                return False
            found = answer.json()["data"]["result"]
            return bool(found) and found[0]["value"][1] == "5"

        await eventually(up, within_s=40)
        until = asyncio.get_running_loop().time() + 50
        while missing := await empty():
            assert asyncio.get_running_loop().time() < until, f"nothing to show: {missing}"
            await ask()
