"""While nobody takes requests up: seen, followed, cancelled, and then dropped; with the services as real processes."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from typer.testing import CliRunner, Result

from cli.main import app
from client import AsyncSegue
from shared.bus.connection import open_bus
from shared.contracts.access import Places
from shared.overtaken import QUEUED_S
from tests.e2e.test_budgets import SECRET as KEYS_SECRET
from tests.e2e.test_budgets import bearing, key
from tests.receiver import SECRET, Receiver, receiving
from tests.system import System, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENVIRONMENT = {"SEGUE_CALLBACK_SECRETS": f"default=whsec_{SECRET}", "SEGUE_ALLOWED_NETWORKS": "127.0.0.0/8"}
QUESTION = {"message": "What is the capital of France?"}
STEPS: dict[str, Any] = {
    "workflow": [{"type": "inline", "tasks": [{"model": "fast_ai", "prompt": "say a", "output_variable": "a"}]}]
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """One copy of each service, and a receiver's network allowed."""
    async with System(tmp_path_factory.mktemp("queued"), environment=ENVIRONMENT) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as there:
        yield there


@contextmanager
def stopped(system: System, *services: str) -> Iterator[None]:
    """Have services take nothing: they are frozen, as if far behind."""
    pids = [process.pid for name in services for process in system.running(name)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def told(system: System, *arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, ["runs", *arguments, "--url", system.gateway.url])


async def look(system: System, run_id: str) -> dict[str, Any]:
    answer = await system.http.get(f"{system.gateway.url}/runs/{run_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def taken(system: System, stream: str) -> None:
    """Wait until every command of a queue is dealt with."""

    async def empty() -> bool:
        return (await system.client.jetstream().stream_info(stream)).state.messages == 0

    await eventually(empty)


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "service", "stream"),
    [("/chat", QUESTION, "categorizer", "REQUESTS"), ("/workflow", STEPS, "planner", "WORKFLOWS")],
)
async def test_what_is_cancelled_while_it_is_queued_is_dropped_when_it_is_taken_up(
    system: System, receiver: Receiver, path: str, body: Any, service: str, stream: str, keyed: bool
) -> None:
    """202, queued, cancelled; later nothing is decided or asked for it, and its caller is called back with its end."""
    headers = {"Idempotency-Key": f"cancel {path}"} if keyed else {}
    asked = await system.ledger()
    with stopped(system, service):
        url = f"{receiver.url}/{service}-{keyed}"
        begun = await system.post(f"{path}?wait=false", {**body, "callback_url": url}, **headers)
        assert begun.status_code == 202, begun.text
        run_id = begun.json()["run_id"]
        shown = await told(system, "show", run_id)
        assert f"{run_id}  queued" in shown.output, shown.output
        assert f"waits for a {service} to take it up, until" in " ".join(shown.output.split())
        refused = await told(system, "pause", run_id)
        assert (refused.exit_code, "is queued" in refused.output) == (1, True), refused.output
        watch = ("-m", "cli", "runs", "watch", run_id, "--url", system.gateway.url)
        watching = await asyncio.create_subprocess_exec(sys.executable, *watch, stdout=asyncio.subprocess.PIPE)
        assert watching.stdout is not None
        assert b"queued" in await asyncio.wait_for(watching.stdout.readline(), 30)
        gone = await told(system, "cancel", run_id, "--reason", "never mind")
        assert (gone.exit_code, "is cancelled" in gone.output) == (0, True), gone.output
        rest, _ = await asyncio.wait_for(watching.communicate(), 30)
        assert (watching.returncode, rest.split()[0]) == (1, b"cancelled"), rest
        assert set(await system.facts(run_id)) == {"ended"}

        async def old() -> bool:
            born_at = datetime.fromisoformat((await look(system, run_id))["born_at"])
            return (datetime.now(UTC) - born_at).total_seconds() > QUEUED_S

        await eventually(old)
    await taken(system, stream)

    async def called_back() -> bool:
        return any(got.path == f"/{service}-{keyed}" for got in receiver.got)

    await eventually(called_back)
    facts = await system.facts(run_id)
    assert set(facts) - {"callback.1"} == {"accepted", "ended"}
    assert facts["ended"]["outcome"] == "cancelled"
    assert (await look(system, run_id))["kind"] == facts["accepted"]["request"]["kind"]
    assert await system.ledger() == asked
    await taken(system, "FINISHES")  # its timer, too, which the acceptor of a keyed one would set


@pytest.mark.parametrize("keyed", [False, True])
async def test_a_run_is_followed_by_the_client_from_before_it_is_taken_up(system: System, keyed: bool) -> None:
    """The first fact is `accepted`, however long it was queued."""
    async with AsyncSegue(system.gateway.url) as segue:
        with stopped(system, "categorizer"):
            body = {**QUESTION, "async": True}
            begun = await system.post("/chat", body, **({"Idempotency-Key": "follow"} if keyed else {}))
            run_id = begun.json()["run_id"]
            run = await segue.run(run_id)
            assert (run.queued, run.over, run.kind) == (True, False, None)
            names: list[str] = []

            async def follow() -> None:
                async for event in segue.events(run_id, tokens=False):
                    names.append(event.name)

            following = asyncio.create_task(follow())
            done, _ = await asyncio.wait([following], timeout=0.5)
            assert not done, "a run that is queued is there"
        await asyncio.wait_for(following, 30)
        assert (names[0], names[-1]) == ("accepted", "ended")
        assert (await segue.wait(run_id)).state == "completed"


async def test_a_key_whose_time_was_over_while_it_was_queued_is_answered_with_that(system: System) -> None:
    """504, and 504 again with the same words; when it is taken up at last nothing is asked for it."""
    asked, headers = await system.ledger(), {"Idempotency-Key": "too late"}
    with stopped(system, "categorizer"):
        first = await system.post("/chat", {**QUESTION, "timeout_s": 1.5}, **headers)
        again = await system.post("/chat", {**QUESTION, "timeout_s": 1.5}, **headers)
        assert first.status_code == again.status_code == 504, (first.text, again.text)
        assert again.headers["idempotency-replayed"] == "true"
        assert first.content == again.content
        run_id = first.json()["run_id"]
        assert (await look(system, run_id))["error"]["code"] == "deadline"
    await taken(system, "REQUESTS")
    assert set(await system.facts(run_id)) == {"accepted", "ended"}
    assert await system.ledger() == asked


async def test_its_place_is_given_back_when_it_is_cancelled(tmp_path: Path) -> None:
    """A key that may have one run has one queued: the next is refused, until that one is cancelled."""
    environment = {"SEGUE_AUTH": "keys", "SEGUE_KEY_SECRET": KEYS_SECRET}
    async with System(tmp_path, environment=environment) as system:
        made = await key(system, "single", concurrent_runs=1)
        bus = await open_bus(system.client)
        with stopped(system, "categorizer"):
            for headers in ({}, {"Idempotency-Key": "one place"}):
                begun = await system.post("/chat?wait=false", QUESTION, **bearing(made), **headers)
                assert begun.status_code == 202, begun.text
                again = await system.post("/chat?wait=false", QUESTION, **bearing(made))
                assert (again.status_code, json.loads(again.content)["detail"][:6]) == (429, "1 runs"), again.text
                where = f"{system.gateway.url}/runs/{begun.json()['run_id']}/cancel"
                gone = await system.http.post(where, json={}, headers=bearing(made))
                assert gone.json()["state"] == "cancelled", gone.text

                async def left() -> bool:
                    places, _ = await bus.budgets.get(f"runs.key.{made.key.id}", Places)
                    return places is not None and not places.runs

                await eventually(left)
