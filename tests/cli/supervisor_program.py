"""Starts two children in the way that it is told, says their process ids, and waits to be killed."""

import asyncio
import os
import sys

from cli.nursery.client import Forking, Nursery
from cli.nursery.order import Order
from cli.processes import Spawning, Starter


async def main(kind: str) -> None:
    starter: Starter = Forking(Nursery()) if kind == "forked" else Spawning()
    children = [
        await starter.start(Order("tests.cli.child_program", [how], dict(os.environ))) for how in ("wait", "deaf")
    ]
    for child in children:
        await child.output.readline()
    print(*(child.pid for child in children), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
