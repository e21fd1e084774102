"""Which ports are free. Pure but for asking the kernel."""

import errno
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass

FIRST_PLAIN_PORT, LAST_PORT = 1024, 65_535
"""Below, a port needs rights on most systems."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A port that somebody is going to listen on."""

    host: str
    port: int
    who: str
    variable: str
    """What to set to choose another."""


def fault(host: str, port: int) -> OSError | None:
    """Return what would keep this process from listening there now, None when nothing would."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if sys.platform != "win32":  # there it would let two programs share the port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None


def is_free(host: str, port: int) -> bool:
    """Return whether this process could listen there now."""
    return fault(host, port) is None


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
        elif (error := fault(want.host, want.port)) is not None:
            lines.append(_complaint(want, error))
        seen.setdefault(want.port, want.who)
    return lines


def _complaint(want: Wanted, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            what = "is taken by another program: stop it, or set"
        case errno.EACCES:
            what = "needs more rights than you have: set"
        case _:
            what = f"cannot listen on {want.host} ({want.who}): {error.strerror}"
            return f"{what}; set SEGUE_HOST to an address of this machine"
    return f"port {want.port} ({want.who}) {what} {want.variable} to another port"


def instead(wanted: Sequence[Wanted]) -> str:
    """Return settings that would work now, as they stand in front of a command; nothing when no port would."""
    taken: set[int] = set()
    settings = []
    for want in wanted:
        if (error := fault(want.host, want.port)) is not None and error.errno not in {errno.EADDRINUSE, errno.EACCES}:
            return ""  # no port helps
        port = first_free(want.host, max(want.port, FIRST_PLAIN_PORT), taken)
        taken.add(port)
        if port != want.port:
            settings.append(f"{want.variable}={port}")
    return " ".join(settings)
