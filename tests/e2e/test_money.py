"""Money is exact: what Segue says that calls cost is what the provider says, whatever fails and whoever is killed.

Both accounts are kept apart: Segue's is read from its log, fact by fact; the provider's is the simulator's own ledger.
`SEGUE_MONEY_CALLS=2000` makes it longer.
"""

import asyncio
import json
import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.bus.connection import open_bus
from shared.topology import EVENTS
from tests.system import System, eventually

CALLS = int(os.environ.get("SEGUE_MONEY_CALLS", "240"))
EXACT_USD = 1e-9
PROFILE = {"name": "fast", "first_token_ms": 60, "per_token_ms": 2, "tokens_per_chunk": 6}
FAULTS: list[dict[str, Any]] = [
    {"probability": 0.06, "fault": {"kind": "rate_limit", "retry_after_s": 0.2}},
    {"probability": 0.06, "fault": {"kind": "status", "status": 500}},
    {"probability": 0.06, "fault": {"kind": "cut_stream", "after_chunks": 2, "how": "clean"}},
    {"probability": 0.04, "fault": {"kind": "cut_stream", "after_chunks": 1, "how": "reset"}},
    {"probability": 0.05, "fault": {"kind": "error_in_stream", "after_chunks": 2}},
    {"probability": 0.03, "fault": {"kind": "error_in_stream", "after_chunks": 0}},
    {"probability": 0.03, "fault": {"kind": "error_in_200"}},
    {"probability": 0.04, "fault": {"kind": "timeout", "for_s": 0.4}},
    {"probability": 0.03, "fault": {"kind": "reset"}},
    {"probability": 0.03, "fault": {"kind": "empty", "what": "body"}},
    {"probability": 0.03, "fault": {"kind": "malformed"}},
    {"probability": 0.04, "match": {"contains": "hurry"}, "fault": {"kind": "delay", "delay_s": 6}},
]
Attempt = tuple[str, str, int]
"""Run, `<purpose>.<call>`, number: what each request to the provider is tagged with."""


def _configure(document: dict[str, Any]) -> None:
    document["error_handling"]["retry_config"]["base_delay_ms"] = 50
    document["error_handling"]["circuit_breaker"]["failure_threshold"] = 10_000


@dataclass
class Account:
    """What the log says that attempts cost; by call, and which attempts' costs it does not know."""

    usd: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    known: set[Attempt] = field(default_factory=set)
    unknown: dict[Attempt, str] = field(default_factory=dict)
    """With how it ended."""
    died: int = 0
    late: int = 0
    reconciled: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    cached: int = 0
    calls: int = 0

    @property
    def open(self) -> set[Attempt]:
        return self.unknown.keys() - self.known

    def take(self, name: list[str], fact: Mapping[str, Any]) -> None:
        run, call = fact["run"]["run_id"], f"{name[1]}.{name[2]}"
        match name[3:]:
            case ["settled"]:
                self.calls += 1
                self.cached += fact["cached"]
                self._settled(run, call, fact)
            case ["late"]:
                self.late += 1
                self._cost(run, call, fact["cost_usd"], fact["attempts"])
                self.unknown.update({(run, call, one["attempt"]): one["code"] for one in fact["unknown"]})
            case ["attempt", number, "reconciled"]:
                self.reconciled[fact["by"] if fact["found"] else "never arrived"] += 1
                self._cost(run, call, fact["cost_usd"], [int(number)])

    def _settled(self, run: str, call: str, fact: Mapping[str, Any]) -> None:
        left = fact["cost_usd"]
        for one in fact["failed"]:
            if one["cost_known"]:
                self._cost(run, call, one["cost_usd"], [one["attempt"]])
            else:
                assert one["cost_usd"] == 0
                self.unknown[run, call, one["attempt"]] = one["fault"]["code"]
            left -= one["cost_usd"]
        for one in fact["unknown"]:
            self.died += one["code"] == "unknown"
            self.unknown[run, call, one["attempt"]] = one["code"]
        if fact["outcome"] == "answered" and not fact["cached"]:
            self._cost(run, call, left, [fact["attempts"]])
            left = 0
        assert abs(left) < EXACT_USD, fact

    def _cost(self, run: str, call: str, usd: float, attempts: list[int]) -> None:
        self.usd[run, call] += usd
        for number in attempts:
            assert (run, call, number) not in self.known, "an attempt's cost is booked twice"
            self.known.add((run, call, number))


