"""On three replicas: a revocation is heard by processes at other servers, counters and accounts lose nothing."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from itertools import product

import nats
import pytest

from services.executor.booking import Booking
from services.gateway.admission import Admission, OverLimit
from services.gateway.principal import Account
from shared import subjects
from shared.access.accounts import Held, Wanted, hold, nano
from shared.access.book import KeyBook
from shared.access.records import Records
from shared.bus.connection import Bus, open_bus, options
from shared.bus.provisioner import provision
from shared.bus.server import NatsCluster
from shared.contracts.access import Account as Money
from shared.contracts.access import Allowance, Scope
from shared.topology import RATES, Limits
from tests.bus.ground import ANSWERED_WITHIN_S
from tests.bus.test_hearing import known_to
from tests.conftest import eventually

pytestmark = pytest.mark.cluster
NOW = datetime.now(UTC)


@pytest.fixture
async def buses(nats_cluster: NatsCluster) -> AsyncIterator[list[Bus]]:
    """A connection to each server."""
    async with AsyncExitStack() as stack:
        found: list[Bus] = []
        for server in nats_cluster.servers:

            async def reconnected() -> None:
                """Nothing to do again."""

            client = await nats.connect(**options(server.url, "test", reconnected=reconnected))
            stack.push_async_callback(client.close)
            if not found:
                await provision(client, Limits(replicas=3))
            found.append(await open_bus(client))
            found[-1].jetstream._timeout_s = ANSWERED_WITHIN_S
        yield found


async def test_a_revocation_is_heard_at_every_server_within_a_second(buses: list[Bus]) -> None:
    records = [Records(bus) for bus in buses]
    for one in records:
        await one.start()
    for listening, speaking in product(buses, buses):
        await known_to(listening, speaking)
    took_s: list[float] = []
    book = KeyBook(buses[0], [b"x" * 32], lambda: datetime.now(UTC))
    for _ in range(5):
        made = await book.create(
            name="a", tenant="t", scopes=list(Scope), allowance=Allowance(), expires_at=None, by="a test"
        )
        for one in records:
            key = await one.key(made.key.id)
            assert key is not None
            assert key.revoked_at is None
        await book.revoke(made.key.id)
        began = time.monotonic()

        async def heard(id_: str = made.key.id) -> bool:
            keys = [await one.key(id_) for one in records]
            return all(key is not None and key.revoked_at is not None for key in keys)

        await eventually(heard)
        took_s.append(time.monotonic() - began)
    assert statistics.median(took_s) < 1.0, "in one or two of them the machine may have stood still"


async def test_a_counter_gives_each_number_once(buses: list[Bus]) -> None:
    """However many gateways count, and at whichever server."""
    admissions = [Admission(bus, lambda: datetime.now(UTC)) for bus in buses]
    subject = subjects.rate("key.counted")
    more = {"Nats-Incr": "1"}
    counted = await asyncio.gather(*(admissions[number % 3]._counted(subject, more) for number in range(60)))
    assert sorted(total for _, total in counted) == list(range(1, 61))


async def test_gateways_at_three_servers_let_as_many_in_as_the_limit_says(buses: list[Bus]) -> None:
    """Looking at the window where a replica may be behind; who is refused takes itself back."""
    admissions = [Admission(bus, lambda: datetime.now(UTC)) for bus in buses]
    account = Account("key.cluster", Allowance(requests_per_minute=10))

    async def begins(number: int) -> bool:
        try:
            await admissions[number % 3]._count(account, 10)
        except OverLimit:
            return False
        return True

    assert sum(await asyncio.gather(*(begins(number) for number in range(60)))) == 10
    last = await buses[0].jetstream.last(RATES, subjects.rate("key.cluster"))
    assert last is not None
    assert last.data == b'{"val":"10"}'


async def test_executors_at_three_servers_never_hold_more_than_there_is(buses: list[Bus]) -> None:
    """Ninety want a tenth of a dollar each, and there is one: ten get it."""
    bookings = [Booking(bus.budgets) for bus in buses]
    dollar = Allowance(usd_per_day=1.0)

    async def want(number: int) -> bool:
        found: list[object] = []

        def change(at: Money | None) -> Money | None:
            wanted = Wanted(nano(0.1), 0)
            decided = hold(at, dollar, f"r{number}", wanted, now=NOW, until=NOW + timedelta(minutes=5))
            found.append(decided)
            known = at is not None and f"r{number}" in at.held
            return decided.account if isinstance(decided, Held) and not known else None

        await bookings[number % 3].change("key.cluster", change)
        return isinstance(found[-1], Held)

    got = await asyncio.gather(*(want(number) for number in range(90)))
    assert sum(got) == 10
    stored, _ = await buses[0].budgets.get("money.key.cluster", Money)
    assert stored is not None
    assert len(stored.held) == 10
