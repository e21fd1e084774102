"""Declares the topology on a server. Idempotent: run it before every roll-out, from as many places as you like."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from nats.aio.client import Client
from nats.js.api import ConsumerConfig, ConsumerInfo, DeliverPolicy, StreamConfig
from nats.js.client import JetStreamContext
from nats.js.errors import APIError, NotFoundError

from shared import topology
from shared.topology import Feed, Limits

YOUNG_ENOUGH: Final = timedelta(hours=24)
"""What a consumer of the log that is made anew still looks at: more than any run lives, far less than the log keeps."""
AGAIN_AFTER_S: Final = (0.05, 0.2, 0.8)
ANSWERED_WITHIN_S: Final = 5.0
_FIXED: Final = "can not be updated"
"""What the server says (500, 10012) of a setting that does not change on a living consumer."""


@dataclass(slots=True)
class Provisioned:
    """What a provisioning did, by name."""

    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)


async def provision(client: Client, limits: Limits) -> Provisioned:
    """Create what is missing and bring what is there to the topology's settings."""
    jetstream = client.jetstream(timeout=ANSWERED_WITHIN_S)
    done = Provisioned()
    streams = (*topology.streams(limits), *topology.buckets(limits))
    await asyncio.gather(*(_insist(partial(_declare_stream, jetstream, stream, done)) for stream in streams))
    await asyncio.gather(*(declare_feed(jetstream, feed, done) for feed in topology.feeds()))
    return done


async def declare_feed(
    jetstream: JetStreamContext, feed: Feed, done: Provisioned | None = None, *, now: datetime | None = None
) -> None:
    """Create a consumer, or bring one to our settings. What it has delivered and what is acked stays.

    One that reads the log begins, when it is made anew, at what is young enough to matter.
    """
    counted = done if done is not None else Provisioned()
    await _insist(partial(_declare_consumer, jetstream, feed, counted, now or datetime.now(UTC)))


async def _insist(declare: Callable[[], Awaitable[None]]) -> None:
    """Try again when the server refuses: another provisioner may have been first, a leader may just have gone.

    And when it says nothing: a cluster that is asked for the same consumer by several at once may answer only one.
    """
    for pause_s in AGAIN_AFTER_S:
        try:
            return await declare()
        except (APIError, TimeoutError):
            await asyncio.sleep(pause_s)
    return await declare()


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


async def _declare_consumer(jetstream: JetStreamContext, feed: Feed, done: Provisioned, now: datetime) -> None:
    try:
        info: ConsumerInfo = await jetstream.consumer_info(feed.stream, feed.durable)
    except NotFoundError:
        await jetstream.add_consumer(feed.stream, _begun(feed, now))
        done.created.append(feed.durable)
        return
    there = info.config
    config = feed.config().evolve(deliver_policy=there.deliver_policy, opt_start_time=there.opt_start_time)
    asked, has = config.as_dict(), there.as_dict()
    if all(has.get(name) == value for name, value in asked.items() if value is not None):
        done.unchanged.append(feed.durable)
        return
    try:
        await jetstream.add_consumer(feed.stream, config)
    except APIError as error:
        if _FIXED not in str(error.description):
            raise
        # Its queue stays, it is made anew.
        with contextlib.suppress(NotFoundError):
            await jetstream.delete_consumer(feed.stream, feed.durable)
        await jetstream.add_consumer(feed.stream, _begun(feed, now))
    done.updated.append(feed.durable)


def _begun(feed: Feed, now: datetime) -> ConsumerConfig:
    config = feed.config()
    if not feed.from_log:
        return config
    begin = (now - YOUNG_ENOUGH).replace(microsecond=0)  # as precise as it comes back
    return config.evolve(deliver_policy=DeliverPolicy.BY_START_TIME, opt_start_time=begin)
