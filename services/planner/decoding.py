"""Read a message, or end its run and have it buried."""

from typing import TypeVar

from shared.bus.connection import Bus
from shared.bus.delivery import Delivery, Poison
from shared.contracts.message import Message, Unreadable
from shared.unreadable import end_run_of

M = TypeVar("M", bound=Message)


async def decoded(bus: Bus, delivery: Delivery, kind: type[M]) -> M:
    """Return the message of a delivery. Raises `Poison`, after its run was ended where it says which."""
    body = await bus.payloads.unpack(delivery.data, delivery.headers)
    try:
        return kind.decode(body)
    except Unreadable as error:
        await end_run_of(bus, body, str(error), outcome="denied")
        raise Poison(str(error)) from error
