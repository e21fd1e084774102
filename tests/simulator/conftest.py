"""One simulator process for the session, reset before each test."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from simulator.testing import Simulator, running

MODEL = "meta-llama/llama-3.3-70b-instruct"
TICK_S = 0.002
"""The simulator's loop counts whole milliseconds: a wait may be that much shorter than asked for."""


@pytest.fixture(scope="session")
def simulator_address() -> Iterator[str]:
    with running(profile="zero", seed=1) as address:
        yield address


@pytest.fixture
async def sim(simulator_address: str) -> AsyncIterator[Simulator]:
    """The session's simulator as it was at its start."""
    async with Simulator(simulator_address) as simulator:
        await simulator.reset()
        yield simulator


@pytest.fixture
async def http(sim: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the provider's API."""
    async with httpx.AsyncClient(base_url=sim.url, timeout=20) as client:
        yield client


def asking(text: str = "What is the capital of France?", **fields: Any) -> dict[str, Any]:
    """Return the body of a chat request."""
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}


def said(answer: httpx.Response) -> str:
    """Return the text of a whole answer."""
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


def events(raw: str) -> list[str]:
    """Return the data of a stream's events, comments left out."""
    return [line.removeprefix("data: ") for line in raw.splitlines() if line.startswith("data: ")]
