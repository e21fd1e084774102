"""`python -m bench.stream [--streams 1 20] [--chunks 200]`: how long a piece of text takes from a provider to a reader.

A provider in this process writes the time into every piece that it streams. Heard twice: on the bus (provider →
executor → bus) and by a reader of `/runs/{id}/events` (… → gateway → reader). Both figures include the loopback
connections at either end and the wake-up of this process, which stands on the same cores.
"""

import argparse
import asyncio
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles

from aiohttp import web
from nats.aio.msg import Msg

from shared import subjects
from shared.bus.reader import Reader
from shared.bus.server import free_port
from tests.system import System, eventually

PIECE = b'data: {"choices": [{"index": 0, "delta": {"content": "<%d>"}}]}\n\n'
LAST = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
STAMP = re.compile(rb"<(\d+)>")
APART_S = 0.01


class Provider:
    """Streams the time, every 10 ms."""

    def __init__(self, chunks: int) -> None:
        self.chunks = chunks
        self.go = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        await self.go.wait()
        for _ in range(self.chunks):
            await answer.write(PIECE % time.monotonic_ns())
            await asyncio.sleep(APART_S)
        await answer.write(LAST)
        return answer


def took_ms(text: bytes) -> list[float]:
    """Return how long ago each stamp in a text was made."""
    now = time.monotonic_ns()
    return [(now - int(stamp)) / 1e6 for stamp in STAMP.findall(text)]


async def read(system: System, run_id: str, waits: asyncio.Semaphore) -> list[float]:
    """Follow a run; returns how long each piece took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", system.gateway.port)
    writer.write(f"GET /runs/{run_id}/events HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
    found: list[float] = []
    waits.release()
    while chunk := await reader.read(65_536):
        if b"event: settled" in chunk:
            break
        found += took_ms(chunk)
    writer.close()
    return found


def shown(name: str, found: Sequence[float]) -> str:
    cuts = quantiles(found, n=100)
    return f"{name:28} {len(found):6} pieces  p50 {cuts[49]:5.2f} ms  p95 {cuts[94]:5.2f} ms  p99 {cuts[98]:5.2f} ms"


async def accepted(system: System, run_id: str) -> None:
    async def there() -> bool:
        return (await system.http.get(f"{system.gateway.url}/runs/{run_id}")).status_code == 200

    await eventually(there)


async def measure(system: System, provider: Provider, streams: int) -> None:
    heard: list[float] = []
    provider.go.clear()

    def take(msg: Msg) -> None:
        heard.extend(took_ms(msg.data))

    there = await system.client.subscribe(subjects.token("default", "*", "*"), future=Reader(take))
    task = {"model": "fast_ai", "prompt": "what time is it?", "output_variable": "a"}
    body = {"workflow": [{"type": "inline", "tasks": [task]}], "async": True}
    runs = [(await system.post("/workflow", body)).json()["run_id"] for _ in range(streams)]
    for run_id in runs:
        await accepted(system, run_id)
    waits = asyncio.Semaphore(0)
    reading = [asyncio.create_task(read(system, run_id, waits)) for run_id in runs]
    for _ in runs:
        await waits.acquire()
    await asyncio.sleep(1.0)  # every reader listens, every call waits for its first piece
    provider.go.set()
    told = [one for found in await asyncio.gather(*reading) for one in found]
    await there.unsubscribe()
    print(f"{streams} at a time, a piece every {APART_S * 1000:.0f} ms each")
    print("  " + shown("provider → bus", heard))
    print("  " + shown("provider → reader", told), flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 20])
    parser.add_argument("--chunks", type=int, default=200)
    arguments = parser.parse_args()
    provider = Provider(arguments.chunks)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", provider.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    with tempfile.TemporaryDirectory() as folder:
        environment = {"SEGUE_OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "SEGUE_LOG_LEVEL": "warning"}
        async with System(Path(folder), environment=environment) as system:
            for streams in arguments.streams:
                await measure(system, provider, streams)
    await runner.cleanup()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
