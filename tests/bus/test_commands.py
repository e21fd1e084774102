"""Commands are queued once, whoever sends them and whatever is lost; requests within their tenant's share."""

import asyncio
import time

import pytest

from shared import subjects
from shared.bus.errors import QueueFull
from shared.contracts.commands import ExecuteCall, FinishRun, SubmitRequest
from shared.contracts.ids import Lane, Priority, Purpose
from shared.contracts.message import ChatMessage, Run
from shared.topology import EXECUTOR, FINISHER, FINISHES, REQUESTS
from tests.bus.ground import Ground, done_with, due, request, taken
from tests.bus.losing import losing


def finish(run: Run) -> FinishRun:
    return FinishRun(run=run, outcome="workflow")


async def test_a_copy_of_a_command_is_refused_until_the_first_is_dealt_with(ground: Ground) -> None:
    run, (bus,) = ground.run(), ground.buses
    subject = subjects.finish(run)
    assert await bus.log.send(subject, finish(run))
    assert not await bus.log.send(subject, finish(run))  # queued
    msg = await taken(ground, FINISHER[0])
    assert msg.data == finish(run).encode()
    assert not await bus.log.send(subject, finish(run))  # being worked on
    await msg.ack_sync(timeout=30)
    async with asyncio.timeout(30):  # a cluster answers the ack before it has removed the message
        while not await bus.log.send(subject, finish(run)):
            await asyncio.sleep(0.02)
    await done_with(ground, FINISHER[0])


async def test_twenty_senders_of_a_command_queue_it_once(ground: Ground) -> None:
    run, buses = ground.run(), [*ground.buses, await ground.bus()]
    taken = await asyncio.gather(*(buses[n % 2].log.send(subjects.finish(run), finish(run)) for n in range(20)))
    assert taken.count(True) == 1
    assert await ground.stored(FINISHES, subjects.finish(run)) == 1
    await done_with(ground, FINISHER[0])


async def test_a_command_whose_answer_is_lost_is_queued_once(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    run, (bus,) = ground.run(), ground.buses
    losing(monkeypatch, bus, answers=2)
    await bus.log.send(subjects.finish(run), finish(run))
    assert await ground.stored(FINISHES, subjects.finish(run)) == 1
    await done_with(ground, FINISHER[0])


async def test_a_large_command_that_waits_arrives_whole(ground: Ground) -> None:
    """A call put back to wait carries its context by reference through the schedule."""
    run, bus = ground.run(), await ground.bus()
    command = ExecuteCall(
        run=run,
        call="answer",
        purpose=Purpose.ANSWER,
        lane=Lane.VIDEO,
        role="r",
        messages=(ChatMessage(role="user", content="x" * 3_600_000),),
    )
    target = subjects.call(run, Lane.VIDEO, Purpose.ANSWER, "answer")
    await ground.buses[0].log.send_at(subjects.wait(run, Purpose.ANSWER, "answer"), target, command, due(0.1))
    msg = await taken(ground, EXECUTOR[Lane.VIDEO][0])
    assert ExecuteCall.decode(await bus.payloads.unpack(msg.data, msg.headers)) == command
    assert not await bus.log.send(target, command)  # it is queued now
    await msg.ack_sync(timeout=30)


async def test_a_request_submitted_again_counts_once(ground: Ground) -> None:
    run, buses = ground.run(), [*ground.buses, await ground.bus()]
    subject = subjects.request(run.tenant, run.priority)
    await asyncio.gather(*(buses[n % 2].log.submit(request(run)) for n in range(20)))
    assert await ground.stored(REQUESTS, subject) == 1
    await buses[0].log.submit(request(ground.run()))
    assert await ground.stored(REQUESTS, subject) == 2
    await buses[0].jetstream.purge(REQUESTS, subject)


async def test_one_tenant_fills_its_share_and_another_gets_in(ground: Ground) -> None:
    await ground.provision(max_queue_depth=50, max_queue_depth_per_tenant=3)
    bus = ground.buses[0]
    full, free = f"{ground.tenant}-full", f"{ground.tenant}-free"
    kept = [ground.run(tenant=full) for _ in range(3)]
    for run in kept:
        await bus.log.submit(request(run))
    began = time.monotonic()
    with pytest.raises(QueueFull) as refused:
        await bus.log.submit(request(ground.run(tenant=full)))
    assert time.monotonic() - began < 10, "and not when patience is over"
    assert refused.value.of_subject
    assert refused.value.retry_after_s > 0
    await bus.log.submit(request(kept[0]))  # what was taken is not refused when it is said again
    await bus.log.submit(request(ground.run(tenant=free)))
    assert await ground.stored(REQUESTS, subjects.request(full, Priority.HIGH)) == 3
    for tenant in (full, free):
        await bus.jetstream.purge(REQUESTS, subjects.request(tenant, Priority.HIGH))


async def test_a_full_queue_says_so_at_once_and_keeps_what_it_has(ground: Ground) -> None:
    await ground.provision(max_queue_depth=4, max_queue_depth_per_tenant=4)
    bus = ground.buses[0]
    await bus.jetstream.purge(REQUESTS, "segue.request.>")  # what other tests may have left in the same stream
    runs = [ground.run(tenant=f"{ground.tenant}-{n}") for n in range(4)]
    await asyncio.gather(*(bus.log.submit(request(run)) for run in runs))
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(QueueFull) as refused:
            await bus.log.submit(request(ground.run(tenant=f"{ground.tenant}-late")))
        assert time.monotonic() - began < 10, "and not when patience is over"
        assert not refused.value.of_subject
    stored = await bus.jetstream.last(REQUESTS, subjects.request(runs[0].tenant, Priority.HIGH))
    assert stored is not None
    assert SubmitRequest.decode(stored.data) == request(runs[0])
    await bus.jetstream.purge(REQUESTS, subjects.request(runs[0].tenant, Priority.HIGH))
    await bus.log.submit(request(ground.run(tenant=runs[0].tenant)))  # there is room again
    for run in runs:
        await bus.jetstream.purge(REQUESTS, subjects.request(run.tenant, Priority.HIGH))
