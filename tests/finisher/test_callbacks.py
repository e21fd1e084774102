"""Deliveries on a real bus to a real receiver: whatever waits is on the bus, what became of it is on the log."""

import asyncio
import ipaddress
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web

from services.finisher.callback import Policy
from services.finisher.callbacks import Callbacks, call_back
from services.finisher.receivers import PER_ORIGIN, Receivers
from shared import subjects
from shared.bus.connection import Bus, open_bus
from shared.bus.provisioner import provision
from shared.bus.server import NatsServer, free_port
from shared.config.environment import Environment
from shared.contracts.callbacks import Callback, CallbackSettled, DeliverCallback
from shared.contracts.commands import ChatRequest
from shared.contracts.events import RunAccepted, RunEnded
from shared.contracts.ids import new_run_id
from shared.contracts.message import Run
from shared.outward import Outward
from shared.pool import pool
from shared.topology import FINISHER_CALLBACKS, FINISHES, Limits
from tests.conftest import eventually
from tests.receiver import SECRET, Got, Receiver, receiving, verified

QUICK = Policy(attempts=4, first_retry_s=0.1, most_retry_s=0.5, give_up_s=120)
SLOW = Policy(attempts=4, first_retry_s=60, most_retry_s=60, give_up_s=600)
"""What is put back stays so until it is hurried."""
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


@dataclass
class Ground:
    """A bus with a finisher's deliveries running on it, and a receiver."""

    bus: Bus
    receiver: Receiver

    async def over(self, url: str | None = None, tenant: str = "acme", text: str = "Paris.") -> Run:
        """Have a run's end on the log, and its callback begun as the finisher begins it."""
        now = datetime.now(UTC)
        run = Run(run_id=new_run_id(), tenant=tenant, born_at=now, deadline_at=now + timedelta(seconds=30))
        facts = subjects.events(tenant, run.run_id)
        callback = Callback(url=url or f"{self.receiver.url}/hook")
        accepted = RunAccepted(run=run, request=ChatRequest(message="?"), by="categorizer", callback=callback)
        await self.bus.log.write(facts.accepted, accepted)
        await self.bus.log.write(facts.ended, RunEnded(run=run, outcome="completed", text=text, ended_at=now))
        await call_back(self.bus, accepted, now, again=False)
        return run

    async def settled(self, run: Run, number: int = 1) -> CallbackSettled:
        """Wait for what became of a delivery."""
        subject = subjects.facts(run).callback(number)

        async def there() -> bool:
            return await self.bus.log.exists(subject)

        await eventually(there)
        found = await self.bus.log.read(subject, CallbackSettled)
        assert found is not None
        return found

    async def left(self) -> int:
        """Return how many messages about callbacks are left in the queue."""
        info = await self.bus.client.jetstream().stream_info(FINISHES)
        return int(info.state.messages)

    async def put_back(self, run: Run) -> DeliverCallback:
        """Wait until a delivery waits for its next time, and nothing else is left of it; return what waits."""
        waits = subjects.callback_wait(run.tenant, run.run_id)

        async def waiting() -> bool:
            return await self.left() == 1 and await self.bus.jetstream.last(FINISHES, waits) is not None

        await eventually(waiting)
        kept = await self.bus.jetstream.last(FINISHES, waits)
        assert kept is not None
        return DeliverCallback.decode(kept.data)


@asynccontextmanager
async def ground(server: NatsServer, policy: Policy = QUICK, timeout_s: float = 20.0) -> AsyncIterator[Ground]:
    import nats

    client = await nats.connect(server.url)
    await provision(client, Limits())
    bus = await open_bus(client)
    outward = Outward(LOOPBACK)
    environment = Environment.read({"SEGUE_CALLBACK_SECRETS": f"acme=whsec_{SECRET},other={SECRET}"})
    callbacks = Callbacks(
        bus=bus,
        outward=outward,
        receivers=Receivers(time.monotonic),
        policy=policy,
        secrets=environment.callback_secrets,
        timeout_s=timeout_s,
        most_bytes=100_000,
        now=lambda: datetime.now(UTC),
    )
    pull = pool(bus, "finisher", [FINISHER_CALLBACKS], callbacks.deliver, places=16)
    await pull.start()
    async with receiving() as receiver:
        yield Ground(bus, receiver)
    await pull.drain(0.2)
    await outward.close()
    await client.close()


async def test_an_answer_is_delivered_signed_and_that_is_a_fact(own_nats_server: NatsServer) -> None:
    async with ground(own_nats_server) as there:
        run = await there.over()
        settled = await there.settled(run)
        assert (settled.outcome, settled.reason, len(settled.attempts)) == ("delivered", None, 1)
        [got] = there.receiver.got
        assert verified(got.headers, got.body, SECRET)
        assert got.headers["webhook-id"] == settled.message_id == f"run_{run.run_id}"
        assert (got.data["response"], got.data["run_id"]) == ("Paris.", run.run_id)

        async def tidy() -> bool:
            return not await there.left()

        await eventually(tidy)


