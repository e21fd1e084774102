"""Who may begin a run: requests in a sliding minute over all gateways; places come back where nothing began."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import httpx
import nats
import pytest

from services.gateway import admission as module
from services.gateway import births
from services.gateway.admission import Admission, OverLimit
from services.gateway.births import Birth, Identity
from services.gateway.principal import Account, Principal
from services.gateway.runs import Runs
from services.gateway.window import Fits
from shared import subjects
from shared.bus.buckets import Bucket
from shared.bus.connection import Bus, open_bus, options
from shared.bus.errors import BusError, NotProvisioned, Refused, Unavailable
from shared.bus.jetstream import JetStream, Stored
from shared.bus.provisioner import provision
from shared.bus.server import NatsServer
from shared.contracts.access import Allowance, Places
from shared.contracts.commands import ChatRequest
from shared.contracts.ids import Priority, new_run_id
from shared.moments import rfc3339
from shared.topology import FINISHES, RATES, REQUESTS, Limits
from tests.conftest import eventually
from tests.gateway.guarded import bearing, guarded, make

WINDOW_S = 10.0
"""Instead of a minute; long enough for what is asked in it, wherever the machine stands still for some seconds."""


@pytest.fixture
async def buses(own_nats_server: NatsServer) -> AsyncIterator[list[Bus]]:
    """Connections of two gateways."""
    async with AsyncExitStack() as stack:
        found: list[Bus] = []
        for _ in range(2):

            async def reconnected() -> None:
                """Nothing to do again."""

            client = await nats.connect(**options(own_nats_server.url, "test", reconnected=reconnected))
            stack.push_async_callback(client.close)
            if not found:
                await provision(client, Limits())
            found.append(await open_bus(client))
        yield found


def now() -> datetime:
    return datetime.now(UTC)


def birth(*, keyed: bool = False, run_id: str | None = None, **limits: Any) -> Birth:
    principal = Principal("acme", "k1", accounts=(Account("key.k1", Allowance(**limits)),))
    identity = Identity("acme", run_id or new_run_id(), keyed=keyed, principal=principal)
    request = ChatRequest(message="Hi", images=(), context_tokens=0, new_session=True)
    return births.of_chat(identity, request, session_id="s1", priority=Priority.MEDIUM, now=now(), timeout_s=60)


async def admitted(admission: Admission, **limits: Any) -> tuple[float, float] | None:
    """Ask for a run; returns the time before and after where it may begin."""
    before = time.time()
    try:
        await admission.admit(birth(**limits))
    except OverLimit as error:
        refused = error
    else:
        return before, time.time()
    assert refused.code == "rate_limited"
    assert refused.retry_after_s is not None
    assert 0 <= refused.retry_after_s <= max(admission.window_s, module.CLOSED_S)
    return None


async def count_of(bus: Bus) -> int:
    """Return what the server has counted for the key."""
    last = await bus.jetstream.last(RATES, subjects.rate("key.k1"))
    return 0 if last is None else int(last.data.decode().split('"')[3])


# Requests


@dataclass(slots=True)
class Counted:
    """What a counter stored, read as the bus reads it."""

    stored: list[Stored] = field(default_factory=list)
    total: int = 0

    def count(self, at: float, takes_back: int | None = None) -> int:
        """Store a change; returns its number."""
        self.total += 1 if takes_back is None else -1
        headers = None if takes_back is None else {module.TAKES_BACK: str(takes_back)}
        body, time_ = json.dumps({"val": str(self.total)}).encode(), rfc3339(datetime.fromtimestamp(at, UTC))
        self.stored.append(Stored("rate", body, headers, len(self.stored) + 1, time_))
        return len(self.stored)

    async def direct_since(self, _: str, __: str, since: datetime, *, limit: int) -> list[Stored]:
        return [one for one in self.stored if one.time >= rfc3339(since)][:limit]

    async def direct_page(self, _: str, __: str, *, after: int, limit: int) -> list[Stored]:
        return self.stored[after:][:limit]


@pytest.mark.parametrize("crowd", [20, 60, 3_000])
async def test_who_was_refused_in_a_crowd_as_the_window_began_leaves_no_place(crowd: int) -> None:
    """They were counted before it and took themselves back in it, behind more entries than one look reads."""
    counted, most, at = Counted(), 2, 1_000_000_000.0
    admission = Admission(cast(Bus, SimpleNamespace(jetstream=counted)), now)
    there = [counted.count(at + number / 1e6) for number in range(crowd)]
    for seq in there[most:]:
        counted.count(at + 1 + seq / 1e6, seq)
    begun = 0
    for _ in range(10):
        seq = counted.count(at + 60.5)
        if isinstance(await admission._judged("rate", seq, counted.total, most, at + 0.5), Fits):
            begun += 1
        else:
            counted.count(at + 60.5, seq)
    assert begun == most


async def test_of_all_who_ask_at_once_at_two_gateways_the_limit_begins(buses: list[Bus]) -> None:
    """And those who are refused take back what they counted."""
    gateways = [Admission(bus, now) for bus in buses]
    asked = (admitted(gateways[number % 2], requests_per_minute=10) for number in range(40))
    assert sum(one is not None for one in await asyncio.gather(*asked)) == 10
    assert await count_of(buses[0]) == 10


async def test_never_more_than_the_limit_begins_in_any_window(buses: list[Bus]) -> None:
    """Two gateways try without a pause over several windows: no turn of anything lets more in, or keeps it shut."""
    gateways = [Admission(bus, now, 1.5) for bus in buses]
    begun: list[tuple[float, float]] = []

    async def hammer(gateway: Admission) -> None:
        while len(begun) < 40:
            found = await admitted(gateway, requests_per_minute=8)
            begun.extend([found] if found is not None else [])
            await asyncio.sleep(0.005)

    async with asyncio.timeout(60):
        await asyncio.gather(*(hammer(gateway) for gateway in (*gateways, *gateways)))
    begun.sort()
    for first, ninth in zip(begun, begun[8:], strict=False):
        assert ninth[1] - first[0] >= 1.5


async def test_whoever_comes_back_when_told_gets_in(buses: list[Bus]) -> None:
    """`retry_after_s` is when the oldest request leaves the window; what was refused meanwhile put nothing off."""
    one, other = (Admission(bus, now, WINDOW_S) for bus in buses)
    limit: dict[str, Any] = {"requests_per_minute": 2}
    first = await admitted(one, **limit)
    assert first is not None
    assert await admitted(one, **limit) is not None
    for gateway in (one, other, one, other):
        before = time.time()
        with pytest.raises(OverLimit, match="may begin 2 requests in any") as refused:
            await gateway.admit(birth(**limit))
        after, left_s = time.time(), refused.value.retry_after_s or 0.0
        assert before + left_s <= first[1] + WINDOW_S
        assert after + left_s >= first[0] + WINDOW_S
    assert await count_of(buses[0]) == 2
    await asyncio.sleep(left_s)
    await eventually(lambda: got_in(other, limit))
    assert time.time() >= first[0] + WINDOW_S


async def got_in(gateway: Admission, limit: dict[str, Any]) -> bool:
    return await admitted(gateway, **limit) is not None


async def test_a_request_far_below_the_limit_is_one_round_trip(
    buses: list[Bus], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another gateway counts, and once the counter is far beyond what the limit is."""
    asked: list[str] = []
    request, direct = JetStream.request, JetStream._direct

    async def counting(self: JetStream, subject: str, data: bytes = b"", **given: Any) -> Any:
        asked.append(subject)
        return await request(self, subject, data, **given)

    async def reading(self: JetStream, stream: str, wanted: Any) -> Any:
        asked.append(stream)
        return await direct(self, stream, wanted)

    monkeypatch.setattr(JetStream, "request", counting)
    monkeypatch.setattr(JetStream, "_direct", reading)
    gateways = [Admission(bus, now, 0.5) for bus in buses]
    for number in range(60):
        assert await admitted(gateways[number % 2], requests_per_minute=50) is not None
        await asyncio.sleep(0.04)
    assert await count_of(buses[0]) == 60
    mine = [one for one in asked if one == subjects.rate("key.k1")]
    assert len(mine) == 60
    assert RATES not in asked


