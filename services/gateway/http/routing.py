"""How our routes are served: the endpoint takes the request itself, so nothing is resolved for it."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response


class DirectRoute(APIRoute):
    """A route that is described like any other and called without FastAPI's dependency resolution.

    That takes about a fifth of the time of a small request. An endpoint takes the request and nothing else; what
    it needs of path and body it reads from there, and path parameters are described in `openapi_extra`.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return endpoint


def routes(tag: str) -> APIRouter:
    """Return a router of direct routes."""
    return APIRouter(tags=[tag], route_class=DirectRoute)
