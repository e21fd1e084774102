"""What every adapter says about itself in a request's head."""

from dataclasses import replace
from typing import TypeVar

from services.executor.providers import Asked, Failed
from services.executor.providers.failures import without
from shared.config.providers import Route

T = TypeVar("T")


def key_of(route: Route) -> str | None:
    """Return the key that a request is sent with."""
    return route.api_key.get_secret_value() if route.api_key is not None else None


def head(asked: Asked, route: Route, *, accept: str = "application/json, text/event-stream") -> dict[str, str]:
    """Return what every request with a JSON body says of itself, but for its key."""
    return {
        "content-type": "application/json",
        "accept": accept,
        "accept-encoding": "identity",
        "user-agent": "segue",
        **tags(asked, route),
    }


def bearing(route: Route) -> dict[str, str]:
    """Return the header with a route's key, as OpenAI's API has it."""
    return {"authorization": f"Bearer {key}"} if (key := key_of(route)) is not None else {}


def tags(asked: Asked, route: Route) -> dict[str, str]:
    """Return what tells a simulator which attempt this is; a real provider learns nothing about runs."""
    if not route.simulated:
        return {}
    return {
        "x-segue-run": asked.call.run.run_id,
        "x-segue-call": f"{asked.call.purpose}.{asked.call.call}",
        "x-segue-attempt": str(asked.number),
    }


def without_key(outcome: T, route: Route) -> T:
    """Return an outcome; of a failure that quotes the key, without it."""
    if isinstance(outcome, Failed):
        return replace(outcome, message=without(outcome.message, key_of(route)))
    return outcome
