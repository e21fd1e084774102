"""The only place of the planner that constructs things."""

from datetime import UTC, datetime

from services.planner.handlers import Flow, Planner
from services.planner.planning import Offer
from services.planner.tasks import Persona
from shared.bus.connection import Bus
from shared.config import Configuration
from shared.config.environment import Environment
from shared.config.providers import lane
from shared.contracts.ids import Category, Lane
from shared.pool import pool
from shared.service import Service, Work, run
from shared.topology import PLANNER, PLANNER_SETTLED
from shared.workflows.validation import Catalogue

NAME = "planner"
PORT = 9102
PLACES = 128
"""Runs that are being planned at once: each mostly waits for the master AI."""
SETTLED_PLACES = 64

MASTER_PROMPT = "master_ai"
MAX_TASKS = 500


def prompt_of(configuration: Configuration, role: str) -> str:
    """Return a role's base prompt, empty where it has none."""
    prompt = configuration.base_ai_prompts.get(role)
    return prompt.system_prompt if prompt is not None else ""


def flow_of(configuration: Configuration) -> Flow:
    """Return how orchestrated requests are dealt with."""
    orchestrated = configuration.request_flow.categorization[Category.H]
    master = orchestrated.model
    acknowledging = orchestrated.fast_response_model or "thinking_fast_response_ai"
    busy_elsewhere = {"categorizer_ai", "finished_task_ai", "ai_workers_failed_ai", acknowledging}
    offered = {
        role: model.purpose
        for role, model in configuration.ai_models.items()
        if role not in busy_elsewhere and lane(configuration, role) == Lane.TEXT
    }
    return Flow(
        master_role=master,
        master_prompt=prompt_of(configuration, MASTER_PROMPT) or prompt_of(configuration, master),
        acknowledge_role=acknowledging,
        acknowledge_prompt=prompt_of(configuration, acknowledging),
        answer_role=master,
        answer_prompt=prompt_of(configuration, master),
        answer_window_tokens=configuration.ai_models[master].context_tokens,
        answer_tokens=configuration.ai_models[master].config.max_tokens or 1_000,
        offer=Offer(offered, tuple(configuration.prompt_addons)),
    )


def build(environment: Environment, configuration: Configuration) -> Service:
    """Return the service, ready to be served."""

    async def assemble(bus: Bus) -> Work:
        planner = Planner(
            bus=bus,
            flow=flow_of(configuration),
            personas={
                role: Persona(prompt_of(configuration, role), Lane(lane(configuration, role)))
                for role in configuration.ai_models
            },
            addons=configuration.prompt_addons,
            catalogue=Catalogue(frozenset(configuration.ai_models), frozenset(configuration.prompt_addons), MAX_TASKS),
            now=lambda: datetime.now(UTC),
        )
        asked = pool(bus, NAME, PLANNER, planner.asked, places=PLACES, shares=configuration.queuing.shares)
        settled = pool(bus, NAME, [PLANNER_SETTLED], planner.settled, places=SETTLED_PLACES)
        return Work(pulls=[asked, settled], feeds=[*PLANNER, PLANNER_SETTLED])

    return Service(NAME, environment.nats_url, assemble)


def main() -> None:
    """Run until SIGTERM."""
    run(NAME, PORT, build)
