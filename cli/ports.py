"""Which ports are free. Pure but for asking the kernel."""

import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass

LAST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Wanted:
    """A port that somebody is going to listen on."""

    host: str
    port: int
    who: str
    variable: str
    """What to set to choose another."""


def is_free(host: str, port: int) -> bool:
    """Return whether this process could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if sys.platform != "win32":  # there it would let two programs share the port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def first_free(host: str, start: int, taken: set[int]) -> int:
    """Return the first free port from `start` on that nobody has been given yet. Raises `OverflowError`."""
    for port in range(start, LAST_PORT + 1):
        if port not in taken and is_free(host, port):
            return port
    raise OverflowError(f"no free port on {host} from {start} on")


def complaints(wanted: Sequence[Wanted]) -> list[str]:
    """Return one line for every port that is taken or wanted twice, with what to do."""
    lines = []
    seen: dict[int, str] = {}
    for want in wanted:
        if want.port in seen:
            lines.append(f"port {want.port} is wanted by {seen[want.port]} and {want.who}: set {want.variable}")
        elif not is_free(want.host, want.port):
            lines.append(
                f"port {want.port} ({want.who}) is taken by another program: stop it, or set {want.variable} to "
                "another port"
            )
        seen.setdefault(want.port, want.who)
    return lines


def instead(wanted: Sequence[Wanted]) -> str:
    """Return settings that would work now, as they stand in front of a command."""
    taken: set[int] = set()
    settings = []
    for want in wanted:
        port = first_free(want.host, want.port, taken)
        taken.add(port)
        if port != want.port:
            settings.append(f"{want.variable}={port}")
    return " ".join(settings)
