"""The only place of the executor that constructs things."""

import asyncio
import os
import random
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from faststream.nats import NatsMessage

from services.executor.artifacts import Artifacts
from services.executor.attempts import RULES, Policy, Rule
from services.executor.breaker import Settings
from services.executor.breakers import Breakers
from services.executor.budgets import Budgets
from services.executor.claims import STILL, Claims
from services.executor.concurrency import Places
from services.executor.deltas import Streams
from services.executor.handlers import Executor
from services.executor.jobs import Jobs
from services.executor.limits import Limit, Permits
from services.executor.providers import JobProvider, Provider
from services.executor.providers.google import Google
from services.executor.providers.inquiries import Generations
from services.executor.providers.openai_chat import OpenAiChat
from services.executor.providers.openrouter_media import OpenRouterMedia
from services.executor.reconciling import Reconciliation
from services.executor.roster import Roster
from services.executor.running import Running
from shared import subjects
from shared.access.records import Records
from shared.bus.connection import Bus
from shared.config import ConfigInvalid, Configuration, Problem
from shared.config.environment import Environment
from shared.config.providers import GOOGLE_AI, Route, routes
from shared.contracts.commands import CancelRun
from shared.contracts.ids import Lane
from shared.contracts.message import ErrorType
from shared.outward import Outward
from shared.pool import pool
from shared.prices import PriceBook
from shared.provision import windows_of
from shared.registry.following import LiveModels
from shared.service import Service, Work, run
from shared.topology import EXECUTOR, EXECUTOR_RECONCILE

NAME = "executor"
PORT = 9103
PLACES: Mapping[Lane, int] = {Lane.CONTROL: 64, Lane.TEXT: 128, Lane.IMAGE: 8, Lane.VIDEO: 4}
"""Calls at once, by lane; SEGUE_EXECUTOR_PLACES_<LANE> says otherwise."""
MOST_PLACES = 10_000
INQUIRIES = 8
"""Attempts of unknown cost that are asked after at once."""


def places(environ: Mapping[str, str]) -> dict[Lane, int]:
    """Return each lane's places. Raises `ConfigInvalid` naming every variable whose value cannot be used."""
    found, problems = dict(PLACES), list[Problem]()
    for lane in Lane:
        name = f"SEGUE_EXECUTOR_PLACES_{lane.name}"
        value = environ.get(name, "").strip()
        if value.isascii() and value.isdigit() and 1 <= int(value[:6]) <= MOST_PLACES:
            found[lane] = int(value)
        elif value:
            problems.append(Problem(name, repr(value), f"a number of calls at once from 1 to {MOST_PLACES}"))
    if problems:
        raise ConfigInvalid("environment", problems)
    return found


def policy(configuration: Configuration) -> Policy:
    """Return what the configuration says about retries."""
    errors = configuration.error_handling
    given: dict[ErrorType, Rule] = {
        kind: Rule(rule.max_retries, alternative_first=rule.strategy == "fallback", alert=rule.strategy in _ALERTING)
        for kind, rule in errors.error_types.items()
    }
    return Policy(
        rules={**RULES, **given},
        base_s=errors.retry_config.base_delay_ms / 1000,
        factor=errors.retry_config.factor,
        max_s=errors.retry_config.max_delay_ms / 1000,
        jitter=errors.retry_config.jitter,
        retryable=frozenset(errors.retry_config.retryable_statuses),
    )


_ALERTING = frozenset({"alert", "open_breaker"})


def limits(configuration: Configuration) -> dict[str, Limit]:
    """Return what the configuration says of how much providers may be asked."""
    return {
        name: Limit(name, windows_of(limit), limit.tokens_per_minute)
        for name, limit in configuration.rate_limiting.items()
    }


def places_of(
    configuration: Configuration, bus: Bus, executor: str, there: Mapping[str, Places] | None = None
) -> dict[str, Places]:
    """Return the places of every role that has a limit of its own; of those that are `there`, whose limit is the same
    stay as they are."""
    found = {}
    for role, model in configuration.ai_models.items():
        if (most := model.max_concurrency) is not None:
            old = (there or {}).get(role)
            found[role] = old if old is not None and old.most == most else Places(bus, role, most, executor)
    return found


class Providers:
    """One adapter for what a server makes, for the life of the process."""

    def __init__(self, outward: Outward | None = None) -> None:
        self._outward = outward or Outward()
        self._chat: dict[str, OpenAiChat] = {}
        self._google: dict[str, Google] = {}
        self._media: dict[str, OpenRouterMedia] = {}
        self.generations = Generations()

    def answering(self, route: Route) -> Provider:
        """Return who answers a route's calls at once."""
        if route.protocol == GOOGLE_AI:
            return self._google_at(route)
        if route.lane is Lane.IMAGE:
            return self._media_at(route)
        found = self._chat.get(route.base_url)
        if found is None:
            found = self._chat[route.base_url] = OpenAiChat()
        return found

    def taking_jobs(self, route: Route) -> JobProvider:
        """Return who takes on a route's jobs."""
        return self._google_at(route) if route.protocol == GOOGLE_AI else self._media_at(route)

    def _google_at(self, route: Route) -> Google:
        return self._google.setdefault(route.base_url, Google(self._outward))

    def _media_at(self, route: Route) -> OpenRouterMedia:
        return self._media.setdefault(route.base_url, OpenRouterMedia(self._outward))

    async def close(self) -> None:
        there: list[Provider | JobProvider] = [*self._chat.values(), *self._google.values(), *self._media.values()]
        for provider in there:
            await provider.close()
        await self.generations.close()
        await self._outward.close()


