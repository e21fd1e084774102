"""Declares the topology on a server. Idempotent: run it before every roll-out, from as many places as you like."""

from dataclasses import dataclass, field

from nats.aio.client import Client
from nats.js.api import DeliverPolicy, StreamConfig
from nats.js.client import JetStreamContext
from nats.js.errors import BadRequestError, NotFoundError

from shared import topology
from shared.topology import Feed, Limits


@dataclass(slots=True)
class Provisioned:
    """What a provisioning did, by name."""

    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)


async def provision(client: Client, limits: Limits) -> Provisioned:
    """Create what is missing and bring what is there to the topology's settings."""
    jetstream = client.jetstream(timeout=15)
    done = Provisioned()
    for stream in (*topology.streams(limits), *topology.buckets(limits)):
        await _declare_stream(jetstream, stream, done)
    for feed in topology.feeds():
        await declare_feed(jetstream, feed, done)
    return done


async def _declare_stream(jetstream: JetStreamContext, wanted: StreamConfig, done: Provisioned) -> None:
    assert wanted.name is not None
    try:
        there = (await jetstream.stream_info(wanted.name)).config
    except NotFoundError:
        await jetstream.add_stream(wanted)
        done.created.append(wanted.name)
        return
    if _differs(wanted, there):
        await jetstream.update_stream(wanted)
        done.updated.append(wanted.name)
    else:
        done.unchanged.append(wanted.name)


def _differs(wanted: StreamConfig, there: StreamConfig) -> bool:
    """Whether a setting that we name is another on the server; what we leave to it is its own business."""
    asked, has = wanted.as_dict(), there.as_dict()
    return any(has.get(name) != value for name, value in asked.items() if value not in (None, False, 0, {}, []))


async def declare_feed(jetstream: JetStreamContext, feed: Feed, done: Provisioned | None = None) -> None:
    """Create a consumer, or bring one to our settings. What it has delivered and what is acked stays."""
    config = feed.config()
    try:
        there = (await jetstream.consumer_info(feed.stream, feed.durable)).config
    except NotFoundError:
        await jetstream.add_consumer(feed.stream, config)
        if done is not None:
            done.created.append(feed.durable)
        return
    asked, has = config.as_dict(), there.as_dict()
    if all(has.get(name) == value for name, value in asked.items() if value is not None):
        if done is not None:
            done.unchanged.append(feed.durable)
        return
    config.deliver_policy = there.deliver_policy or DeliverPolicy.ALL
    config.opt_start_time = there.opt_start_time
    try:
        await jetstream.add_consumer(feed.stream, config)
    except BadRequestError:  # a setting that cannot change on a living consumer: its queue stays, it is made anew
        await jetstream.delete_consumer(feed.stream, feed.durable)
        await jetstream.add_consumer(feed.stream, config)
    if done is not None:
        done.updated.append(feed.durable)
