"""Have a running Segue plan real requests, and say how its planning model did.

    python -m bench.plans ../shared/data/prompts.jsonl --count 20 --url http://127.0.0.1:8000

Takes requests that need several steps (`kind` dag and chain), one after the other, through `POST /plan`; then one of
the plans, as it came, through `POST /workflow` with `--carry-out`.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import httpx


def requests_of(path: Path, count: int) -> list[str]:
    """Return the first turns of requests that need several steps, of both kinds in turn."""
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    dags = [line["turns"][0] for line in lines if line["kind"] == "dag"]
    chains = [line["turns"][0] for line in lines if line["kind"] == "chain"]
    mixed = [text for pair in zip(dags, chains, strict=False) for text in pair]
    return mixed[:count]


def judged(plan: dict[str, Any], run: dict[str, Any]) -> str:
    """Return how a plan came about, by the calls on its run's log."""
    tries = sum(1 for call in run["calls"] if call["name"].startswith("decision.plan-"))
    if plan["workflow"] is None:
        return "direct answer"
    return "at once" if tries == 1 else f"after {tries - 1} repair{'s' if tries > 2 else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--carry-out", action="store_true")
    parser.add_argument("--out", type=Path, help="Write every plan here, a line each.")
    options = parser.parse_args()
    found: dict[str, int] = {}
    tasks: list[int] = []
    edges = refused = 0
    last: dict[str, Any] | None = None
    with httpx.Client(base_url=options.url, timeout=600) as client:
        for number, text in enumerate(requests_of(options.path, options.count), 1):
            began = time.monotonic()
            answer = client.post("/plan", json={"message": text})
            took_s = time.monotonic() - began
            if answer.status_code != 200:
                refused += 1
                print(f"{number:3} {took_s:6.1f} s  HTTP {answer.status_code}: {answer.text[:160]}")
                continue
            plan = answer.json()
            how = judged(plan, client.get(f"/runs/{plan['run_id']}").json())
            found[how] = found.get(how, 0) + 1
            steps = [task for queue in plan["workflow"] or [] for task in queue["tasks"]]
            tasks.append(len(steps))
            edges += (plan["mermaid"] or "").count("-->")
            last = plan if steps else last
            print(f"{number:3} {took_s:6.1f} s  {how:16} {len(steps)} tasks  {text[:70]!r}", flush=True)
            if options.out is not None:
                with options.out.open("a") as out:
                    out.write(json.dumps({"message": text, "how": how, "plan": plan}, ensure_ascii=False) + "\n")
        if options.carry_out and last is not None:
            began = time.monotonic()
            answer = client.post("/workflow", json={"workflow": last["workflow"], "variables": last["variables"]})
            print(f"carried out: HTTP {answer.status_code} in {time.monotonic() - began:.1f} s")
    planned = [count for count in tasks if count]
    ways = ", ".join(f"{count} {how}" for how, count in sorted(found.items()))
    print(f"{sum(found.values())} plans: {ways}; {refused} refused")
    if planned:
        mean = sum(planned) / len(planned)
        print(f"tasks in a plan: {min(planned)} to {max(planned)}, {mean:.1f} on average; {edges} edges")


if __name__ == "__main__":
    main()
