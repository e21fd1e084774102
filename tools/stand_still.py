"""Runs a command while its processes stand still at random: `python tools/stand_still.py [--mean S] -- ./test.sh`.

A machine that is busy, swaps or migrates does that to any of them at any point. What holds then is neither a matter of
luck nor of speed. A process that the command itself has stopped is left alone. Linux only, as it reads `/proc`.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

LONGEST_S = 3.0


def main() -> int:
    """Return the command's exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--mean", type=float, default=0.25, help="seconds that one stands still, on average")
    parser.add_argument("--gap", type=float, default=0.25, help="seconds between two, on average")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("command", nargs="+")
    asked = parser.parse_args()
    chance, stops = random.Random(asked.seed), 0
    with subprocess.Popen(asked.command) as running:
        while running.poll() is None:
            if there := list(below(running.pid)):
                stops += stood_still(chance.choice(there), min(chance.expovariate(1 / asked.mean), LONGEST_S))
            time.sleep(chance.expovariate(1 / asked.gap))
    print(f"{stops} times one of its processes stood still (--seed {asked.seed})", file=sys.stderr)
    return running.returncode


def below(root: int) -> Iterator[int]:
    """Yield the processes that a process has started, and those that these have."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (said := stat(int(entry.name))) is not None:
            children.setdefault(int(said[1]), []).append(int(entry.name))
    todo = [root]
    while todo:
        found = children.get(todo.pop(), [])
        yield from found
        todo += found


def stat(process: int) -> list[str] | None:
    """Return state, parent, … of a process; None of one that is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None


def stood_still(process: int, for_s: float) -> bool:
    """Have a process stand still for a while; whether it did."""
    said = stat(process)
    if said is None or said[0] in "TZ":
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGSTOP)
        try:
            time.sleep(for_s)
        finally:
            os.kill(process, signal.SIGCONT)
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