async def test_a_limit_of_nothing_lets_nobody_in_and_counts_nothing(buses: list[Bus]) -> None:
    gateway = Admission(buses[0], now)
    for _ in range(3):
        with pytest.raises(OverLimit, match="will not change by waiting"):
            await gateway.admit(birth(requests_per_minute=0))
    assert await count_of(buses[0]) == 0


async def test_a_limit_that_is_raised_counts_at_once(buses: list[Bus]) -> None:
    gateway = Admission(buses[0], now)
    assert await admitted(gateway, requests_per_minute=1) is not None
    assert await admitted(gateway, requests_per_minute=1) is None
    assert await admitted(gateway, requests_per_minute=2) is not None


async def test_callers_are_told_when_to_come_back(own_nats_server: NatsServer) -> None:
    async with guarded(own_nats_server) as (http, backstage):
        key = await make(backstage, requests_per_minute=1)
        began = time.monotonic()
        answers: list[httpx.Response] = [
            await http.post("/chat", json={"message": "x"}, headers=bearing(key)) for _ in range(2)
        ]
        assert [one.status_code for one in answers] == [200, 429]
        refused = answers[-1]
        assert refused.json()["error"]["code"] == "rate_limited"
        assert 59 - (time.monotonic() - began) <= int(refused.headers["Retry-After"]) <= 60
        assert len(backstage.taken) == 1


