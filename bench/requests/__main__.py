"""`python -m bench.requests [--url …] [--limit 10] [--at-once 20] [FILE]`: asks real requests of a running Segue.

The file has a JSON object a line: {"id", "kind", "turns": [text, …]}; turns of one request share a session. Prints a
line a turn (category, calls, cost, seconds) and the totals; exits with 1 when a turn was not answered, or twice.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).resolve().parents[3] / "shared" / "data" / "prompts.jsonl"


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=HERE)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--every", type=int, default=1, help="only every n-th request")
    parser.add_argument("--at-once", type=int, default=20)
    arguments = parser.parse_args()
    if not arguments.file.exists():
        print(f"no requests to ask: {arguments.file} is not there")
        return 2
    requests = [json.loads(line) for line in arguments.file.read_text().splitlines()]
    requests = requests[:: arguments.every][: arguments.limit]
    room = asyncio.Semaphore(arguments.at_once)
    answers: list[dict[str, Any]] = []
    failed = 0

    async with httpx.AsyncClient(base_url=arguments.url, timeout=330, trust_env=False) as client:

        async def converse(request: dict[str, Any]) -> None:
            nonlocal failed
            session: dict[str, str] = {}
            async with room:
                for number, turn in enumerate(request["turns"]):
                    began = time.perf_counter()
                    answer = await client.post("/chat", json={"message": turn, **session})
                    took_s = time.perf_counter() - began
                    body = answer.json()
                    if answer.status_code != 200:
                        failed += 1
                        print(f"{request['id']:14} {number}  {answer.status_code}  {str(body.get('detail'))[:100]}")
                        return
                    session = {"session_id": body["session_id"]}
                    answers.append(body)
                    print(
                        f"{request['id']:14} {number}  {body['category']}  {body['calls']:2} calls  "
                        f"{body['cost_usd']:.6f} USD  {took_s:6.2f} s  {body['response'][:60]!r}"
                    )

        began = time.perf_counter()
        await asyncio.gather(*(converse(request) for request in requests))
        seconds = time.perf_counter() - began
    kinds = Counter(answer["category"] for answer in answers)
    notes = sum(1 for answer in answers if answer["note"])
    twice = len(answers) - len({answer["run_id"] for answer in answers})
    print(
        f"\n{len(requests)} requests, {len(answers)} turns answered, {failed} failed, {twice} twice; "
        f"L {kinds['L']}, M {kinds['M']}, H {kinds['H']} ({notes} answered directly instead); "
        f"{sum(answer['cost_usd'] for answer in answers):.6f} USD; {seconds:.1f} s"
    )
    return 1 if failed or twice else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
