"""Which ports are free. Pure but for asking the kernel."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wanted:
    """A port that somebody is going to listen on."""

    port: int
    who: str
    variable: str
    """What to set to choose another."""


def is_free(host: str, port: int) -> bool:
    """Return whether this process could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def first_free(host: str, start: int, taken: set[int]) -> int:
    """Return the first free port from `start` on that nobody has been given yet."""
    port = start
    while port in taken or not is_free(host, port):
        port += 1
    return port


def complaints(host: str, wanted: Sequence[Wanted]) -> list[str]:
    """Return one line for every port that is taken, with what to do."""
    return [
        f"port {want.port} ({want.who}) is taken by another program: stop it, or set {want.variable} to another port"
        for want in wanted
        if not is_free(host, want.port)
    ]
