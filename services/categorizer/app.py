"""The only place of the categorizer that constructs things."""

from datetime import UTC, datetime

from services.categorizer.calls import Persona
from services.categorizer.handlers import Categorizer
from services.categorizer.routing import Rules
from shared.bus.connection import Bus
from shared.config import Configuration
from shared.config.environment import Environment
from shared.contracts.ids import Category
from shared.contracts.message import ChatMessage
from shared.pool import pool
from shared.registry.following import LiveModels
from shared.service import Service, Work, run
from shared.topology import CATEGORIZER

NAME = "categorizer"
PORT = 9101
PLACES = 256
"""Requests that wait for their category at once: each only waits, so many are cheap."""


def personas(configuration: Configuration) -> dict[str, Persona]:
    """Return what the categorizer needs to know of every role."""
    found = {}
    for role, model in configuration.ai_models.items():
        prompt = configuration.base_ai_prompts.get(role)
        examples: list[ChatMessage] = []
        for example in prompt.examples if prompt is not None else ():
            examples.append(ChatMessage(role="user", content=example.user))
            examples.append(ChatMessage(role="assistant", content=example.assistant))
        found[role] = Persona(
            role=role,
            system_prompt=prompt.system_prompt if prompt is not None else "",
            examples=tuple(examples),
            window_tokens=model.context_tokens,
            max_tokens=model.config.max_tokens or 1_000,
            lane=model.makes,
        )
    return found


def rules(configuration: Configuration) -> Rules:
    """Return `request_flow` as the decisions take it."""
    flow = configuration.request_flow
    return Rules(
        role_of={letter: flow.categorization[letter].model for letter in Category},
        image_role=flow.image_detection.force_model if flow.image_detection.enabled else None,
        long_context_role=flow.context_limits.long_context_model,
        force_thinking_tokens=flow.context_limits.force_thinking_ai,
        force_long_context_tokens=flow.context_limits.force_gemini_pro,
        deny_tokens=flow.context_limits.deny_request,
    )


def build(environment: Environment, configuration: Configuration) -> Service:
    """Return the service, ready to be served."""

    async def assemble(bus: Bus) -> Work:
        categorizer = Categorizer(
            bus=bus,
            rules=rules(configuration),
            personas=personas(configuration),
            categorizer_role="categorizer_ai",
            now=lambda: datetime.now(UTC),
        )

        def changed(now: Configuration) -> None:
            categorizer.personas = personas(now)

        models = LiveModels(bus, configuration, changed)
        await models.start()
        shares = configuration.queuing.shares
        return Work(
            pulls=[pool(bus, NAME, CATEGORIZER, categorizer.submitted, places=PLACES, shares=shares)],
            feeds=CATEGORIZER,
            close=[models.stop],
        )

    return Service(NAME, environment.nats_url, assemble)


def main() -> None:
    """Run until SIGTERM."""
    run(NAME, PORT, build)