async def _account(system: System) -> Account:
    """Read the whole log."""
    bus, found, seq = await open_bus(system.client), Account(), 0
    while page := await bus.jetstream.direct_page(EVENTS, "segue.event.>", after=seq, limit=500):
        seq = page[-1].seq
        for stored in page:
            name = stored.subject.split(".")[4:]
            if name[0] == "call" and name[-1] in ("settled", "late", "reconciled"):
                found.take(name, json.loads(await bus.payloads.unpack(stored.data, stored.headers)))
    return found


def _by_attempt(ledger: list[dict[str, Any]]) -> dict[Attempt, float]:
    found: dict[Attempt, float] = defaultdict(float)
    for entry in ledger:
        assert entry["outcome"] != "open", entry
        found[entry["run"], entry["call"], int(entry["attempt"])] += entry["cost_usd"]
    return found


async def _listed(system: System) -> set[Attempt]:
    """Return what `GET /unknown-attempts` says, page by page."""
    found: set[Attempt] = set()
    cursor = ""
    while True:
        answer = await system.http.get(f"{system.gateway.url}/unknown-attempts?limit=20{cursor}")
        assert answer.status_code == 200, answer.text
        body = answer.json()
        found |= {(one["run_id"], one["call"], one["attempt"]) for one in body["attempts"]}
        if body["next"] is None:
            return found
        cursor = f"&cursor={body['next']}"


def _workflow(number: int) -> dict[str, Any]:
    """Three tasks: two streamed side by side, one after them; every fourth workflow asks what others have asked."""
    same = number % 4 == 0
    told, cache = ("the usual", {"cache": True}) if same else (f"number {number}", {})
    hurry = {"timeout_s": 2.5, "on_error": "continue"} if number % 3 == 1 else {}
    words = "hurry" if hurry else "calmly"
    tasks: list[dict[str, Any]] = [
        {"model": "medium_ai", "prompt": f"One of {told}.", "output_variable": "one", "config": cache},
        {"model": "fast_ai", "prompt": f"Two of {told}, {words}.", "output_variable": "two", "config": cache, **hurry},
        {"model": "medium_ai", "prompt": f"Join {{one}}, {{two}} ({number}).", "output_variable": "both"},
    ]
    return {"workflow": [{"type": "graph", "tasks": tasks}]}


async def _ask(system: System, number: int, chance: random.Random) -> int:
    """Ask one thing, whatever comes of it; returns the HTTP status."""
    await asyncio.sleep(chance.random() * CALLS / 40)
    key = {"Idempotency-Key": f"money {number}"}
    if number % 5 == 0:
        body = {"message": f"What is {number} plus {number}?"}
        answer = await system.post("/chat", body, **key)
    elif number % 7 == 0:
        began = await system.post("/workflow?wait=false", _workflow(number), **key)
        assert began.status_code == 202, began.text
        await asyncio.sleep(chance.random() * 0.4)
        answer = await system.post(f"/runs/{began.json()['run_id']}/cancel", {})
    else:
        answer = await system.post("/workflow", _workflow(number), **key)
    return answer.status_code


async def _kill_now_and_then(system: System, chance: random.Random) -> int:
    """Kill executors at work, and let one stand still past its ack wait. Returns how many died."""
    died = 0
    try:
        while True:
            await asyncio.sleep(0.9)
            victim = chance.choice(system.running("executor"))
            if died % 4 == 2:
                os.kill(victim.pid, signal.SIGSTOP)
                try:
                    await asyncio.sleep(2.4)
                finally:
                    os.kill(victim.pid, signal.SIGCONT)
            victim = chance.choice(system.running("executor"))
            victim.kill()
            died += 1
            system.start("executor")
    except asyncio.CancelledError:
        return died


