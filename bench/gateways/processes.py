"""What processes use, from /proc: CPU and memory, their children's included."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Memory:
    """In MB. `resident` counts a page that processes share once for each, `proportional` once for all."""

    resident: float
    proportional: float


def trees(roots: Iterable[int]) -> set[int]:
    """Return the processes and all their descendants that run now."""
    parents = {int(entry.name): _stat(int(entry.name)) for entry in PROC.iterdir() if entry.name.isdecimal()}
    found = set(roots)
    grown = True
    while grown:
        more = {pid for pid, stat in parents.items() if stat and int(stat[1]) in found} - found
        found |= more
        grown = bool(more)
    return found


def cpu_s(roots: Iterable[int]) -> float:
    """Return the CPU seconds used so far, user and system, by the processes and by children running or reaped."""
    ticks = 0
    for pid in trees(roots):
        stat = _stat(pid)
        ticks += sum(int(field) for field in stat[11:15])
    return ticks * TICK_S


def memory(roots: Iterable[int]) -> Memory:
    """Return what the processes and their descendants hold in memory."""
    resident = proportional = 0
    for pid in trees(roots):
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            match line.split():
                case ["Rss:", kb, "kB"]:
                    resident += int(kb)
                case ["Pss:", kb, "kB"]:
                    proportional += int(kb)
    return Memory(resident / 1024, proportional / 1024)


def _stat(pid: int) -> list[str]:
    """Return the fields of proc_pid_stat(5) from the third, the state, on; none when the process has gone."""
    try:
        return (PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
