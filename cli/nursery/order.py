"""What goes between a supervisor and its nursery: an order down, with the two descriptors to write to; reports up.

An order is four bytes of length, with the descriptors of its standard output and error attached, then JSON. A report
is a line of JSON: `{"started": pid}`, in the order of the orders, or `{"ended": pid, "code": n}`.
"""

import json
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

LENGTH = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class Order:
    """A module to run as `python -m` would, with its arguments and its whole environment."""

    module: str
    arguments: Sequence[str]
    environment: Mapping[str, str]

    def pack(self) -> tuple[bytes, bytes]:
        """Return the head, which carries the descriptors, and the body."""
        body = json.dumps(asdict(self)).encode()
        return LENGTH.pack(len(body)), body


def receive(connection: socket.socket) -> tuple[Order, list[int]] | None:
    """Wait for one order and its descriptors; None when the supervisor has gone."""
    head, descriptors, _, _ = socket.recv_fds(connection, LENGTH.size, 2)
    if len(head) < LENGTH.size:
        return None
    wanted = LENGTH.unpack(head)[0]
    body = bytearray()
    while len(body) < wanted:
        more = connection.recv(wanted - len(body))
        if not more:
            return None
        body += more
    return Order(**json.loads(body)), descriptors
