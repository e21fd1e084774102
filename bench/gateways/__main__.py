"""`python -m bench.gateways [--litellm VENV] [--portkey DIR]`: what a direct model call costs, beside other gateways.

Starts a Segue, LiteLLM's proxy and Portkey's gateway in front of one simulator that takes no time, and sends all of
them the same question in turn, round after round, and the simulator itself too. Prints one table, medians over the
rounds: p50, p95, overhead (p50 minus the simulator's own), CPU of all of a gateway's processes, memory.

Segue is asked over POST /v1/chat/completions where its gateway has that, else over POST /chat with a configuration
whose rules need no categorizing call; `--way` chooses. None of them logs single requests. A gateway that is not
installed is left out. Linux only: it reads /proc.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import uvloop

from bench.gateways import segue
from bench.gateways.others import NotThere, Other, litellm, portkey
from bench.gateways.running import NotReady, running
from bench.gateways.table import FAKE, table
from bench.gateways.targets import Batch, Caller, Failed, Target, completion
from tests.system import ROOT, System

WARM_UP_CALLS = 300


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litellm", type=Path, default=_place("BENCH_LITELLM"), help="its virtual environment")
    parser.add_argument("--portkey", type=Path, default=_place("BENCH_PORTKEY"), help="the folder of its node_modules")
    parser.add_argument("--way", choices=list(segue.WAYS), help="how Segue is asked")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=300, help="to each, in each round, for each number in flight")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 16], help="in flight")
    return parser.parse_args()


def _place(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value else None


@asynccontextmanager
async def targets(
    options: argparse.Namespace, folder: Path, system: System, session: aiohttp.ClientSession
) -> AsyncIterator[list[Target]]:
    """Yield everybody who is there and ready, ours first and the fake provider last."""
    document = json.loads((ROOT / "orchestration_config.json").read_text())
    model: str = document["ai_models"][segue.ROLE]["model"]
    provider = system.simulator_url
    others: Sequence[Callable[[], Other]] = (
        lambda: litellm(options.litellm, provider, model, folder),
        lambda: portkey(options.portkey, provider, model),
    )
    async with AsyncExitStack() as stack:
        found = [await segue.target(system, session, options.way)]
        for other in others:
            try:
                found.append(await stack.enter_async_context(running(other(), folder, session)))
            except NotThere as error:
                print(error, file=sys.stderr)
        fake = Target(FAKE, f"{provider}/chat/completions", completion(model), (system.simulator.pid,))
        yield [*found, fake]


async def measure(options: argparse.Namespace, everybody: Sequence[Target], caller: Caller) -> None:
    rounds: dict[tuple[str, int], list[Batch]] = {}
    for at_once in options.at_once:
        for target in everybody:
            await caller.batch(target, WARM_UP_CALLS, at_once)
            rounds[target.name, at_once] = []
    for number in range(options.rounds):
        first = number % len(everybody)
        for at_once in options.at_once:
            for target in (*everybody[first:], *everybody[:first]):
                rounds[target.name, at_once].append(await caller.batch(target, options.calls, at_once))
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    print(f"Medians over {options.rounds} rounds of {options.calls} calls:\n\n{table(rounds)}")


async def main() -> None:
    options = arguments()
    for variable in [name for name in os.environ if name.startswith("SEGUE_")]:
        del os.environ[variable]  # a provider or a history of somebody else's is none of the bench's
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with (
            System(folder, environment={"SEGUE_LOG_LEVEL": "warning"}, configure=segue.configured) as system,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=500)) as session,
            targets(options, folder, system, session) as everybody,
        ):
            await measure(options, everybody, Caller(session, f"{system.simulator.url}/__sim/ledger"))


if __name__ == "__main__":
    try:
        uvloop.run(main())
    except (Failed, NotReady) as error:
        sys.exit(str(error))