async def test_a_receiver_that_fails_is_tried_again_with_the_same_id_and_body(own_nats_server: NatsServer) -> None:
    """500, then an answer that is too slow to come, then well: three POSTs of one message."""

    def answers(got: Got, number: int) -> web.Response:
        return web.Response(status=500 if number < 3 else 200)

    async with ground(own_nats_server) as there:
        there.receiver.answers = answers
        settled = await there.settled(await there.over())
        assert settled.outcome == "delivered"
        assert [one.status for one in settled.attempts] == [500, 500, 200]
        assert [one.problem for one in settled.attempts] == ["it answered 500", "it answered 500", None]
        assert len({(got.headers["webhook-id"], got.body) for got in there.receiver.got}) == 1


async def test_a_receiver_that_is_too_slow_has_failed(own_nats_server: NatsServer) -> None:
    async with ground(own_nats_server, replace(QUICK, attempts=1), timeout_s=0.3) as there:
        there.receiver.delay_s = 30.0
        settled = await there.settled(await there.over())
        assert settled.outcome == "given_up"
        assert "no answer within 0.3 s" in (settled.reason or "")


async def test_gone_is_gone(own_nats_server: NatsServer) -> None:
    async with ground(own_nats_server) as there:
        there.receiver.answers = lambda got, number: web.Response(status=410)
        settled = await there.settled(await there.over())
        assert (settled.outcome, len(settled.attempts)) == ("given_up", 1)
        assert "410 Gone" in (settled.reason or "")


async def test_redirects_are_not_followed(own_nats_server: NatsServer) -> None:
    """Not to a private address, nor anywhere else: what is signed for one receiver is not shown to another."""
    async with receiving() as elsewhere, ground(own_nats_server, replace(QUICK, attempts=2)) as there:
        where = {"location": f"{elsewhere.url}/secret"}
        there.receiver.answers = lambda got, number: web.Response(status=307, headers=where)
        settled = await there.settled(await there.over())
        assert settled.reason == "2 attempts failed, the last one: it answered 307; redirects are not followed"
        assert not elsewhere.got


@pytest.mark.parametrize("url", ["https://10.0.0.1/hook", "https://169.254.169.254/latest", "http://[::1]:1/hook"])
async def test_private_networks_are_not_asked(own_nats_server: NatsServer, url: str) -> None:
    """Whatever door it came by: given up at once, with the reason."""
    async with ground(own_nats_server) as there:
        settled = await there.settled(await there.over(url))
        assert (settled.outcome, settled.attempts) == ("given_up", ())
        assert "network that is not asked" in (settled.reason or "")


async def test_nobody_there_is_a_failure_like_another(own_nats_server: NatsServer) -> None:
    async with ground(own_nats_server, replace(QUICK, attempts=2)) as there:
        settled = await there.settled(await there.over(f"http://127.0.0.1:{free_port()}/hook"))
        assert (settled.outcome, len(settled.attempts)) == ("given_up", 2)


async def test_without_a_secret_nothing_is_sent(own_nats_server: NatsServer) -> None:
    async with ground(own_nats_server) as there:
        settled = await there.settled(await there.over(tenant="nobody"))
        assert "SEGUE_CALLBACK_SECRETS" in (settled.reason or "")
        assert not there.receiver.got


async def test_a_slow_receiver_keeps_nobody_waiting(own_nats_server: NatsServer) -> None:
    """Forty answers for one that answers nobody yet; those of another receiver come all the same."""
    async with receiving() as slow, ground(own_nats_server, timeout_s=60.0) as there:
        slow.opened = asyncio.Event()
        held = [await there.over(f"{slow.url}/hook") for _ in range(40)]
        await eventually(lambda: bool(slow.got))
        quick = [await there.over(tenant="other") for _ in range(20)]
        assert {one.outcome for one in await asyncio.gather(*map(there.settled, quick))} == {"delivered"}
        assert 0 < len(slow.got) <= PER_ORIGIN
        slow.opened.set()
        first = await there.settled(held[0])
        assert first.outcome == "delivered"


async def test_a_copy_of_a_delivery_changes_nothing(own_nats_server: NatsServer) -> None:
    """While it waits for its time, and after it is settled: the one chain goes on, and no POST is made for the copy."""
    async with ground(own_nats_server, SLOW) as there:
        there.receiver.answers = lambda got, number: web.Response(status=500 if number == 1 else 200)
        run = await there.over()
        due, kept = subjects.callback(run.tenant, run.run_id), await there.put_back(run)
        first = kept.model_copy(update={"tried": ()})
        await there.bus.log.send(due, first)
        assert await there.put_back(run) == kept
        assert len(there.receiver.got) == 1
        await there.bus.log.send(due, kept.model_copy(update={"hurried": True}))
        settled = await there.settled(run)
        assert [one.status for one in settled.attempts] == [500, 200]
        await there.bus.log.send(due, first)

        async def tidy() -> bool:
            return not await there.left()

        await eventually(tidy)
        assert len(there.receiver.got) == 2


async def test_what_waits_can_be_hurried(own_nats_server: NatsServer) -> None:
    """It is tried now, what the bus kept for later is taken back, and what was tried before is not forgotten."""
    async with ground(own_nats_server, SLOW) as there:
        there.receiver.answers = lambda got, number: web.Response(status=500 if number == 1 else 200)
        run = await there.over()
        hurried = (await there.put_back(run)).model_copy(update={"hurried": True})
        await there.bus.log.send(subjects.callback(run.tenant, run.run_id), hurried)
        settled = await there.settled(run)
        assert [one.status for one in settled.attempts] == [500, 200]

        async def tidy() -> bool:
            return not await there.left()

        await eventually(tidy)
