"""A worker process to be killed: `python -m tests.bus.worker <url> <stream> <seconds>`; it says what it takes."""

import asyncio
import sys

import nats
from nats.js.api import ConsumerConfig

from shared.bus.delivery import Delivery, Done, Source, Verdict
from shared.bus.pull import StandingPull


async def work(url: str, stream: str, takes_s: float) -> None:
    async def handle(delivery: Delivery) -> Verdict:
        sys.stdout.write(f"{delivery.data.decode()} {delivery.delivered}\n")
        sys.stdout.flush()
        await asyncio.sleep(takes_s)
        return Done()

    async def bury(_: Delivery, reason: str) -> None:
        raise AssertionError(reason)

    source = Source(stream, ConsumerConfig(durable_name="c-high"), name="high")
    await StandingPull(await nats.connect(url), [source], handle, places=2, name="worker", bury=bury).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2], float(sys.argv[3])))
