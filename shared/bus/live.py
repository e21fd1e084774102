"""Hearing about facts as they are stored. What is heard is a hint to look; what counts is read from the log."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from shared.bus.log import Log
from shared.contracts.message import Message, Unreadable

M = TypeVar("M", bound=Message)

FIRST_LOOK_S = 0.1
"""What was there before anyone listened is found this soon; what comes at once is heard before."""
LOOK_AGAIN_S = 1.0


class Live:
    """Live feeds of the log on one connection."""

    def __init__(self, client: Client, log: Log) -> None:
        self._client = client
        self._log = log
        self._waiting: set[asyncio.Event] = set()

    def reconnected(self) -> None:
        """Whatever was said meanwhile was missed: everyone who waits looks at the log now."""
        for event in self._waiting:
            event.set()

    async def expect(
        self, subject: str, stored_as: str, kind: type[M], *, ask: Callable[[], Awaitable[object]] | None, until: float
    ) -> M | None:
        """Return a fact as soon as it is there; None when it is not there at loop time `until`.

        Listens on `subject` before `ask` is awaited, so that an answer that comes at once is heard; looks at the
        log soon after, then every second, and after a reconnect, because hints get lost.
        """
        loop = asyncio.get_running_loop()
        heard: asyncio.Future[Msg] = loop.create_future()
        wake = asyncio.Event()
        heard.add_done_callback(lambda _: wake.set())
        # A fact is stored, and so heard, once: the server forgets the subscription with the first message, and a future
        # needs neither the task nor the queue that a callback has.
        subscription = await self._client.subscribe(subject, future=heard)
        self._waiting.add(wake)
        try:
            await subscription.unsubscribe(limit=1)
            if ask is not None:
                await ask()
            taken = False
            look_s = FIRST_LOOK_S
            while True:
                remaining_s = until - loop.time()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(look_s, max(remaining_s, 0.0))):
                        await wake.wait()
                look_s = LOOK_AGAIN_S
                wake.clear()
                if heard.done() and not taken:
                    taken = True
                    msg = heard.result()
                    with contextlib.suppress(Unreadable):
                        return kind.decode(await self._log.payloads.unpack(msg.data, msg.headers))
                if (found := await self._log.read(stored_as, kind)) is not None:
                    return found
                if remaining_s <= 0:
                    return None
        finally:
            self._waiting.discard(wake)
            if not heard.done():
                heard.cancel()
                await self._forget(subscription)

    async def _forget(self, subscription: Subscription) -> None:
        if not self._client.is_closed and not self._client.is_draining:
            await subscription.unsubscribe()
