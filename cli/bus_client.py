"""A command's own connection to the bus: tried once, and what is wrong with it is one line."""

from typing import Final

import nats
import nats.errors
from nats.aio.client import Client

from cli.bus_users import url_of
from shared.config.environment import Environment

CONNECT_S: Final = 5


class NoBus(Exception):
    """The environment names no NATS server that can be used; the message says what to do."""


async def connected(environment: Environment, name: str) -> Client:
    """Return a connection, as Segue's operator where the server has accounts. Raises `NoBus`."""
    reasons: list[str] = []

    async def note(error: Exception) -> None:
        reasons.append(str(error))

    try:
        return await nats.connect(
            [part.strip() for part in url_of(environment).split(",")],
            name=name,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=CONNECT_S,
            error_cb=note,
        )
    except (nats.errors.Error, OSError, TimeoutError) as error:
        reasons.append(str(error) or type(error).__name__)
    # What the environment gave, never with the operator's password.
    where = environment.nats_url.rpartition("@")[2].removeprefix("nats://")
    if any("Authorization" in reason for reason in reasons):
        raise NoBus(
            f"the NATS server at {where} has accounts and does not let this in: say SEGUE_DATA_DIR as the Segue that "
            "started it, or SEGUE_NATS_URL=nats://operator:…@host:4222 (docs/bus.md)"
        )
    raise NoBus(
        f"no NATS server answers at {where} ({reasons[-1]}): start Segue first, or say SEGUE_NATS_PORT or "
        "SEGUE_NATS_URL as it has it"
    )
