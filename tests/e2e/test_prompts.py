"""Real requests that people wrote elsewhere, all at once: each answered exactly once."""

import asyncio
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.system import System

PROMPTS = Path(__file__).resolve().parents[3] / "shared" / "data" / "prompts.jsonl"
AT_ONCE = 20

needs_prompts = pytest.mark.skipif(
    not PROMPTS.exists(), reason="the collection of real requests is not beside the project"
)


@needs_prompts
async def test_every_real_request_is_answered_once(
    tmp_path: Path,
) -> None:
    """103 requests, 20 at a time, on three executors: every turn answered once, costs add up."""
    requests = [json.loads(line) for line in PROMPTS.read_text().splitlines()]
    assert len(requests) == 103
    async with System(tmp_path, profile="fast", copies={"executor": 3, "planner": 2}) as system:
        room = asyncio.Semaphore(AT_ONCE)
        answers: list[dict[str, Any]] = []

        async def converse(request: dict[str, Any]) -> None:
            session: dict[str, str] = {}
            async with room:
                for number, turn in enumerate(request["turns"]):
                    answer = await system.chat(turn, **session)
                    session = {"session_id": answer["session_id"]}
                    answers.append({**answer, "turn": number})

        await asyncio.gather(*(converse(request) for request in requests))
        turns = sum(len(request["turns"]) for request in requests)
        assert len(answers) == turns
        assert len({answer["run_id"] for answer in answers}) == turns
        categories = Counter(answer["category"] for answer in answers)
        cost = sum(answer["cost_usd"] for answer in answers)
        print(f"\n{turns} turns: {dict(categories)}, {cost:.6f} USD")
        ended = await system.client.jetstream().stream_info("EVENTS", subjects_filter="segue.event.*.*.ended")
        counts = ended.state.subjects or {}
        assert len(counts) == turns
        assert set(counts.values()) == {1}
        ledger = await system.ledger()
        asked: dict[str, float] = defaultdict(float)
        for entry in ledger:
            asked[entry["run"]] += entry["cost_usd"]
        assert asked.keys() == {answer["run_id"] for answer in answers}
        for answer in answers:
            # An executor that stood still left an attempt behind whose cost is found out later.
            if answer["cost_known"]:
                assert answer["cost_usd"] == pytest.approx(asked[answer["run_id"]], abs=1e-9)
        for answer in (one for one in answers if one["turn"] == 1):
            shown = await system.http.get(f"{system.gateway.url}/session/{answer['session_id']}")
            assert [message["role"] for message in shown.json()["messages"]] == ["user", "assistant"] * 2
