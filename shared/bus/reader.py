"""What a subscription's messages are handed to in the client's read loop itself, without a queue and a task between.

nats-py hands a subscription's messages either to a callback, which costs a queue and the wake-up of a task a message,
or to a future, in the read loop. A `Reader` is a future that takes every message, not only the first: with it a durable
write costs its caller a quarter less CPU.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from nats.aio.msg import Msg

log = logging.getLogger("segue.bus")

if TYPE_CHECKING:
    _Future = asyncio.Future[Msg]
else:
    _Future = asyncio.Future


class Reader(_Future):
    """For `client.subscribe(subject, future=Reader(take))`. It is never done.

    `take` runs in the read loop: it must not wait, and what it raises is logged, since it would end the connection.
    """

    def __init__(self, take: Callable[[Msg], None]) -> None:
        super().__init__()
        self._take = take

    def set_result(self, result: Msg) -> None:
        try:
            self._take(result)
        except Exception:
            log.exception("bus.reader", extra={"subject": result.subject})
