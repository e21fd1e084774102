"""Durable consumers that a pool feeds on: are they there, and how they come back when they vanished."""

import asyncio
import logging
from collections.abc import Callable

import nats.errors
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from shared.bus.delivery import Recreate, Source

log = logging.getLogger("segue.bus")

_FIRST_PAUSE_S = 0.02
"""A consumer that has just been made, or moved to another leader, is not heard of everywhere at once."""
_LONGEST_PAUSE_S = 1.0
_LEADER_WITHIN_S = 0.25
_MADE_WITHIN_S = 5.0


async def exists(client: Client, source: Source, timeout_s: float = 1.0) -> bool:
    """Whether the server has the source's consumer. Raises `nats.errors.TimeoutError` when it does not say."""
    try:
        await client.jetstream(timeout=timeout_s).consumer_info(source.stream, source.durable)
    except NotFoundError:
        return False
    return True


def add_consumer(client: Client) -> Recreate:
    """Return what declares a source's consumer just as the source says."""

    async def recreate(source: Source) -> None:
        await client.jetstream(timeout=_MADE_WITHIN_S).add_consumer(source.stream, source.consumer)

    return recreate


async def restore(client: Client, source: Source, recreate: Recreate, recreated: Callable[[str], None]) -> bool:
    """Declare the source's consumer if it is not there, as often as it takes.

    True: it is there. False: the server does not say, so it may be without a leader; a request for work will tell.
    """
    pause_s = _FIRST_PAUSE_S
    while True:
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        try:
            if await exists(client, source, _LEADER_WITHIN_S):
                return True
            await recreate(source)
        except nats.errors.TimeoutError:
            return False
        except Exception as error:  # noqa: BLE001 - whatever it is, without this consumer there is no work: try on
            log.warning("consumer %s of stream %s is not there yet: %r", source.durable, source.stream, error)
        else:
            log.warning("consumer %s of stream %s had vanished and was declared again", source.durable, source.stream)
            recreated(source.name)
