"""What calls are sent to, and one batch of them, timed."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from bench.gateways.processes import Memory, cpu_s, memory

QUESTION = "What is the capital of France?"
SETTLES_S = 0.3
"""What a gateway does after its answer, such as writing its history, is part of what a call costs."""


@dataclass(frozen=True, slots=True)
class Target:
    """Somebody who answers a chat request over HTTP; `roots` are its processes, whose children are found."""

    name: str
    url: str
    body: Mapping[str, Any]
    roots: Sequence[int] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """A target's figures of one round; `model_calls` is what the fake provider saw for each call of ours."""

    p50_ms: float
    p95_ms: float
    calls_s: float
    cpu_ms: float
    model_calls: float
    memory: Memory


class Failed(Exception):
    """A target did not answer as it should; figures of refusals would be no figures."""

    def __init__(self, target: str, status: int, text: str) -> None:
        super().__init__(f"{target} answered {status}: {text[:300]}")
        self.target, self.status, self.text = target, status, text


def completion(model: str) -> dict[str, Any]:
    """Return the body of an OpenAI-compatible chat request."""
    return {"model": model, "messages": [{"role": "user", "content": QUESTION}]}


class Caller:
    """One client for all targets; knows the fake provider's own count of what it was asked."""

    def __init__(self, session: aiohttp.ClientSession, ledger_url: str) -> None:
        self._session, self._ledger_url = session, ledger_url

    async def batch(self, target: Target, calls: int, at_once: int) -> Batch:
        """Make that many calls, always `at_once` in flight. Raises `Failed`."""
        body, headers = json.dumps(target.body).encode(), {"content-type": "application/json", **target.headers}
        took_s: list[float] = []
        refused: list[Failed] = []
        left = iter(range(calls))

        async def worker() -> None:
            for _ in left:
                began = time.perf_counter()
                async with self._session.post(target.url, data=body, headers=headers) as answer:
                    text = await answer.text()
                took_s.append(time.perf_counter() - began)
                if answer.status != 200:
                    refused.append(Failed(target.name, answer.status, text))

        asked, cpu, began = await self._asked(), cpu_s(target.roots), time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(at_once)))
        wall_s = time.perf_counter() - began
        if refused:
            raise refused[0]
        await asyncio.sleep(SETTLES_S)
        return Batch(
            p50_ms=1000 * at(took_s, 0.50),
            p95_ms=1000 * at(took_s, 0.95),
            calls_s=calls / wall_s,
            cpu_ms=1000 * (cpu_s(target.roots) - cpu) / calls,
            model_calls=(await self._asked() - asked) / calls,
            memory=memory(target.roots),
        )

    async def _asked(self) -> int:
        async with self._session.get(self._ledger_url, params={"last": "0"}) as answer:
            ledger = await answer.json()
        return int(ledger["total"])


def at(values: Sequence[float], share: float) -> float:
    """Return a quantile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
