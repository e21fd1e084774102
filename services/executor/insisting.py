"""What was bought is written down, however long the bus is away."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from shared.bus.errors import Unavailable

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