# Places


async def runs_of(bus: Bus) -> set[str]:
    places, _ = await bus.budgets.get("runs.key.k1", Places)
    return set(places.runs) if places is not None else set()


def bearing_of(bus: Bus) -> Runs:
    return Runs(bus, now, Admission(bus, now))


Break = Callable[[Bus, pytest.MonkeyPatch], Awaitable[None]]


async def small_queue(bus: Bus, _: pytest.MonkeyPatch) -> None:
    """Have the server refuse a request, as larger than it takes."""
    await resize(bus, REQUESTS)


async def small_timers(bus: Bus, _: pytest.MonkeyPatch) -> None:
    """Have the server refuse a deadline."""
    await resize(bus, FINISHES)


async def resize(bus: Bus, stream: str) -> None:
    jetstream = bus.client.jetstream()
    config = (await jetstream.stream_info(stream)).config
    config.max_msg_size = 10
    await jetstream.update_stream(config)


async def full_queue(bus: Bus, _: pytest.MonkeyPatch) -> None:
    jetstream = bus.client.jetstream()
    config = (await jetstream.stream_info(REQUESTS)).config
    config.max_msgs = 1
    await jetstream.update_stream(config)
    await bus.log.submit(birth().command)  # type: ignore[arg-type]  # of a chat it is one


