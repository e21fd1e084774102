"""What is wrong is refused or buried with its reason, and the run that it belongs to ends."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nats.js.errors
import pytest

from shared import subjects
from shared.bus.connection import open_bus
from shared.contracts.commands import ChatRequest, SubmitRequest
from shared.contracts.events import RunEnded
from shared.contracts.ids import Priority, new_run_id
from shared.contracts.message import Run
from tests.system import System, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


def a_run(seconds: float = 30) -> Run:
    now = datetime.now(UTC)
    return Run(run_id=new_run_id(), tenant="outside", born_at=now, deadline_at=now + timedelta(seconds=seconds))


def allow(document: dict[str, Any], seconds: int) -> None:
    """Give every run so many seconds."""
    document["orchestration"]["defaultTimeoutSeconds"] = seconds


async def dead_letters(system: System, service: str) -> list[Any]:
    """Return what a service buried, newest last."""
    try:
        last = await system.client.jetstream().get_last_msg("DEAD", subjects.dead(service))
    except nats.js.errors.NotFoundError:
        return []
    return [last]


async def test_a_request_straight_from_the_bus_is_answered(system: System) -> None:
    """Another system publishes a request, with its own run id and no gateway: the log has the answer."""
    bus, run = await open_bus(system.client), a_run()
    await bus.log.submit(SubmitRequest(run=run, request=ChatRequest(message="What is the capital of Peru?")))
    ended = await bus.live.expect(
        subjects.live(run.tenant, run.run_id).ended,
        subjects.facts(run).ended,
        RunEnded,
        ask=None,
        until=asyncio.get_running_loop().time() + 20,
    )
    assert ended is not None
    assert ended.outcome == "completed"


async def test_malformed_bus_messages_are_buried_with_the_reason(system: System) -> None:
    """Not JSON, not the schema: in DEAD with why, and gone from the queue; the next request is answered."""
    subject = subjects.request("outside", Priority.HIGH)
    for number, body in enumerate((b"\xff\x00 not json", b"{}", b"[]", b'{"v": 1, "run": 7}')):
        await system.client.jetstream().publish(subject, body)

        async def buried(number: int = number) -> bool:
            return (await system.client.jetstream().stream_info("DEAD")).state.messages > number

        await eventually(buried)
    letter = (await dead_letters(system, "categorizer"))[-1]
    assert "not a readable SubmitRequest" in letter.headers["Segue-Reason"]
    assert letter.headers["Segue-Subject"] == subject

    async def gone() -> bool:
        # It is buried before it is taken out of the queue: a death in between buries it twice and loses nothing.
        return (await system.client.jetstream().stream_info("REQUESTS")).state.messages == 0

    await eventually(gone)
    await system.chat("Still there?")


async def test_a_message_of_a_later_version_ends_its_run(system: System) -> None:
    """An unknown version is not guessed at: the run ends with the reason, then the message is buried."""
    bus, run = await open_bus(system.client), a_run()
    command = SubmitRequest(run=run, request=ChatRequest(message="hello"))
    later = {**json.loads(command.encode()), "v": 2}
    subject = subjects.request("outside", Priority.MEDIUM)
    await system.client.jetstream().publish(subject, json.dumps(later).encode())
    facts = subjects.facts(run)

    async def ended() -> bool:
        return await bus.log.exists(facts.ended)

    await eventually(ended)
    end = await bus.log.read(facts.ended, RunEnded)
    assert end is not None
    assert end.outcome == "denied"
    assert end.fault is not None
    assert "version 1" in end.fault.message

    async def buried() -> bool:
        letters = await dead_letters(system, "categorizer")
        return any(letter.headers["Segue-Subject"] == subject for letter in letters)

    await eventually(buried)


async def test_a_provider_that_is_down_is_an_honest_failure_within_the_deadline(tmp_path: Path) -> None:
    """Nobody answers at the provider's address: a failure that names it, and not the end of the gateway's patience."""
    async with System(tmp_path, configure=lambda document: allow(document, 8)) as system:
        system.simulator.kill()
        answer = await system.post("/chat", {"message": "What is the capital of France?"})
        assert answer.status_code in {502, 504}
        assert answer.json()["detail"]
        end = (await system.facts(answer.json()["run_id"]))["ended"]
        assert end["outcome"] == "failed"
        assert end["fault"]["message"] in str(answer.json()["detail"])


async def test_executors_that_are_all_gone_are_named_at_the_deadline(tmp_path: Path) -> None:
    """No executor at all: the bus keeps the deadline and the finisher ends the run with what it waited for."""
    async with System(tmp_path, copies={"executor": 0}, configure=lambda document: allow(document, 3)) as system:
        answer = await system.post("/chat", {"message": "What is the capital of France?"})
        assert answer.status_code == 504, answer.text
        assert "waiting for" in answer.json()["detail"]