def _requests() -> Iterator[int]:
    """Return numbers of things to ask, until they come to enough calls."""
    calls, number = 0, 0
    while calls < CALLS:
        number += 1
        calls += 2 if number % 5 == 0 else 3
        yield number


@pytest.mark.timeout(240 + CALLS // 5)
async def test_every_cent_is_accounted_for(tmp_path: Path) -> None:
    """Faults of all kinds, executors killed at work, calls cancelled, cached, cut: call by call both accounts agree.

    First for all attempts whose outcome is known, the others being listed; in the end for all, with nothing unknown.
    """
    chance = random.Random(11)
    async with System(tmp_path, copies={"executor": 3}, profile="fast", configure=_configure) as system:
        await system.http.post(f"{system.simulator.url}/__sim/profile", json=PROFILE)
        await system.faults(*({**fault, "times": "forever"} for fault in FAULTS))
        budget = {"limits": {"usd_per_month": 1_000, "tokens_per_day": 10**12}}
        wanted = await system.http.put(f"{system.gateway.url}/admin/tenants/default", json=budget)
        assert wanted.status_code in (200, 201), wanted.text
        month = datetime.now(UTC).month
        killing = asyncio.create_task(_kill_now_and_then(system, chance))
        numbers = list(_requests())
        statuses = await asyncio.gather(*(_ask(system, number, chance) for number in numbers))
        killing.cancel()
        killed = await killing
        await eventually(lambda: _idle(system), within_s=30 + CALLS / 20)

        await _all_accounted_for(system, within_s=20)  # one that only a question watches over is looked at after 5 s
        after = await _listed_as_it_is(system)
        theirs = _by_attempt(await system.ledger())
        for call in after.usd.keys() - {(run, call) for run, call, _ in after.open}:
            charged = sum(usd for (run, name, _), usd in theirs.items() if (run, name) == call)
            assert after.usd[call] == pytest.approx(charged, abs=EXACT_USD), call
        held_back = sum(usd for attempt, usd in theirs.items() if attempt in after.open)
        assert sum(after.usd.values()) + held_back == pytest.approx(sum(theirs.values()), abs=EXACT_USD)

        await eventually(lambda: _nothing_unknown(system), within_s=60)
        account, ledger = await _account(system), await system.ledger()
        theirs = _by_attempt(ledger)
        _agree(account, theirs)
        await _told_by_the_api(system, theirs)
        if datetime.now(UTC).month == month:
            await eventually(lambda: _in_budget(system, theirs))
        print(
            f"\n{len(numbers)} requests ({sum(status == 200 for status in statuses)} x 200), {account.calls} calls"
            f" ({account.cached} cached), {len(ledger)} provider requests, {killed} executors killed,"
            f" {account.died} attempts died with them, {len(account.unknown)} of unknown cost at first,"
            f" reconciled {dict(account.reconciled)}, {account.late} late;"
            f" {sum(account.usd.values()):.9f} USD here, {sum(theirs.values()):.9f} USD there"
        )
        assert account.died > 0
        assert account.cached > 0
        assert {"provider", "never arrived"} & account.reconciled.keys()


async def _all_accounted_for(system: System, within_s: float) -> None:
    """Wait until every request that the provider had is in the log's account, its cost known or not."""
    until = time.monotonic() + within_s
    while True:
        account = await _account(system)
        forgotten = _by_attempt(await system.ledger()).keys() - account.known - account.open
        if not forgotten:
            return
        assert time.monotonic() < until, await _about(system, forgotten)
        await asyncio.sleep(0.2)


async def _listed_as_it_is(system: System) -> Account:
    """Wait until what is listed is what nobody knows at that moment, and return the account of then."""
    account = Account()

    async def agreed() -> bool:
        nonlocal account
        before = await _account(system)
        listed = await _listed(system)  # by the history, which is waited for no longer than a second
        account = await _account(system)
        return account.open <= listed <= before.open

    await eventually(agreed)
    return account


async def _about(system: System, attempts: set[Attempt]) -> str:
    """Return what the log and the provider's ledger have of some attempts' calls."""
    told = []
    for run, call in {(run, call) for run, call, _ in attempts}:
        facts = await system.facts(run)
        told += [f"{run} {name}: {json.dumps(fact)}" for name, fact in facts.items() if f"call.{call}." in name]
        told += [json.dumps(one) for one in await system.ledger() if (one["run"], one["call"]) == (run, call)]
    return "\n".join(told)


async def _idle(system: System) -> bool:
    """No call waits or is worked on, and no workflow; questions about attempts may."""
    jetstream = system.client.jetstream()
    for stream, pattern in (
        ("CALLS", "segue.call.>"),
        ("CALLS", "segue.wait.>"),
        ("WORKFLOWS", ">"),
        ("FINISHES", ">"),
    ):
        info = await jetstream.stream_info(stream, subjects_filter=pattern)
        if info.state.subjects:
            return False
    return True


async def _nothing_unknown(system: System) -> bool:
    info = await system.client.jetstream().stream_info("CALLS")
    return info.state.messages == 0 and not await _listed(system)


async def _in_budget(system: System, theirs: Mapping[Attempt, float]) -> bool:
    """Whether the tenant's budget says what the provider does; attempts count whole nano-dollars.

    What an executor held that died before its claim is still held: it comes back after the run's deadline.
    """
    used = (await system.http.get(f"{system.gateway.url}/admin/tenants/default")).json()["used"]
    return bool(abs(used["usd_this_month"] - sum(theirs.values())) <= len(theirs) * 1e-9)


def _agree(account: Account, theirs: Mapping[Attempt, float]) -> None:
    """Both accounts agree, call by call and in all, and nothing is unknown."""
    assert not account.open, {attempt: account.unknown[attempt] for attempt in account.open}
    assert theirs.keys() <= account.known
    charged: dict[tuple[str, str], float] = defaultdict(float)
    for (run, call, _), usd in theirs.items():
        charged[run, call] += usd
    for key in {*charged, *account.usd}:
        assert account.usd.get(key, 0.0) == pytest.approx(charged[key], abs=EXACT_USD), key
    assert sum(account.usd.values()) == pytest.approx(sum(theirs.values()), abs=EXACT_USD)


async def _told_by_the_api(system: System, theirs: Mapping[Attempt, float]) -> None:
    """Lists, sums and single runs say the same as the provider's account."""

    async def get(path: str) -> dict[str, Any]:
        answer: httpx.Response = await system.http.get(system.gateway.url + path)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    total = (await get("/usage?by=model"))["total"]
    assert total["cost_usd"] == pytest.approx(sum(theirs.values()), abs=EXACT_USD)
    assert (total["cost_known"], total["unknown_costs"]) == (True, 0)
    unknown = await get("/unknown-attempts")
    assert (unknown["attempts"], unknown["total"], unknown["reserved_usd"]) == ([], 0, 0)
    by_run: dict[str, float] = defaultdict(float)
    for (run, _, _), usd in theirs.items():
        by_run[run] += usd
    cursor, seen = "", 0
    while True:
        page = await get(f"/runs?limit=200{cursor}")
        for line in page["runs"]:
            seen += 1
            assert line["cost_usd"] == pytest.approx(by_run[line["run_id"]], abs=EXACT_USD), line
            assert line["cost_known"]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert seen >= len(by_run)
    for run_id in list(by_run)[:40]:
        ledger = (await get(f"/runs/{run_id}"))["ledger"]
        assert ledger["cost_usd"] == pytest.approx(by_run[run_id], abs=EXACT_USD)
        assert (ledger["cost_known"], ledger["unknown_attempts"], ledger["reserved_usd"]) == (True, 0, 0)