async def no_queue(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    async def missing(*_: Any) -> None:
        raise NotProvisioned("the stream for 'segue.request'")

    monkeypatch.setattr(type(bus.log), "submit", missing)


async def no_timer_in_time(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    async def late(*_: Any, **__: Any) -> None:
        raise Unavailable("write of the timer", 20)

    monkeypatch.setattr(type(bus.log), "set_timer", late)


@pytest.mark.parametrize(
    ("broken", "keyed"),
    [
        *((broken, False) for broken in (small_queue, small_timers, full_queue, no_queue, no_timer_in_time)),
        *((broken, True) for broken in (small_queue, full_queue, no_queue)),  # its deadline is set where it is accepted
    ],
)
async def test_a_run_that_surely_did_not_begin_gives_its_place_back(
    buses: list[Bus], monkeypatch: pytest.MonkeyPatch, broken: Break, keyed: bool
) -> None:
    """Whatever answer said so: full, refused, nothing there, or nothing was sent at all."""
    await broken(buses[0], monkeypatch)
    with pytest.raises(BusError):
        await bearing_of(buses[0]).bear(birth(keyed=keyed, concurrent_runs=1))
    assert await runs_of(buses[0]) == set()


async def test_a_run_whose_command_may_be_there_keeps_its_place(
    buses: list[Bus], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stored and the answer was lost: nobody knows here, so the place is the run's until it has ended."""
    submit = type(buses[0].log).submit

    async def unanswered(*given: Any) -> None:
        await submit(*given)
        raise Unavailable("write of the request", 20)

    monkeypatch.setattr(type(buses[0].log), "submit", unanswered)
    runs, first = bearing_of(buses[0]), birth(concurrent_runs=1)
    with pytest.raises(Unavailable):
        await runs.bear(first)
    assert await runs_of(buses[0]) == {first.run.run_id}
    with pytest.raises(OverLimit):
        await runs.bear(birth(concurrent_runs=1))
    queued = await buses[0].jetstream.last(REQUESTS, subjects.request("acme", Priority.MEDIUM))
    assert queued is not None


async def borne_until(reached: asyncio.Event, bus: Bus, one: Birth) -> None:
    """Have a run borne whose caller goes at a moment, when it has its place."""
    task = asyncio.create_task(bearing_of(bus).bear(one))
    await reached.wait()
    assert await runs_of(bus) == {one.run.run_id}
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_caller_that_goes_while_a_place_is_taken_does_not_keep_it(
    buses: list[Bus], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was taken, and the answer has not come yet."""
    update, reached = Bucket.update, asyncio.Event()

    async def late(self: Bucket, *given: Any) -> Any:
        found = await update(self, *given)
        if not reached.is_set():
            reached.set()
            await asyncio.sleep(60)
        return found

    monkeypatch.setattr(Bucket, "update", late)
    one = birth(concurrent_runs=1)
    await borne_until(reached, buses[0], one)
    assert await runs_of(buses[0]) == set()


@pytest.mark.parametrize("sends", [False, True])
async def test_a_caller_that_goes_gives_its_place_back_only_before_the_command_is_sent(
    buses: list[Bus], monkeypatch: pytest.MonkeyPatch, sends: bool
) -> None:
    reached = asyncio.Event()

    async def forever(*_: Any, **__: Any) -> None:
        reached.set()
        await asyncio.sleep(60)

    monkeypatch.setattr(type(buses[0].log), "submit" if sends else "set_timer", forever)
    one = birth(concurrent_runs=1)
    await borne_until(reached, buses[0], one)
    assert await runs_of(buses[0]) == ({one.run.run_id} if sends else set())


async def test_a_place_that_another_took_for_the_same_key_is_not_given_back(
    buses: list[Bus], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two gateways bear one keyed run: the one that is refused leaves the place to the one that is not."""
    run_id = new_run_id()
    await bearing_of(buses[1]).bear(birth(keyed=True, run_id=run_id, concurrent_runs=1))

    async def refused(*_: Any) -> None:
        raise Refused("segue.request", 400, 10_054, "message size exceeds maximum allowed")

    monkeypatch.setattr(type(buses[0].log), "submit", refused)
    with pytest.raises(Refused):
        await bearing_of(buses[0]).bear(birth(keyed=True, run_id=run_id, concurrent_runs=1))
    assert await runs_of(buses[0]) == {run_id}


async def test_what_one_account_gave_comes_back_when_another_refuses(buses: list[Bus]) -> None:
    """Or cannot be asked: a key's place is not lost to its tenant's limit."""
    admission = Admission(buses[0], now)
    accounts = (
        Account("key.k1", Allowance(concurrent_runs=5)),
        Account("tenant.acme", Allowance(concurrent_runs=0)),
    )
    identity = Identity("acme", new_run_id(), keyed=False, principal=Principal("acme", "k1", accounts=accounts))
    request = ChatRequest(message="Hi", images=(), context_tokens=0, new_session=True)
    one = births.of_chat(identity, request, session_id="s1", priority=Priority.MEDIUM, now=now(), timeout_s=60)
    with pytest.raises(OverLimit, match="tenant 'acme' may have 0 runs"):
        await admission.admit(one)
    assert await runs_of(buses[0]) == set()
