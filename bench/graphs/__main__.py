"""`python -m bench.graphs [--rounds 15]`: how close workflows come to what their tasks' times allow.

Against the simulator with exact delays: a graph of twelve tasks against its longest chain; searches side by side with
one join (the shape that LLMCompiler is measured on) as a graph and one after the other, against the ratio that theory
gives; and how many writes of its record a wide queue takes whose tasks end together.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import uvloop

from tests.system import System

LENGTHS = (0.3, 0.1, 0.2, 0.1, 0.4, 0.1, 0.1, 0.2, 0.3, 0.1, 0.2, 0.1)
NEEDS: tuple[tuple[int, ...], ...] = ((), (), (), (0,), (1,), (2,), (3, 4), (4,), (5,), (6, 7), (8,), (9, 10))
SEARCHES, SEARCH_S, JOIN_S = 4, 0.4, 0.2


def task(name: str, needs: Sequence[str] = ()) -> dict[str, Any]:
    return {"model": "fast_ai", "prompt": f"work {name}.", "output_variable": name, "needs": list(needs)}


def workflow(kind: str, tasks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"workflow": [{"type": kind, "tasks": [dict(one) for one in tasks]}]}


def longest(lengths: Sequence[float], needs: Sequence[Sequence[int]]) -> tuple[float, int]:
    """Return the seconds and the number of tasks of the chain that takes longest."""
    over: list[tuple[float, int]] = []
    for length, before in zip(lengths, needs, strict=True):
        seconds, count = max((over[one] for one in before), default=(0.0, 0))
        over.append((seconds + length, count + 1))
    return max(over)


async def took(system: System, body: Mapping[str, Any], rounds: int) -> list[float]:
    """Return the seconds of each round, from the request to its answer."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        answer = await system.post("/workflow", body)
        found.append(time.perf_counter() - began)
        assert answer.status_code == 200, answer.text
    return found[1:]  # the first one is for warming up


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds + 1
    os.environ["SEGUE_LOG_LEVEL"] = "warning"
    async with System(Path(tempfile.mkdtemp()) / "system") as system:
        delays = {f"t{number}": length for number, length in enumerate(LENGTHS)}
        delays |= {f"search{number}": SEARCH_S for number in range(SEARCHES)} | {"join": JOIN_S}
        await system.faults(
            *(
                {"match": {"contains": f"work {name}."}, "times": "forever", "fault": {"kind": "delay", "delay_s": s}}
                for name, s in delays.items()
            )
        )
        graph = workflow("graph", [task(f"t{n}", [f"t{one}" for one in before]) for n, before in enumerate(NEEDS)])
        seconds, chain = longest(LENGTHS, NEEDS)
        times = await took(system, graph, rounds)
        middle = statistics.median(times)
        more_ms = 1000 * (middle - seconds)
        print(
            f"graph of 12: longest chain {seconds:.3f} s of {chain} tasks, took {middle:.3f} s (median of "
            f"{len(times)}, best {min(times):.3f}): {more_ms:.0f} ms more, {more_ms / chain:.1f} ms a task"
        )
        searches = [task(f"search{n}") for n in range(SEARCHES)]
        names = [f"search{n}" for n in range(SEARCHES)]
        side = statistics.median(await took(system, workflow("graph", [*searches, task("join", names)]), rounds))
        plain = [{key: value for key, value in one.items() if key != "needs"} for one in [*searches, task("join")]]
        one_by_one = statistics.median(await took(system, workflow("inline", plain), rounds))
        theory = (SEARCHES * SEARCH_S + JOIN_S) / (SEARCH_S + JOIN_S)
        print(
            f"{SEARCHES} searches and a join: graph {side:.3f} s, one after the other {one_by_one:.3f} s: "
            f"{one_by_one / side:.2f} times as long (in theory {theory:.2f})"
        )
        jetstream = system.client.jetstream()
        for width in (5, 50, 200):
            wide = [{"model": "fast_ai", "prompt": f"say {n}", "output_variable": f"o{n}"} for n in range(width)]
            before = (await jetstream.stream_info("KV_runs")).state.last_seq
            seconds = (await took(system, workflow("linear", wide), 2))[0]
            writes = ((await jetstream.stream_info("KV_runs")).state.last_seq - before) / 2
            print(f"{width} tasks at once: {seconds:.3f} s, {writes:.0f} writes of the record")


if __name__ == "__main__":
    uvloop.run(main())
