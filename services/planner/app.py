"""The only place of the planner that constructs things."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

from services.planner.advance import Bounds
from services.planner.dispatch import Dispatch
from services.planner.handlers import Flow, Planner
from services.planner.planning import Offer, opening, schema
from services.planner.plans import Plans
from services.planner.runner import Runner
from services.planner.schedules import Scheduling
from services.planner.steering import Steering
from services.planner.tasks import Cast, Persona
from shared.bus.connection import Bus
from shared.config import Configuration
from shared.config.environment import Environment
from shared.config.providers import lane
from shared.contracts.ids import Category, Lane
from shared.conversation import user_message
from shared.pool import pool
from shared.registry.following import LiveModels
from shared.registry.schedules import Schedules
from shared.registry.templates import TemplateBook
from shared.service import Service, Work, run
from shared.topology import (
    PLANNER,
    PLANNER_APPROVALS,
    PLANNER_BEGIN,
    PLANNER_CONTROLS,
    PLANNER_DUE,
    PLANNER_SCHEDULES,
    PLANNER_SETTLED,
)
from shared.workflows.validation import Catalogue

NAME = "planner"
PORT = 9102
PLACES = 128
"""Runs that are being planned at once: each mostly waits for the master AI."""
SETTLED_PLACES = 64
BEGIN_PLACES = 12
"""For runs that wait for a place: they begin one at a time, but a pool of fewer would have to poll its sources."""
FEW_PLACES = 16
"""For what people want, and for times that are over."""

MASTER_PROMPT = "master_ai"


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


def catalogue_of(configuration: Configuration) -> Catalogue:
    """Return what a workflow may name, but for templates."""
    limits = configuration.orchestration.limits
    return Catalogue(
        frozenset(configuration.ai_models),
        frozenset(configuration.prompt_addons),
        limits.max_tasks,
        limits.max_depth,
        limits.max_fan_out,
        limits.max_task_s,
    )


def cast_of(configuration: Configuration, flow: Flow) -> Cast:
    """Return who may be asked, and how."""
    limits = configuration.orchestration.limits
    return Cast(
        personas={
            role: Persona(prompt_of(configuration, role), Lane(lane(configuration, role)))
            for role in configuration.ai_models
        },
        addons=configuration.prompt_addons,
        bounds=Bounds(limits.max_fan_out, limits.max_cost_usd),
        expansion_prompt=str(opening("", flow.offer, (), user_message(""))[0].content).strip(),
        expansion_schema=schema(flow.offer),
    )


def build(environment: Environment, configuration: Configuration) -> Service:
    """Return the service, ready to be served."""

    flow = flow_of(configuration)

    async def assemble(bus: Bus) -> Work:
        def now() -> datetime:
            return datetime.now(UTC)

        book = TemplateBook(bus.registry, configuration.workflow_templates)
        catalogue = catalogue_of(configuration)

        async def catalogue_for(tenant: str, templates: frozenset[str]) -> Catalogue:
            there = dispatch.catalogue
            return replace(there, templates=await book.closure(tenant, templates)) if templates else there

        timeout_s = configuration.orchestration.default_timeout_s
        scheduling = Scheduling(bus, Schedules(bus), book, catalogue, timeout_s, now)
        keeping = asyncio.create_task(scheduling.keep())

        async def stop_keeping() -> None:
            keeping.cancel()

        dispatch = Dispatch(bus, cast_of(configuration, flow), catalogue, now)
        runner = Runner(bus, dispatch, Plans(bus))
        planner = Planner(bus=bus, flow=flow, runner=runner, catalogue_for=catalogue_for, now=now)

        def changed(now: Configuration) -> None:
            planner.flow = flow_of(now)
            dispatch.cast, dispatch.catalogue = cast_of(now, planner.flow), catalogue_of(now)
            scheduling.catalogue = dispatch.catalogue

        models = LiveModels(bus, configuration, changed)
        await models.start()
        steering = Steering(bus=bus, runner=runner)
        shares = configuration.queuing.shares
        asked = pool(bus, NAME, PLANNER, planner.asked, places=PLACES, shares=shares)
        begins = pool(bus, NAME, PLANNER_BEGIN, planner.begins, places=BEGIN_PLACES, shares=shares)
        settled = pool(bus, NAME, [PLANNER_SETTLED], steering.settled, places=SETTLED_PLACES)
        approvals = pool(bus, NAME, [PLANNER_APPROVALS], steering.decided, places=FEW_PLACES)
        controls = pool(bus, NAME, PLANNER_CONTROLS, steering.controlled, places=FEW_PLACES)
        due = pool(bus, NAME, [PLANNER_DUE], steering.overdue, places=FEW_PLACES)
        schedules = pool(bus, NAME, [PLANNER_SCHEDULES], scheduling.fired, places=FEW_PLACES)
        return Work(
            pulls=[asked, begins, settled, approvals, controls, due, schedules],
            feeds=[
                *PLANNER,
                *PLANNER_BEGIN,
                PLANNER_SETTLED,
                PLANNER_APPROVALS,
                *PLANNER_CONTROLS,
                PLANNER_DUE,
                PLANNER_SCHEDULES,
            ],
            close=[stop_keeping, models.stop],
        )

    return Service(NAME, environment.nats_url, assemble)


def main() -> None:
    """Run until SIGTERM."""
    run(NAME, PORT, build)
