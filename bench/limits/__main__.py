"""`python -m bench.limits [--seconds 300] [--executors 8]`: whether a limit holds, by the simulator's own ledger.

Offers about twice of what 60 requests and 500,000 tokens a minute let through, has the provider refuse some with 429,
and kills two executors on the way. Then looks through every window of 60 seconds: the most requests and tokens in any,
and how much of the limit was used while there was work to do.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop

from tests.system import System

REQUESTS, TOKENS, BURST = 60, 500_000, 10


def configured(document: dict[str, Any]) -> None:
    limit = {"requests_per_minute": REQUESTS, "tokens_per_minute": TOKENS, "burst_allowance": BURST}
    document["rate_limiting"]["simulator"] = limit
    document["orchestration"]["defaultTimeoutSeconds"] = 3_600


def most_in(times: Sequence[tuple[float, int]], seconds: float) -> tuple[int, int]:
    """Return the most requests and the most tokens of any window."""
    ordered = sorted(times)
    requests = tokens = begin = held = 0
    for end, (at, count) in enumerate(ordered):
        held += count
        while ordered[begin][0] <= at - seconds:
            held -= ordered[begin][1]
            begin += 1
        requests, tokens = max(requests, end - begin + 1), max(tokens, held)
    return requests, tokens


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--executors", type=int, default=8)
    options = parser.parse_args()
    os.environ["SEGUE_LOG_LEVEL"] = "warning"
    folder = Path(tempfile.mkdtemp()) / "system"
    async with System(folder, copies={"executor": options.executors}, configure=configured) as system:
        await system.faults(
            {"match": {"contains": "number 7"}, "times": 20, "fault": {"kind": "rate_limit", "retry_after_s": 2}}
        )
        began, stop = time.time(), asyncio.Event()

        async def client(number: int) -> None:
            count = 0
            while not stop.is_set():
                count += 1
                prompt = f"number {number} asks for the {count}th time. " + "word " * 500
                task = {"model": "fast_ai", "prompt": prompt, "output_variable": "o"}
                await system.post("/workflow", {"workflow": [{"type": "inline", "tasks": [task]}]})

        clients = [asyncio.create_task(client(number)) for number in range(120)]
        for _ in range(2):
            await asyncio.sleep(options.seconds / 3)
            victim = system.running("executor")[0]
            victim.kill()
            print(
                f"{time.time() - began:.0f} s: killed an executor, {len(system.running('executor'))} left", flush=True
            )
        await asyncio.sleep(options.seconds / 3)
        entries = await system.ledger()
        for one in clients:
            one.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        times = [(one["at"], one["prompt_tokens"] + one["completion_tokens"]) for one in entries]
        requests, tokens = most_in(times, 60)
        second, _ = most_in(times, 1)
        # From the end of the first window on: in the first one the limit's whole minute is there at once.
        steady = [at for at, _ in times if at > began + 62]
        share = len(steady) / (REQUESTS * (time.time() - began - 62) / 60)
        refused = sum(1 for one in entries if one["status"] == 429)
        print(
            f"{len(times)} requests in {time.time() - began:.0f} s, {refused} refused with 429: at most {requests} in "
            f"any 60 s (limit {REQUESTS}), {second} in any second (limit {BURST}), {tokens:,} tokens in any 60 s "
            f"(limit {TOKENS:,}); {100 * share:.1f} % of the requests that were allowed were made"
        )
        assert requests <= REQUESTS
        assert second <= BURST
        assert tokens <= TOKENS


if __name__ == "__main__":
    uvloop.run(main())
