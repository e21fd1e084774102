"""The only place of the finisher that constructs things."""

import asyncio
from datetime import UTC, datetime
from time import monotonic

from services.finisher.callback import Policy
from services.finisher.callbacks import Callbacks
from services.finisher.handlers import Finisher, Presenters
from services.finisher.receivers import Receivers
from shared.bus.connection import Bus
from shared.config import Configuration
from shared.config.environment import Environment
from shared.outward import Outward
from shared.pool import pool
from shared.prices import Price, PriceBook
from shared.registry.following import LiveModels
from shared.service import Service, Work, run
from shared.topology import FINISHER, FINISHER_ANSWERS, FINISHER_CALLBACKS, FINISHER_CANCELS, FINISHER_DEADLINES

NAME = "finisher"
PORT = 9104
PLACES = 128
"""Workflows being ended at once: an orchestrated one waits for its presenting model."""
ANSWER_PLACES = 128
CALLBACK_PLACES = 64
"""POSTs at once; a slow receiver gets a few of them, see `receivers`."""

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
        outward = Outward(environment.allowed_networks)
        rules = configuration.callbacks
        callbacks = Callbacks(
            bus=bus,
            outward=outward,
            receivers=Receivers(monotonic),
            policy=Policy(rules.max_attempts, rules.first_retry_s, rules.max_retry_s, rules.give_up_s),
            secrets=environment.callback_secrets,
            timeout_s=rules.timeout_s,
            most_bytes=rules.max_body_bytes,
            now=lambda: datetime.now(UTC),
        )
        answers = pool(bus, NAME, [FINISHER_ANSWERS], finisher.answered, places=ANSWER_PLACES)
        finishes = pool(bus, NAME, FINISHER, finisher.finished, places=PLACES, shares=configuration.queuing.shares)
        deadlines = pool(bus, NAME, [FINISHER_DEADLINES], finisher.overdue, places=32)
        cancels = pool(bus, NAME, [FINISHER_CANCELS], finisher.cancelled, places=32)
        called_back = pool(bus, NAME, [FINISHER_CALLBACKS], callbacks.deliver, places=CALLBACK_PLACES)
        return Work(
            pulls=[answers, finishes, deadlines, cancels, called_back],
            feeds=[*FINISHER, FINISHER_ANSWERS, FINISHER_DEADLINES, FINISHER_CANCELS, FINISHER_CALLBACKS],
            close=[models.stop, outward.close],
        )

    return Service(NAME, environment.nats_url, assemble)


def main() -> None:
    """Run until SIGTERM."""
    run(NAME, PORT, build)
