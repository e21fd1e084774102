"""`python -m bench.limits [--seconds 300] [--executors 8] [--profile zero] [--only requests|tokens]`.

Whether a limit holds, by the simulator's own ledger, and how much of it is used. Twice, each time a system of its own:
with small calls, of which 60 a minute bind, and with large ones, of which 500,000 tokens a minute do. Offers about
twice of what is let through, has the provider refuse some with 429, and kills two executors on the way. Then looks
through every window of 60 seconds: the most requests and tokens in any, and how much of the limit was used while there
was work to do.
"""

import argparse
import asyncio
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvloop

from bench.limits.ledger import asked, most_in, used
from tests.system import System

REQUESTS, TOKENS, BURST = 60, 500_000, 10
WINDOW_S = 60
CLIENTS = 120


@dataclass(frozen=True, slots=True)
class Part:
    """One load."""

    binds: str
    """What of the limit is used up: `requests` or `tokens`."""
    role: str
    words: int
    """Of a prompt; a word is about a token and a quarter."""


PARTS = (Part("requests", "fast_ai", 500), Part("tokens", "medium_ai", 10_000))


def configured(document: dict[str, Any]) -> None:
    limit = {"requests_per_minute": REQUESTS, "tokens_per_minute": TOKENS, "burst_allowance": BURST}
    document["rate_limiting"]["simulator"] = limit
    document["orchestration"]["defaultTimeoutSeconds"] = 3_600


async def measured(part: Part, options: argparse.Namespace) -> bool:
    """Run one load and print what came of it; whether the limit held and was used."""
    folder = Path(tempfile.mkdtemp()) / "system"
    copies = {"executor": options.executors}
    async with System(folder, copies=copies, configure=configured, profile=options.profile) as system:
        await system.faults(
            {"match": {"contains": "number 7"}, "times": 20, "fault": {"kind": "rate_limit", "retry_after_s": 2}}
        )
        began, stop = time.time(), asyncio.Event()

        async def client(number: int) -> None:
            count = 0
            while not stop.is_set():
                count += 1
                prompt = f"number {number} asks for the {count}th time. " + "word " * part.words
                task = {"model": part.role, "prompt": prompt, "output_variable": "o"}
                try:
                    await system.post("/workflow", {"workflow": [{"type": "inline", "tasks": [task]}]})
                except httpx.TimeoutException:
                    continue  # it waits on without us

        clients = [asyncio.create_task(client(number)) for number in range(CLIENTS)]
        for _ in range(2):
            await asyncio.sleep(options.seconds / 3)
            system.running("executor")[0].kill()
            left = len(system.running("executor"))
            print(f"{time.time() - began:.0f} s: killed an executor, {left} left", flush=True)
        await asyncio.sleep(options.seconds / 3)
        entries, ended = await system.ledger(), time.time()
        for one in clients:
            one.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    times = asked(entries)
    requests, tokens = most_in(times, WINDOW_S)
    second, _ = most_in(times, 1)
    shares = used(times, (REQUESTS, TOKENS), WINDOW_S, ended)
    share = shares[0] if part.binds == "requests" else shares[1]
    refused = sum(1 for one in entries if one["status"] == 429)
    print(
        f"{part.binds} bind: {len(times)} requests in {ended - began:.0f} s, {refused} refused with 429: at most "
        f"{requests} in any {WINDOW_S} s (limit {REQUESTS}), {second} in any second (limit {BURST}), {tokens:,} tokens "
        f"in any {WINDOW_S} s (limit {TOKENS:,}); used in the mean over all windows: {100 * shares[0]:.1f} % of the "
        f"requests and {100 * shares[1]:.1f} % of the tokens",
        flush=True,
    )
    return requests <= REQUESTS and second <= BURST and tokens <= TOKENS and share >= 0.9


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--executors", type=int, default=8)
    parser.add_argument("--profile", default="zero", help="how long the simulator's answers take")
    parser.add_argument("--only", choices=[part.binds for part in PARTS])
    options = parser.parse_args()
    os.environ["SEGUE_LOG_LEVEL"] = "warning"
    held = [await measured(part, options) for part in PARTS if options.only in {None, part.binds}]
    return 0 if all(held) else 1


if __name__ == "__main__":
    raise SystemExit(uvloop.run(main()))
