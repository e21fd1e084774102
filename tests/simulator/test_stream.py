"""Server-sent events: order, usage before the end, pace, and a client that goes."""

import asyncio
import json
import time
from typing import Any

import httpx

from simulator.testing import Simulator
from tests.conftest import eventually
from tests.simulator.conftest import TICK_S, asking, events, said


async def test_a_stream_is_the_whole_answer_in_pieces(http: httpx.AsyncClient) -> None:
    """Chunks join to the text of the answer that is not streamed; usage comes once, with no choices, before the end."""
    whole = await http.post("/chat/completions", json=asking())
    streamed = await http.post("/chat/completions", json=asking(stream=True))
    assert streamed.headers["content-type"] == "text/event-stream"
    assert streamed.text.startswith(": OPENROUTER PROCESSING\n\n")
    *chunks, done = events(streamed.text)
    assert done == "[DONE]"
    parsed: list[dict[str, Any]] = [json.loads(chunk) for chunk in chunks]
    assert {chunk["id"] for chunk in parsed} == {streamed.headers["x-generation-id"]}
    assert {chunk["object"] for chunk in parsed} == {"chat.completion.chunk"}
    *texts, last = parsed
    assert last["choices"] == []
    assert last["usage"] == whole.json()["usage"]
    assert all("usage" not in chunk for chunk in texts)
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in texts) == said(whole)
    assert [chunk["choices"][0]["finish_reason"] for chunk in texts] == [None] * (len(texts) - 1) + ["stop"]
    assert len(texts) > 2


async def test_the_profile_sets_the_pace(http: httpx.AsyncClient, sim: Simulator) -> None:
    """The first token comes after its time, the rest at the pace of tokens; comments come meanwhile."""
    await sim.profile("zero", first_token_ms=120, per_token_ms=2, tokens_per_chunk=10)
    began = time.monotonic()
    first = None
    async with http.stream("POST", "/chat/completions", json=asking(stream=True)) as answer:
        began_answer = time.monotonic() - began
        async for line in answer.aiter_lines():
            if line.startswith("data: ") and first is None:
                first = time.monotonic() - began
    took = time.monotonic() - began
    (entry,) = await sim.ledger()
    assert first is not None
    assert began_answer < first
    chunks = entry["completion_tokens"] // 10
    assert first >= 0.12 + 0.02 - 2 * TICK_S
    assert took >= 0.12 + chunks * 0.02 - (chunks + 1) * TICK_S
    assert entry["took_s"] >= 0.14 - 2 * TICK_S


async def test_a_whole_answer_takes_as_long(http: httpx.AsyncClient, sim: Simulator) -> None:
    await sim.profile("zero", total_ms=150)
    began = time.monotonic()
    await http.post("/chat/completions", json=asking())
    assert time.monotonic() - began >= 0.15 - TICK_S


async def test_a_client_that_goes_in_mid_stream_is_noted(http: httpx.AsyncClient, sim: Simulator) -> None:
    """The ledger says so, and bills what went out until then, of an answer that would take a minute and more."""
    await sim.profile("zero", first_token_ms=1, per_token_ms=1_000, tokens_per_chunk=2)
    async with http.stream("POST", "/chat/completions", json=asking(stream=True)) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                break
    await _settled(sim)
    (entry,) = await sim.ledger()
    assert entry["disconnected"] is True
    assert entry["outcome"] == "disconnected"
    assert 2 <= entry["completion_tokens"] < 40
    assert entry["cost_usd"] > 0


async def test_a_client_that_goes_before_the_answer_is_noted(http: httpx.AsyncClient, sim: Simulator) -> None:
    """The provider works on to the end and bills all of it."""
    await sim.profile("zero", first_token_ms=60_000)
    asked = asyncio.create_task(http.post("/chat/completions", json=asking()))
    await eventually(lambda: _open(sim, 1))
    asked.cancel()
    await _settled(sim)
    (entry,) = await sim.ledger()
    assert entry["outcome"] == "disconnected"
    assert entry["completion_tokens"] > 0
    assert entry["cost_usd"] > 0


async def _open(sim: Simulator, count: int) -> bool:
    totals = await sim.totals()
    return bool(totals["open"] == count and totals["total"] > 0)


async def _settled(sim: Simulator) -> None:
    await eventually(lambda: _open(sim, 0))
