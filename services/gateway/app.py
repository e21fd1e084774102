"""The only place of the gateway that constructs things."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import monotonic

from fastapi import FastAPI
from pydantic import SecretStr
from starlette.types import ASGIApp

from services.gateway.admission import Admission
from services.gateway.bounds import Bounds
from services.gateway.callbacks import CallbackDoor
from services.gateway.door import Door
from services.gateway.draining import on_signal
from services.gateway.gateway import Gateway
from services.gateway.guard import Guard
from services.gateway.http import (
    admin,
    ag_ui,
    artifacts,
    breakers,
    callbacks,
    catalogue,
    chat,
    described,
    errors,
    history,
    lineage,
    model_registry,
    plan,
    probes,
    run_events,
    runs,
    schedules,
    sessions,
    socket,
    templates,
    unknown_attempts,
    workflows,
)
from services.gateway.http.access import Access
from services.gateway.http.body_cap import BodyCap
from services.gateway.http.cors import shared_with
from services.gateway.http.envelope import Envelope
from services.gateway.http.openai import chat as openai_chat
from services.gateway.http.openai import embeddings as openai_embeddings
from services.gateway.http.openai import responses as openai_responses
from services.gateway.http.patience import patient
from services.gateway.identification import Identification
from services.gateway.keeping import Keeping
from services.gateway.listings import Listings, OfferedModel
from services.gateway.origins import Origins
from services.gateway.pages import Pages
from services.gateway.runs import Runs
from services.gateway.tenure import Tenures
from services.gateway.waiting import Waiting
from shared import version
from shared.access.book import KeyBook
from shared.access.records import Records
from shared.bus.connection import Bus
from shared.config import ConfigInvalid, Configuration, load
from shared.config.environment import Environment
from shared.config.providers import routes
from shared.conversation import estimated_tokens
from shared.prices import PriceBook
from shared.registry.following import LiveModels
from shared.registry.models import ModelBook
from shared.registry.schedules import Schedules
from shared.registry.templates import TemplateBook
from shared.service import DRAIN_S, Service, Work, serve

NAME = "gateway"


@dataclass(frozen=True, slots=True)
class Offering:
    """What the listings come from: they are made anew when models change at run time."""

    configuration: Configuration
    environment: Environment


ANSWERED_BEFORE_END_S = 2.0
"""Whoever still waits this long before the server cuts connections is told so instead."""


def application(
    nats_url: str,
    listings: Listings,
    bounds: Bounds,
    *,
    offering: Offering | None = None,
    keeping: Keeping | None = None,
    prices: PriceBook | None = None,
    called_back: CallbackDoor | None = None,
    drain_s: float = DRAIN_S,
    identification: Identification | None = None,
    origins: Origins | None = None,
) -> ASGIApp:
    """Return the ASGI application. Its lifespan connects, serves and drains, in `drain_s` as the server does."""
    chosen, guard = identification or Identification(), Guard()
    waiting = Waiting(bounds.waiting, of_one=None if chosen.auth == "off" else bounds.waiting_of_one)

    async def assemble(bus: Bus) -> Work:
        runs = Runs(bus=bus, now=_now, admission=Admission(bus, _now))
        records = Records(bus)
        await records.start()
        guard.authenticator = chosen.authenticator(records, _now)
        tenures = Tenures(records, _now)
        await tenures.start()
        projector = keeping.projector(bus) if keeping is not None else None
        live = LiveModels(bus, offering.configuration) if offering is not None else None
        gateway = app.state.gateway = Gateway(
            bus=bus,
            runs=runs,
            waiting=waiting,
            tenures=tenures,
            listings=listings,
            models=ModelBook(bus.registry),
            live=live,
            catalogue=listings.catalogue(),
            prices=prices or PriceBook(),
            book=TemplateBook(bus.registry, listings.templates),
            schedules=Schedules(bus),
            keys=KeyBook(bus, chosen.secrets, _now),
            callbacks=called_back or CallbackDoor(),
            health=service.health,
            pages=Pages(bus),
            origins=origins or Origins(),
            projector=projector,
            started_at=monotonic(),
        )
        door = Door(bus.client, gateway, records)
        closing = [door.close, tenures.stop]
        if live is not None and offering is not None:
            live.changed = lambda now: gateway.offer(listings_of(now, offering.environment))
            await live.start()
            closing.append(live.stop)
        if projector is not None:
            await projector.start()
            closing.append(projector.stop)
        await door.open()
        return Work(close=closing)

    service = Service(NAME, nats_url, assemble)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()

        def drain() -> None:
            service.health.draining = True
            waiting.stop_at(loop.time() + drain_s - ANSWERED_BEFORE_END_S)

        await service.broker.connect()
        await service.start()
        try:
            with on_signal(drain):
                yield
        finally:
            await service.stop()
            await service.broker.stop()

    app = FastAPI(
        title=listings.name,
        version=listings.version,
        description="Durable AI orchestration over NATS: categorised, planned, executed and answered exactly once.",
        lifespan=lifespan,
    )
    errors.install(app)
    for part in (
        chat,
        ag_ui,
        workflows,
        plan,
        history,
        unknown_attempts,
        runs,
        lineage,
        run_events,
        callbacks,
        templates,
        schedules,
        breakers,
        model_registry,
        artifacts,
        sessions,
        socket,
        catalogue,
        admin,
        probes,
        openai_chat,
        openai_responses,
        openai_embeddings,
    ):
        app.router.routes.extend(part.router.routes)  # as they are: an included router is one more layer a request
    described.install(app)
    whole: ASGIApp = Envelope(Access(BodyCap(app, bounds.body_bytes), guard))
    return shared_with(whole, origins or Origins())


def _now() -> datetime:
    return datetime.now(UTC)


def listings_of(configuration: Configuration, environment: Environment) -> Listings:
    """Return what the configuration offers, by way of the providers that the environment gives.

    Keys are the executor's alone, so a key that is missing here says nothing.
    """
    held = SecretStr("held-by-the-executor")
    names = {name for provider in configuration.providers.values() for name in provider.api_key_env}
    environment = replace(
        environment,
        openrouter_api_key=environment.openrouter_api_key or held,
        google_ai_api_key=environment.google_ai_api_key or (held if environment.openai_base_url is None else None),
        variables={**dict.fromkeys(names, held.get_secret_value()), **environment.variables},
    )
    prompts = configuration.base_ai_prompts
    models = tuple(
        OfferedModel(
            name=role,
            provider=route.provider,
            model=route.model,
            purpose=configuration.ai_models[role].purpose,
            available=route.unavailable is None,
            simulated=route.simulated,
            lane=configuration.ai_models[role].makes,
            max_tokens=configuration.ai_models[role].config.max_tokens,
            instruction_tokens=estimated_tokens(prompts[role].system_prompt) if role in prompts else 0,
        )
        for role, route in routes(configuration, environment).items()
    )
    return Listings(
        name=configuration.system.name,
        version=version(),
        models=models,
        addons=tuple(configuration.prompt_addons),
        templates=configuration.workflow_templates,
        artifact_days=configuration.orchestration.artifact_retention_days,
        timeout_s=configuration.orchestration.default_timeout_s,
        limits=configuration.orchestration.limits,
    )


def main() -> None:
    """Run until SIGTERM, or say what is wrong with the environment or the configuration and exit with 1."""
    try:
        environment = Environment.read(os.environ)
        bounds = Bounds.read(os.environ)
        identification = Identification.read(environment)
        origins = Origins.read(os.environ)
        configuration = load().configuration
        prices = PriceBook.read(environment.prices)
        keeping = Keeping.read(environment, configuration.orchestration.state_retention_days)
    except ConfigInvalid as invalid:
        sys.exit(f"{NAME} does not start: {invalid}")
    app = application(
        environment.nats_url,
        listings_of(configuration, environment),
        bounds,
        offering=Offering(configuration, environment),
        keeping=keeping,
        prices=prices,
        identification=identification,
        origins=origins,
        called_back=CallbackDoor(environment.callback_secrets, environment.allowed_networks),
    )
    serve(
        app,
        service=NAME,
        host=environment.host,
        port=environment.port,
        log_level=environment.level(configuration.log_level),
        http=patient(bounds.connections),
    )
