"""What a run says while an OpenAI client follows it, and what comes out of that."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

from shared.contracts.events import AttemptStarted
from shared.contracts.ids import Category, Purpose
from shared.contracts.message import Run
from tests.gateway.backstage import Backstage, Command, ended


async def attempt(stage: Backstage, run: Run, number: int = 1) -> None:
    """Claim an attempt of the call that answers."""
    fact = AttemptStarted(
        run=run,
        call="answer",
        attempt=number,
        role="medium_ai",
        provider="openrouter",
        model="maker/medium_ai",
        claimed_by="x.y",
        started_at=datetime.now(UTC),
    )
    await stage.bus.log.write(stage.facts(run).attempt(Purpose.ANSWER, "answer", number), fact)


def speaking(*pieces: str, restarts: str | None = None, heard: asyncio.Event | None = None, **end: Any) -> Any:
    """Return a script that says its pieces; `restarts`: what a second attempt says instead, once they were heard."""

    async def script(stage: Backstage, command: Command) -> None:
        run = (await stage.accept(command)).run
        await stage.categorize(run, Category.M)
        await attempt(stage, run)
        said = ""
        for piece in pieces:
            await stage.token(run, "answer", attempt=1, offset=len(said), text=piece)
            said += piece
        if heard is not None:
            await asyncio.wait_for(heard.wait(), 10)
        if restarts is not None:
            await attempt(stage, run, 2)
            await stage.token(run, "answer", attempt=2, restart=True)
            await stage.token(run, "answer", attempt=2, offset=0, text=restarts)
            said = restarts
        await stage.client.flush()
        await stage.end(ended(run, **{"text": said, **end}))

    return script


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def content(told: list[Any]) -> str:
    chunks = [one for one in told if isinstance(one, dict) and one.get("choices")]
    return "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks)
