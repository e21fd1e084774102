"""Let web pages of other hosts read our answers: none, unless the operator lists them. (https://fetch.spec.whatwg.org)"""

from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from services.gateway.origins import ANY, Origins

SENT: Final = (
    "authorization", "content-type", "idempotency-key", "if-match", "if-none-match", "last-event-id",
    "segue-callback-url", "x-api-key",
)  # fmt: skip
"""Headers that a page may send; OpenAI's clients send some of their own."""
OPENAI: Final = tuple(
    f"x-stainless-{name}"
    for name in (
        "arch",
        "async",
        "helper-method",
        "lang",
        "os",
        "package-version",
        "poll-helper",
        "retry-count",
        "runtime",
        "runtime-version",
        "timeout",
    )
)
READ: Final = ("ETag", "Idempotency-Replayed", "Location", "Retry-After", "X-Request-Id", "X-Segue-Simulated")
PREFLIGHT_S: Final = 600


def shared_with(app: ASGIApp, origins: Origins) -> ASGIApp:
    """Return the application, answering pages of the listed origins; as it is where there are none.

    A page has to show a key like anybody else: nothing of what a browser knows of its user (cookies) is looked at.
    """
    if not origins.listed:
        return app
    return CORSMiddleware(
        app,
        allow_origins=[ANY] if ANY in origins.listed else sorted(origins.listed),
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=[*SENT, *OPENAI],
        expose_headers=READ,
        max_age=PREFLIGHT_S,
    )
