"""Fault points: named places where tests let a process die, to prove that it does not matter.

`SEGUE_FAULT=executor.claimed:2` kills the process with SIGKILL the second time it passes that point. Without
the variable a point is one dictionary look-up.
"""

import os
import signal


def _scripted(value: str) -> dict[str, int]:
    points: dict[str, int] = {}
    for entry in filter(None, value.split(",")):
        name, _, times = entry.partition(":")
        points[name] = int(times or 1)
    return points


_armed = _scripted(os.environ.get("SEGUE_FAULT", ""))


def arm(value: str) -> None:
    """Arm the points of `SEGUE_FAULT`'s form anew, for a process that was forked after this module was imported."""
    _armed.clear()
    _armed.update(_scripted(value))


def point(name: str) -> None:
    """Die here if this point is armed and its count is up."""
    if not _armed:
        return
    left = _armed.get(name)
    if left is None:
        return
    if left <= 1:
        os.kill(os.getpid(), signal.SIGKILL)
    _armed[name] = left - 1
