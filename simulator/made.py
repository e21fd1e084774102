"""An image or a video on its way: what a request asks for, what it costs, what its fault does instead."""

import time
from collections.abc import Mapping
from typing import Any, Final

from simulator.chat_request import CHARS_PER_TOKEN, ChatRequest, Kind
from simulator.faults import JobFails
from simulator.openrouter.turn import Turn
from simulator.prices import media_price_of
from simulator.simulation import Job

IMAGE_TOKENS: Final = 1_120
MOST_IMAGES: Final = 8
DEFAULT_SECONDS: Final = 8.0


def asked_for(kind: Kind, model: str, prompt: str, *, images: int = 0) -> ChatRequest:
    """Return a request for an image or a video, as faults and the ledger look at it."""
    return ChatRequest(
        model=model,
        fallbacks=(),
        kind=kind,
        system="",
        text=prompt,
        before_user=None,
        before_assistant=None,
        earlier_turns=0,
        images=images,
        stream=False,
        max_tokens=None,
        schema=None,
        prompt_tokens=-(-len(prompt) // CHARS_PER_TOKEN),
    )


def bill_images(turn: Turn, count: int) -> int:
    """Put images on the ledger; return how many tokens they are, 0 for a model that is paid by the image."""
    price, entry = media_price_of(turn.entry.model), turn.entry
    if price.million_tokens is None:
        entry.cost_usd = round(count * price.image, 12)
        return 0
    tokens = count * IMAGE_TOKENS
    prompt_usd = entry.prompt_tokens * turn.price.prompt / 1e6
    entry.completion_tokens = tokens
    entry.cost_usd = round(prompt_usd + tokens * price.million_tokens / 1e6, 12)
    return tokens


def begin_video(turn: Turn, name: str, settings: Mapping[str, Any]) -> Job:
    """Take a video on: billed at once, unless it comes to nothing."""
    price, simulation = media_price_of(turn.entry.model), turn.simulation
    wanted = settings.get("durationSeconds", settings.get("duration"))
    seconds = float(wanted) if isinstance(wanted, int | float) and wanted > 0 else DEFAULT_SECONDS
    fine = str(settings.get("resolution", "")).lower() == "4k"
    fails = turn.fault.how if isinstance(turn.fault, JobFails) else None
    cost = 0.0 if fails is not None else seconds * (price.fine_second if fine else price.second)
    job = Job(
        name,
        time.time() + simulation.profile.video_ms / 1000,
        turn.request.text,
        seconds,
        turn.chance,
        round(cost, 12),
        fails,
    )
    simulation.keep(job)
    turn.entry.cost_usd = job.cost_usd
    turn.settle("answered", 200)
    return job
