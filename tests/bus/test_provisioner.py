"""Provisioning declares the topology, as often and from as many places as one likes, and loses nothing."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.errors import TimeoutError as NothingCame
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo, DeliverPolicy, StreamConfig
from nats.js.errors import NotFoundError

from shared.bus.provisioner import YOUNG_ENOUGH, Provisioned, declare_feed, provision
from shared.bus.server import NatsServer
from shared.topology import (
    CATEGORIZER,
    EVENTS,
    FINISHER_ANSWERS,
    PLANNER_SETTLED,
    REQUESTS,
    WORKFLOWS,
    Feed,
    Limits,
    buckets,
    feeds,
    streams,
)
from tests.bus.ground import Ground, accepted, facts_of, fetched, request
from tests.conftest import eventually

EVERYTHING = {
    *(stream.name for stream in (*streams(Limits()), *buckets(Limits()))),
    *(feed.durable for feed in feeds()),
}


@pytest.fixture
async def empty(own_nats_server: NatsServer) -> Any:
    """A connection to a server that has nothing yet."""
    client = await nats.connect(own_nats_server.url)
    yield client
    await client.close()


async def consumer(js: JetStreamContext, feed: Feed) -> ConsumerInfo:
    info: ConsumerInfo = await js.consumer_info(feed.stream, feed.durable)
    return info


# Everything


async def test_it_is_there_after_once_and_unchanged_after_twice(empty: Client) -> None:
    first = await provision(empty, Limits())
    assert (set(first.created), first.updated, first.unchanged) == (EVERYTHING, [], [])
    assert len(first.created) == len(EVERYTHING)
    again = await provision(empty, Limits())
    assert (again.created, again.updated, set(again.unchanged)) == ([], [], EVERYTHING)


async def test_again_on_three_replicas_changes_nothing(ground: Ground) -> None:
    again = await provision(ground.buses[0].client, Limits(replicas=ground.replicas))
    assert (again.created, again.updated, set(again.unchanged)) == ([], [], EVERYTHING)
    for name in (EVENTS, REQUESTS, "KV_sessions", "OBJ_payloads"):
        assert (await ground.js().stream_info(name)).config.num_replicas == ground.replicas


async def test_changed_limits_are_brought_in_and_what_is_stored_stays(ground: Ground) -> None:
    run, client = ground.run(), ground.buses[0].client
    await ground.buses[0].log.write(facts_of(run).accepted, accepted(run))
    await ground.buses[0].log.submit(request(run))
    changed = Limits(
        max_queue_depth=77,
        max_queue_depth_per_tenant=33,
        retention_days=3,
        session_days=2,
        replicas=ground.replicas,
    )
    try:
        done = await provision(client, changed)
        assert set(done.updated) == {
            "REQUESTS", "WORKFLOWS", "EVENTS", "DEAD", "KV_sessions", "KV_runs", "OBJ_payloads",
        }  # fmt: skip
        assert done.created == []
        requests = (await ground.js().stream_info(REQUESTS)).config
        assert (requests.max_msgs, requests.max_msgs_per_subject) == (77, 33)
        assert (await ground.js().stream_info(WORKFLOWS)).config.max_msgs == 77
        assert (await ground.js().stream_info(EVENTS)).config.max_age == 3 * 86_400
        assert (await ground.js().stream_info("KV_sessions")).config.max_age == 2 * 86_400
        assert await ground.buses[0].log.exists(facts_of(run).accepted)
        assert await ground.stored(REQUESTS, f"segue.request.{run.tenant}.{run.priority}") == 1
    finally:
        await provision(client, Limits(replicas=ground.replicas))
        await ground.buses[0].jetstream.purge(REQUESTS, f"segue.request.{run.tenant}.{run.priority}")


async def test_two_at_once_on_an_empty_server_are_fine(own_nats_server: NatsServer) -> None:
    clients = [await nats.connect(own_nats_server.url) for _ in range(3)]
    await asyncio.gather(*(provision(client, Limits()) for client in clients))
    assert set((await provision(clients[0], Limits())).unchanged) == EVERYTHING
    for client in clients:
        await client.close()


async def test_two_at_once_with_other_limits_end_with_one_of_both(own_nats_server: NatsServer) -> None:
    """A roll-out and its predecessor. The last word wins; nobody fails."""
    clients = [await nats.connect(own_nats_server.url) for _ in range(2)]
    for _ in range(3):
        await asyncio.gather(
            provision(clients[0], Limits(max_queue_depth=10)), provision(clients[1], Limits(max_queue_depth=20))
        )
        info = await clients[0].jetstream().stream_info(REQUESTS)
        assert info.config.max_msgs in {10, 20}
        for stream in (REQUESTS, WORKFLOWS):
            await clients[0].jetstream().delete_stream(stream)
    for client in clients:
        await client.close()


async def test_what_an_operator_changed_is_brought_back(empty: Client) -> None:
    await provision(empty, Limits())
    js = empty.jetstream()
    config: StreamConfig = (await js.stream_info(EVENTS)).config
    await js.update_stream(config.evolve(max_age=600.0, republish=None))
    assert (await provision(empty, Limits())).updated == [EVENTS]
    config = (await js.stream_info(EVENTS)).config
    assert config.max_age == 30 * 86_400
    assert config.republish is not None


# Consumers


async def test_changed_settings_reach_a_consumer_that_keeps_its_place(ground: Ground) -> None:
    js = ground.js()
    feed = replace(CATEGORIZER[0], durable=f"test-{ground.tenant}", stream="OTHER", filter="other.high")
    await js.add_stream(StreamConfig(name="OTHER", subjects=["other.*"], num_replicas=ground.replicas))
    try:
        for n in range(3):
            await ground.buses[0].jetstream.publish("other.high", str(n).encode())  # as soon as there is a leader
        await declare_feed(js, feed)
        subscription = await js.pull_subscribe_bind(feed.durable, stream="OTHER")
        (msg,) = await fetched(subscription)
        await msg.ack_sync(timeout=30)
        info = await consumer(js, feed)
        await js.add_consumer("OTHER", info.config.evolve(ack_wait=77.0, max_ack_pending=5))
        assert (await consumer(js, feed)).config.ack_wait == 77.0
        done = Provisioned()
        await declare_feed(js, feed, done)
        assert done.updated == [feed.durable]
        info = await consumer(js, feed)
        assert (info.config.ack_wait, info.config.max_ack_pending) == (2.0, 10_000)

        async def place_is_kept() -> bool:
            floor = (await consumer(js, feed)).ack_floor
            return floor is not None and floor.stream_seq == 1

        await eventually(place_is_kept)
        (msg,) = await fetched(subscription)
        assert msg.data == b"1"
    finally:
        await js.delete_stream("OTHER")


async def test_a_setting_that_cannot_change_makes_the_consumer_anew_and_loses_nothing(empty: Client) -> None:
    await provision(empty, Limits())
    js, feed = empty.jetstream(), CATEGORIZER[1]
    await js.delete_consumer(feed.stream, feed.durable)
    await js.add_consumer(feed.stream, feed.config().evolve(max_waiting=3))
    await js.publish("segue.request.acme.medium", b"kept")
    done = Provisioned()
    await declare_feed(js, feed, done)
    assert done.updated == [feed.durable]
    assert (await consumer(js, feed)).config.max_waiting == 2048
    (msg,) = await fetched(await js.pull_subscribe_bind(feed.durable, stream=feed.stream))
    assert msg.data == b"kept"


async def test_ten_that_declare_a_vanished_consumer_at_once_are_fine(ground: Ground) -> None:
    """What every copy of a service does when an operator deletes it."""
    js = ground.js()
    for feed in (FINISHER_ANSWERS, CATEGORIZER[2]):
        await js.delete_consumer(feed.stream, feed.durable)
        now = datetime.now(UTC)
        await asyncio.gather(*(declare_feed(js, feed, now=now + timedelta(seconds=n)) for n in range(10)))
        done = Provisioned()
        await declare_feed(js, feed, done)
        assert done.unchanged == [feed.durable]


# Where a consumer of the log begins


async def begin_of(js: JetStreamContext, feed: Feed) -> tuple[DeliverPolicy | None, datetime | None]:
    config = (await consumer(js, feed)).config
    return config.deliver_policy, config.opt_start_time


@pytest.mark.parametrize("feed", [FINISHER_ANSWERS, PLANNER_SETTLED])
async def test_a_consumer_of_the_log_begins_a_day_back_and_keeps_that(ground: Ground, feed: Feed) -> None:
    js = ground.js()
    await js.delete_consumer(feed.stream, feed.durable)
    now = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)
    await declare_feed(js, feed, now=now)
    begin = now.replace(microsecond=0) - YOUNG_ENOUGH
    assert await begin_of(js, feed) == (DeliverPolicy.BY_START_TIME, begin)
    done = Provisioned()
    await declare_feed(js, feed, done, now=now + timedelta(days=7))  # another roll-out
    assert (done.created, done.updated, done.unchanged) == ([], [], [feed.durable])
    assert await begin_of(js, feed) == (DeliverPolicy.BY_START_TIME, begin)


async def test_a_consumer_of_the_log_keeps_its_begin_when_its_settings_change(ground: Ground) -> None:
    js, feed = ground.js(), FINISHER_ANSWERS
    before = await begin_of(js, feed)
    config = (await consumer(js, feed)).config
    await js.add_consumer(feed.stream, config.evolve(ack_wait=9.0))
    done = Provisioned()
    await declare_feed(js, feed, done, now=datetime.now(UTC) + timedelta(days=7))
    assert done.updated == [feed.durable]
    assert (await consumer(js, feed)).config.ack_wait == 2.0
    assert await begin_of(js, feed) == before


async def test_one_from_before_that_reads_all_of_the_log_stays(empty: Client) -> None:
    await provision(empty, Limits())
    js, feed = empty.jetstream(), FINISHER_ANSWERS
    await js.delete_consumer(feed.stream, feed.durable)
    await js.add_consumer(feed.stream, feed.config())
    done = Provisioned()
    await declare_feed(js, feed, done)
    assert done.unchanged == [feed.durable]
    assert (await begin_of(js, feed))[0] == DeliverPolicy.ALL


async def test_made_anew_it_reads_what_is_young_and_nothing_older(ground: Ground) -> None:
    """Two facts, and a consumer made anew as if a day minus nothing had passed between them."""
    js, bus = ground.js(), ground.buses[0]
    feed = replace(FINISHER_ANSWERS, durable=f"young-{ground.tenant}", filter=f"segue.event.{ground.tenant}.*.accepted")
    runs = [ground.run() for _ in range(3)]
    await bus.log.write(facts_of(runs[0]).accepted, accepted(runs[0]))
    first = await js.get_last_msg(EVENTS, facts_of(runs[0]).accepted)
    assert first.time is not None
    between = first.time + timedelta(seconds=1.5)
    await asyncio.wait({asyncio.create_task(_past(between))})
    for run in runs[1:]:
        await bus.log.write(facts_of(run).accepted, accepted(run))
    await declare_feed(js, feed, now=between + YOUNG_ENOUGH)
    try:
        subscription = await js.pull_subscribe_bind(feed.durable, stream=EVENTS)
        msgs = await fetched(subscription, 2)
        assert [msg.subject for msg in msgs] == [facts_of(run).accepted for run in runs[1:]]
        with pytest.raises(NothingCame):
            await subscription.fetch(1, timeout=0.2)
    finally:
        await js.delete_consumer(EVENTS, feed.durable)


async def _past(at: datetime) -> None:
    while datetime.now(UTC) < at:
        await asyncio.sleep(0.05)


async def test_a_queues_consumer_begins_with_what_is_queued(ground: Ground) -> None:
    for feed in feeds():
        policy, begin = await begin_of(ground.js(), feed)
        if not feed.from_log:
            assert (policy, begin) == (DeliverPolicy.ALL, None)


async def test_a_stream_that_is_not_there_is_an_error(empty: Client) -> None:
    with pytest.raises(NotFoundError):
        await declare_feed(empty.jetstream(), CATEGORIZER[0])
