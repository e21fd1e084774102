"""`python -m bench.models [--executors 4] [--changes 20]`: how soon everybody follows when a role's model changes.

Keeps asking while another model is written for the role again and again. By the simulator's own ledger: how long after
the writing was answered the model of before was asked for the last time.
"""

import argparse
import asyncio
import itertools
import os
import statistics
import tempfile
import time
from pathlib import Path

import uvloop

from tests.system import System


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executors", type=int, default=4)
    parser.add_argument("--changes", type=int, default=20)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    os.environ["SEGUE_LOG_LEVEL"] = "warning"
    async with System(Path(tempfile.mkdtemp()) / "system", copies={"executor": options.executors}) as system:
        stop, numbers = asyncio.Event(), itertools.count()

        async def client() -> None:
            while not stop.is_set():
                task = {"model": "fast_ai", "prompt": f"say {next(numbers)}", "output_variable": "o"}
                await system.post("/workflow", {"workflow": [{"type": "inline", "tasks": [task]}]})

        clients = [asyncio.create_task(client()) for _ in range(options.clients)]
        url = f"{system.gateway.url}/models/fast_ai"
        body = (await system.http.get(url)).json()
        written: list[tuple[str, float]] = []
        for number in range(options.changes):
            model = f"bench/model-{number}"
            answer = await system.http.put(url, json={**body, "model": model})
            assert answer.status_code in (200, 201), answer.text
            written.append((model, time.time()))
            await asyncio.sleep(0.5)
        stop.set()
        await asyncio.gather(*clients)
        asked: dict[str, list[float]] = {}
        for entry in await system.ledger():
            asked.setdefault(entry["model"], []).append(entry["at"])
        late = [
            max(0.0, *(at - when for at in asked.get(before, [when])))
            for (before, _), (_, when) in itertools.pairwise(written)
        ]
        total = sum(len(times) for times in asked.values())
        print(f"{options.executors} executors, {total} calls, {options.changes} changes")
        print(
            f"the model of before was asked for the last time {statistics.median(late) * 1000:.0f} ms after the change "
            f"was answered (median), {max(late) * 1000:.0f} ms at most"
        )


uvloop.run(main())