def build(environment: Environment, configuration: Configuration, sizes: Mapping[Lane, int] = PLACES) -> Service:
    """Return the service, ready to be served; `sizes`: places by lane."""
    running, streams = Running(), Streams()
    prices = PriceBook.read(environment.prices)

    async def assemble(bus: Bus) -> Work:
        outward = Outward(environment.allowed_networks)
        providers = Providers(outward)
        there = routes(configuration, environment)
        # The table takes a tenth of a second to read: not while calls wait.
        await asyncio.to_thread(lambda: [prices.price(route.priced_as, route.model) for route in there.values()])
        circuit = configuration.error_handling.circuit_breaker
        settings = Settings(circuit.failure_threshold, circuit.open_s, circuit.half_open_requests)
        claims = Claims(bus, running, lambda: datetime.now(UTC), prices)
        bus.on_reconnect.append(claims.reconnected)  # first: the others ask the bus, and claims are looked at meanwhile
        breakers = Breakers(bus, settings, lambda: datetime.now(UTC))
        await breakers.start()
        bus.on_reconnect.append(breakers.reconnected)
        roster = Roster(there, configuration.model_fallbacks, breakers, lambda: datetime.now(UTC))
        permits = Permits(bus, limits(configuration), configuration.queuing.shares)
        await permits.start()
        records = Records(bus)
        await records.start()
        budgets = Budgets(bus, records, prices)
        reconciliation = Reconciliation(
            bus, roster, providers.generations.for_route, claims, prices, lambda: datetime.now(UTC), budgets.correct
        )
        executor = Executor(
            bus=bus,
            roster=roster,
            policy=policy(configuration),
            provider=providers.answering,
            jobs=Jobs(bus, providers.taking_jobs, prices, lambda: datetime.now(UTC)),
            artifacts=Artifacts(
                bus,
                outward,
                timedelta(days=configuration.orchestration.artifact_retention_days),
            ),
            running=running,
            streams=streams,
            now=lambda: datetime.now(UTC),
            jitter=random.random,
            breakers=breakers,
            permits=permits,
            claims=claims,
            reconciliation=reconciliation,
            prices=prices,
            budgets=budgets,
            caches=configuration.orchestration.cache_s > 0,
            concurrency=places_of(configuration, bus, running.executor),
        )

        def changed(now: Configuration) -> None:
            roster.routes, roster.fallbacks = routes(now, environment), now.model_fallbacks
            executor.concurrency = places_of(now, bus, running.executor, executor.concurrency)

        models = LiveModels(bus, configuration, changed)
        await models.start()
        return Work(
            pulls=[
                pool(
                    bus, NAME, EXECUTOR[lane], executor.execute, places=sizes[lane], shares=configuration.queuing.shares
                )
                for lane in Lane
            ]
            + [pool(bus, NAME, [EXECUTOR_RECONCILE], reconciliation.reconcile, places=INQUIRIES)],
            feeds=[*(feed for lane in Lane for feed in EXECUTOR[lane]), EXECUTOR_RECONCILE],
            close=[providers.close, breakers.stop, models.stop],
        )

    service = Service(NAME, environment.nats_url, assemble)

    @service.broker.subscriber(subjects.cancel("*", "*"), title="cancelled", description="A run that is over.")
    async def cancelled(message: NatsMessage) -> None:
        tenant, run_id = subjects.cancelled(message.raw_message.subject)
        hint = CancelRun.decode(message.body)
        running.cancel(tenant, run_id, hint.reason, hint.call)

    @service.broker.subscriber(
        subjects.working(f"{running.executor}.*"), title="working", description="Whether a claim is still worked on."
    )
    async def working(message: NatsMessage) -> bytes:
        return STILL if running.works_on(subjects.claim_of(message.raw_message.subject)) else b"0"

    @service.broker.subscriber(
        subjects.sofar("*", "*", "*"),
        title="sofar",
        description="What a call's text is so far: who streams it answers, the others say nothing.",
        no_reply=True,
    )
    async def sofar(message: NatsMessage) -> None:
        asked = message.raw_message
        if asked.reply and (answer := streams.asked(asked.subject, asked.data)) is not None:
            await service.broker.connection.publish(asked.reply, answer)

    return service


def main() -> None:
    """Run until SIGTERM."""
    try:
        sizes = places(os.environ)
    except ConfigInvalid as invalid:
        sys.exit(f"{NAME} does not start: {invalid}")
    run(NAME, PORT, lambda environment, configuration: build(environment, configuration, sizes))
