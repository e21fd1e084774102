"""Deadlines on a real bus: a run ends when its time is over, and not when that of a timer set by others was."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import nats

from services.finisher.handlers import Finisher, Presenters
from shared import subjects
from shared.bus.connection import Bus, open_bus
from shared.bus.provisioner import provision
from shared.bus.server import NatsServer
from shared.contracts.commands import ChatRequest, DeadlinePassed
from shared.contracts.events import RunAccepted, RunEnded
from shared.contracts.ids import new_run_id
from shared.contracts.message import Run
from shared.pool import pool
from shared.topology import FINISHER_DEADLINES, FINISHES, Limits
from tests.conftest import eventually

NOBODY = Presenters("r", "p", 10_000, "r", "p")


def run(lasts_s: float) -> Run:
    now = datetime.now(UTC)
    return Run(run_id=new_run_id(), tenant="acme", born_at=now, deadline_at=now + timedelta(seconds=lasts_s))


def longer(one: Run, by_s: float) -> Run:
    """Return the same run as another gateway bore it, later."""
    later = timedelta(seconds=by_s)
    return one.model_copy(update={"born_at": one.born_at + later, "deadline_at": one.deadline_at + later})


@asynccontextmanager
async def ground(server: NatsServer) -> AsyncIterator[Bus]:
    """A bus on which a finisher takes deadlines."""
    client = await nats.connect(server.url)
    await provision(client, Limits())
    bus = await open_bus(client)
    finisher = Finisher(bus, NOBODY, lambda: datetime.now(UTC))
    pull = pool(bus, "finisher", [FINISHER_DEADLINES], finisher.overdue, places=4)
    await pull.start()
    yield bus
    await pull.drain(0.2)
    await client.close()


async def over(bus: Bus, one: Run) -> RunEnded:
    """Wait until a run has ended, and everything about its deadline is gone."""
    subject = subjects.facts(one).ended

    async def there() -> bool:
        info = await bus.client.jetstream().stream_info(FINISHES)
        return info.state.messages == 0 and await bus.log.exists(subject)

    await eventually(there)
    ended = await bus.log.read(subject, RunEnded)
    assert ended is not None
    return ended


async def test_a_run_that_nobody_took_up_ends_when_its_time_is_over(own_nats_server: NatsServer) -> None:
    async with ground(own_nats_server) as bus:
        one = run(0.3)
        await bus.log.set_timer(one, "categorizer")
        ended = await over(bus, one)
        assert (ended.outcome, ended.fault is not None and ended.fault.code) == ("failed", "deadline")
        assert ended.ended_at >= one.deadline_at


async def test_an_accepted_run_has_all_of_its_time(own_nats_server: NatsServer) -> None:
    """The timer of a gateway that bore it sooner, and was not accepted, fires before."""
    async with ground(own_nats_server) as bus:
        sooner = run(0.2)
        accepted = longer(sooner, 0.8)
        fact = RunAccepted(run=accepted, request=ChatRequest(message="?"), by="categorizer")
        await bus.log.write(subjects.facts(sooner).accepted, fact)
        await bus.log.set_timer(sooner)
        ended = await over(bus, accepted)
        assert ended.ended_at >= accepted.deadline_at
        assert ended.run == accepted


async def test_a_queued_run_has_the_time_of_its_latest_timer(own_nats_server: NatsServer) -> None:
    """The one before fired while another gateway set its own: what that one told its caller holds."""
    async with ground(own_nats_server) as bus:
        sooner = run(0.2)
        later = longer(sooner, 0.8)
        await bus.log.set_timer(later)
        await bus.log.send(subjects.deadline(sooner.run_id), DeadlinePassed(run=sooner))
        ended = await over(bus, later)
        assert ended.ended_at >= later.deadline_at
