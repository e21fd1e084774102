"""The simulator's own account: one entry a request, bounded, with sums."""

from dataclasses import replace

import httpx

from simulator.ledger import Entry, Ledger
from simulator.testing import Simulator
from tests.simulator.conftest import MODEL, asking

ENTRY = Entry(
    number=1,
    at=1_000.0,
    path="/api/v1/chat/completions",
    model="m",
    kind="prose",
    stream=False,
    run="r",
    call="answer",
    attempt="1",
    asked="why",
    generation_id="gen-1",
    prompt_tokens=10,
    cost_usd=0.5,
)


async def test_each_request_has_one_entry(http: httpx.AsyncClient, sim: Simulator) -> None:
    """With the caller's own names for it, what it was, what it cost, how it ended; never a key."""
    headers = {"X-Segue-Run": "r1", "X-Segue-Call": "answer", "X-Segue-Attempt": "2", "Authorization": "Bearer secret"}
    answer = await http.post("/chat/completions", json=asking("Why so blue?"), headers=headers)
    await http.post("/chat/completions", json=asking(stream=True))
    ledger = await sim.ledger()
    first, second = ledger
    assert (first["run"], first["call"], first["attempt"]) == ("r1", "answer", "2")
    assert (first["model"], first["kind"], first["stream"]) == (MODEL, "prose", False)
    assert (first["status"], first["outcome"], first["disconnected"]) == (200, "answered", False)
    assert first["asked"] == "Why so blue?"
    assert first["generation_id"] == answer.json()["id"]
    usage = answer.json()["usage"]
    assert (first["prompt_tokens"], first["completion_tokens"], first["cost_usd"]) == (
        usage["prompt_tokens"],
        usage["completion_tokens"],
        usage["cost"],
    )
    assert first["at"] <= second["at"]
    assert (second["run"], second["stream"]) == (None, True)
    assert "secret" not in str(ledger)
    assert await sim.ledger(run="r1") == [first]


async def test_clearing(http: httpx.AsyncClient, sim: Simulator) -> None:
    await http.post("/chat/completions", json=asking())
    assert (await sim.totals())["total"] == 1
    await sim.clear_ledger()
    assert await sim.totals() == {"total": 0, "dropped": 0, "open": 0, "most_open": 0, "cost_usd": 0.0}


async def test_the_last_entries_alone(http: httpx.AsyncClient, sim: Simulator) -> None:
    for text in ("one", "two", "three"):
        await http.post("/chat/completions", json=asking(text))
    async with httpx.AsyncClient() as client:
        body = (await client.get(f"{sim.address}/__sim/ledger?last=2")).json()
        assert [entry["asked"] for entry in body["entries"]] == ["two", "three"]
        assert body["total"] == 3
        assert (await client.get(f"{sim.address}/__sim/ledger?first=2")).status_code == 422
        assert (await client.get(f"{sim.address}/__sim/nothing")).status_code == 404


async def test_a_small_request_costs_little(http: httpx.AsyncClient, sim: Simulator) -> None:
    """Well under a millisecond of processor time, by its own measure: a benchmark's provider must not count.

    A generous bound, for busy machines: about 0.15 ms is normal, and anything that walks the ledger is far above.
    """
    for _ in range(50):
        await http.post("/chat/completions", json=asking())
    before = await sim.cpu_s()
    for number in range(300):
        await http.post("/chat/completions", json=asking(f"What is {number} plus one?"))
    assert (await sim.cpu_s() - before) / 300 < 0.001


def test_it_is_bounded_and_says_what_it_let_go() -> None:
    ledger = Ledger(kept=3)
    for number in range(5):
        entry = replace(ENTRY, number=number, generation_id=f"gen-{number}")
        ledger.add(entry)
        ledger.settle(entry, "answered", 1_001.0)
    shown = ledger.shown()
    assert (shown["total"], shown["dropped"], shown["open"], shown["cost_usd"]) == (5, 2, 0, 2.5)
    assert [entry["number"] for entry in shown["entries"]] == [2, 3, 4]
    assert ledger.find("gen-1") is None
    assert ledger.find("gen-4") is not None


def test_an_entry_ends_once() -> None:
    """And an end that comes after the ledger was cleared counts for nothing."""
    ledger = Ledger()
    entry, late = replace(ENTRY), replace(ENTRY)
    ledger.add(entry)
    ledger.add(late)
    assert (ledger.open, ledger.most_open) == (2, 2)
    ledger.settle(entry, "answered", 1_002.0)
    ledger.settle(entry, "error", 1_003.0)
    assert (entry.outcome, entry.took_s, ledger.open, ledger.cost_usd) == ("answered", 2.0, 1, 0.5)
    ledger.clear()
    ledger.settle(late, "answered", 1_004.0)
    assert (ledger.open, ledger.total, ledger.cost_usd) == (0, 0, 0.0)
