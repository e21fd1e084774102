"""The only place of the finisher that constructs things."""

import asyncio
from datetime import UTC, datetime

from services.finisher.handlers import Finisher, Presenters
from shared.bus.connection import Bus
from shared.config import Configuration
from shared.config.environment import Environment
from shared.pool import pool
from shared.prices import Price, PriceBook
from shared.registry.following import LiveModels
from shared.service import Service, Work, run
from shared.topology import FINISHER, FINISHER_ANSWERS, FINISHER_CANCELS, FINISHER_DEADLINES

NAME = "finisher"
PORT = 9104
PLACES = 128
"""Workflows being ended at once: an orchestrated one waits for its presenting model."""
ANSWER_PLACES = 128

FINISHED_ROLE = "finished_task_ai"
FAILED_ROLE = "ai_workers_failed_ai"


def presenters(configuration: Configuration) -> Presenters:
    """Return the roles that speak at the end, with their prompts."""
    prompts = configuration.base_ai_prompts
    return Presenters(
        finished_role=FINISHED_ROLE,
        finished_prompt=prompts[FINISHED_ROLE].system_prompt if FINISHED_ROLE in prompts else "",
        finished_window_tokens=configuration.ai_models[FINISHED_ROLE].context_tokens,
        failed_role=FAILED_ROLE,
        failed_prompt=prompts[FAILED_ROLE].system_prompt if FAILED_ROLE in prompts else "",
    )


def build(environment: Environment, configuration: Configuration) -> Service:
    """Return the service, ready to be served."""

    prices = PriceBook.read(environment.prices)
    compared = configuration.orchestration.baseline_model

    def baseline() -> Price | None:
        return prices.price("openrouter", compared) if compared else None

    async def assemble(bus: Bus) -> Work:
        await asyncio.to_thread(baseline)  # the table takes a tenth of a second to read: not while runs wait
        finisher = Finisher(
            bus=bus, presenters=presenters(configuration), now=lambda: datetime.now(UTC), baseline=baseline
        )

        def changed(now: Configuration) -> None:
            finisher.presenters = presenters(now)

        models = LiveModels(bus, configuration, changed)
        await models.start()
        answers = pool(bus, NAME, [FINISHER_ANSWERS], finisher.answered, places=ANSWER_PLACES)
        finishes = pool(bus, NAME, FINISHER, finisher.finished, places=PLACES, shares=configuration.queuing.shares)
        deadlines = pool(bus, NAME, [FINISHER_DEADLINES], finisher.overdue, places=32)
        cancels = pool(bus, NAME, [FINISHER_CANCELS], finisher.cancelled, places=32)
        return Work(
            pulls=[answers, finishes, deadlines, cancels],
            feeds=[*FINISHER, FINISHER_ANSWERS, FINISHER_DEADLINES, FINISHER_CANCELS],
            close=[models.stop],
        )

    return Service(NAME, environment.nats_url, assemble)


def main() -> None:
    """Run until SIGTERM."""
    run(NAME, PORT, build)
