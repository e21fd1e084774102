"""What was bought is written down, however long the bus is away; what only helps others is written if it can be."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from shared.bus.errors import BusError, Unavailable

log = logging.getLogger("segue.executor")
T = TypeVar("T")

INSIST_S: Final = 600.0
"""How long what was paid for is kept while it cannot be written."""


async def insist(write: Callable[[], Awaitable[T]], event: str) -> T:
    """Return what `write` does, tried until it is done; `event` is logged each time in vain. Raises `Unavailable`."""
    until_s = time.monotonic() + INSIST_S
    while True:
        try:
            return await write()
        except Unavailable as error:
            if time.monotonic() > until_s:
                raise
            log.warning(event, extra={"error": str(error)})


async def tell(what: Awaitable[None]) -> None:
    """Tell a limit or a breaker what an attempt came to. What was paid for is not lost because that cannot be written:
    the limit keeps what it held, and the breaker counts the next one."""
    try:
        await what
    except BusError as error:
        log.warning("attempt.not_told", extra={"error": str(error)})
