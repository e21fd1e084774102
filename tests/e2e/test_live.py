"""Texts as they come in, of real executors: who comes late has them from the beginning, whoever dies on the way."""

import asyncio
import json
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect

from shared.bus.accounts import Publisher
from tests.e2e.test_run_events import begun, follow
from tests.system import System, eventually

SLOWLY = {"name": "zero", "per_token_ms": 150, "tokens_per_chunk": 2}
QUESTION = "Tell me at length why people travel by night train, and what they save by that."
FLOW = {"workflow": [{"type": "inline", "tasks": [{"model": "fast_ai", "prompt": QUESTION, "output_variable": "a"}]}]}


async def slowly(system: System) -> None:
    """Have answers stream for a few seconds."""
    answer = await system.http.post(f"{system.simulator.url}/__sim/profile", json=SLOWLY)
    assert answer.status_code == 200, answer.text


class Reader:
    """Reads a run's stream in the background, and puts its text together."""

    def __init__(self, system: System, run_id: str, after: int = 0) -> None:
        self.text, self.pieces, self.restarts, self.settled = "", 0, 0, ""
        self.first: dict[str, Any] | None = None
        self.reading = asyncio.create_task(self._read(system, run_id, after))

    async def _read(self, system: System, run_id: str, after: int) -> None:
        async for one in follow(system, run_id, after, tokens=True):
            if one["event"] == "restart":
                self.text, self.restarts = "", self.restarts + 1
            elif one["event"] == "token":
                assert one["data"]["offset"] in (0, len(self.text)), "neither a gap nor a duplicate"
                self.first = self.first or one["data"]
                self.text = self.text[: one["data"]["offset"]] + one["data"]["text"]
                self.pieces += 1
            elif one["event"] == "settled":
                self.settled = one["data"]["data"]["text"]

    async def has(self, pieces: int) -> bool:
        assert not self.reading.done(), "the answer came too fast to look into the middle of it"
        return self.pieces >= pieces


async def test_who_comes_late_has_the_whole_text_though_the_executor_dies(tmp_path: Path) -> None:
    """One reader from the beginning, one in the middle, one after the executor was killed: all have the same text."""
    async with System(tmp_path) as system:
        await slowly(system)
        run_id, asked = await begun(system, FLOW, "late")
        early = Reader(system, run_id)
        await eventually(lambda: early.has(3))
        late = Reader(system, run_id)
        await eventually(lambda: late.has(2))
        assert late.first is not None
        assert (late.first["offset"], late.first["attempt"]) == (0, 1)
        assert len(late.first["text"]) > 10, "the text so far, in one piece"
        assert not early.reading.done()
        system.running("executor")[0].kill()
        await system.ready(system.start("executor"))

        async def begun_again() -> bool:
            return bool(early.restarts)

        await eventually(begun_again)
        before = early.pieces
        await eventually(lambda: early.has(before + 1))
        later = Reader(system, run_id)
        answer = await asked
        assert answer.status_code == 200, answer.text
        await asyncio.wait_for(asyncio.gather(early.reading, late.reading, later.reading), 30)
        for reader in (early, late, later):
            assert reader.text == reader.settled == answer.json()["result"]["a"]
        assert (early.restarts, late.restarts, later.restarts) == (1, 1, 0)
        assert later.first is not None
        assert (later.first["offset"], later.first["attempt"]) == (0, 2)


async def test_what_is_begun_in_the_background_is_followed_like_any_other(tmp_path: Path) -> None:
    """`async: true`, then its `events_url` from the middle, cut off, and taken up again behind the last id.

    With a user for each service, which may say and hear no more than its work needs.
    """
    async with System(tmp_path, publishers=[Publisher("acme", "acme-app", "acme-password")]) as system:
        await slowly(system)
        begun = await system.post("/chat", {"message": QUESTION, "async": True})
        assert begun.status_code == 202
        run_id = begun.json()["run_id"]
        assert begun.json()["events_url"] == f"/runs/{run_id}/events"

        async def there() -> bool:
            return (await system.http.get(f"{system.gateway.url}/runs/{run_id}")).status_code == 200

        await eventually(there)
        seen = 0
        async for one in follow(system, run_id, tokens=True):
            seen = one["seq"] or seen
            if one["event"] == "token":
                break
        reader = Reader(system, run_id, seen)
        await asyncio.wait_for(reader.reading, 30)
        assert reader.first is not None
        assert reader.first["offset"] == 0
        assert reader.text == reader.settled


async def test_a_socket_approves_cancels_and_follows_across_gateways(tmp_path: Path) -> None:
    """A task is approved and a run cancelled over `/ws`; killed with its gateway, a client goes on at the next one."""
    async with System(tmp_path) as system:
        tasks = [{"model": "fast_ai", "prompt": "send", "output_variable": "sent", "approve": "Send it?"}]
        flow = {"workflow": [{"type": "inline", "tasks": tasks}]}
        first, asked = await begun(system, flow, "approved")
        second, other = await begun(system, flow, "cancelled")
        address = f"ws://127.0.0.1:{system.gateway.port}/ws"
        async with connect(address, proxy=None) as client:

            async def until(kind: str, mark: str) -> dict[str, Any]:
                async with asyncio.timeout(30):
                    while True:
                        said: dict[str, Any] = json.loads(await client.recv())
                        if (said["type"], said.get("id")) == (kind, mark) or said["type"] == "error":
                            return said

            await client.send(json.dumps({"type": "subscribe", "id": "f", "run_id": first}))
            while (said := await until("event", "f"))["event"] != "asked":
                pass
            seq = said["seq"]
            await client.send(
                json.dumps({"type": "approve", "id": "a", "run_id": first, "task": "sent", "comment": "go"})
            )
            given = await until("run", "a")
            assert given["type"] == "run", given
            await client.send(json.dumps({"type": "cancel", "id": "c", "run_id": second, "reason": "no more"}))
            cancelled = await until("run", "c")
            assert cancelled["data"]["state"] == "cancelled", cancelled
            assert (await asked).status_code == 200
            assert (await other).status_code == 409
        old, new = system.gateway, system.start("gateway")
        await system.ready(new)
        old.kill()
        async with connect(f"ws://127.0.0.1:{new.port}/ws", proxy=None) as client:
            await client.send(json.dumps({"type": "subscribe", "id": "f", "run_id": first, "after": seq}))
            heard: list[dict[str, Any]] = []
            while not heard or heard[-1]["type"] not in ("answer", "error"):
                heard.append(json.loads(await asyncio.wait_for(client.recv(), 30)))
            facts = [one["seq"] for one in heard if one["type"] == "event"]
            assert facts
            assert facts == sorted(facts)
            assert min(facts) > seq
            assert heard[-1]["data"]["status"] == "completed"
