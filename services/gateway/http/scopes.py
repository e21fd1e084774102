"""What a route asks of a credential. Pure."""

from typing import Final

from shared.contracts.access import Scope

OPEN: Final = frozenset(
    {"/", "/health", "/healthz", "/readyz", "/metrics", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"}
)
"""For probes, scrapers and readers: nothing of anybody's is there."""
_ASKING: Final = ("/chat", "/ag-ui", "/ws", "/v1")
_OPERATING: Final = ("/admin", "/breakers", "/providers")
_LOOKING: Final = frozenset({"GET", "HEAD"})


def needed(method: str, path: str) -> Scope | None:
    """Return the scope that a request needs; None: nobody is asked who they are.

    A route that is new is looked at with `read` and changed with `workflows`, unless this says otherwise.
    """
    if path in OPEN and method in _LOOKING:
        return None
    if any(_under(path, prefix) for prefix in _OPERATING):
        return Scope.ADMIN
    if _under(path, "/models") and method not in _LOOKING:
        return Scope.ADMIN
    if any(_under(path, prefix) for prefix in _ASKING) or (_under(path, "/session") and method == "DELETE"):
        return Scope.CHAT
    return Scope.READ if method in _LOOKING else Scope.WORKFLOWS


def _under(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}/")
