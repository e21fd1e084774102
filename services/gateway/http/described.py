"""The description of the API, with the answers that every route can give: nobody has to think of them for each."""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI

from services.gateway.http.scopes import OPEN

FAILURE: Final = {"$ref": "#/components/schemas/Failure"}
GUARDED: Final = {
    401: "No credential that counts: `WWW-Authenticate` and `detail` say what to send.",
    403: "The credential lacks the scope, or may not have this model asked.",
    429: "A limit of the key or the tenant is used up: come back after `Retry-After` seconds.",
}
ANYWHERE: Final = {503: "The bus is away, or something is full: come back after `Retry-After` seconds."}
OVER_BUDGET: Final = {402: "A budget in US dollars is used up: come back after `Retry-After` seconds."}
WITH_BODY: Final = {
    408: "The body did not come in time.",
    413: "The body is too large.",
    415: "The body is not announced as JSON.",
    422: "The body is not valid: every problem with its JSON path.",
}
WAITED_FOR: Final = frozenset({"402", "403", "409", "413", "422", "429", "502", "503", "504"})
"""Statuses of runs that did not succeed, and of requests that were refused before there was a run."""


def install(app: FastAPI) -> None:
    """Have the application describe itself whole."""
    plain = app.openapi

    def whole() -> dict[str, Any]:
        if app.openapi_schema is None:
            complete(plain())
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = whole  # type: ignore[method-assign]


def complete(described: dict[str, Any]) -> None:
    """Add to a description what its routes do not say themselves."""
    described.setdefault("components", {})["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a token (docs/security.md)."},
        "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    for path, operations in described["paths"].items():
        if path.startswith("/v1/"):
            continue  # errors have OpenAI's form there
        for operation in operations.values():
            _add(operation["responses"], ANYWHERE)
            if path not in OPEN:
                _add(operation["responses"], GUARDED)
                operation["security"] = [{"bearer": []}, {"key": []}]
            if "402" not in operation["responses"] and any(
                status in operation["responses"] for status in ("502", "504")
            ):
                _add(operation["responses"], OVER_BUDGET)
            if "requestBody" in operation:
                _add(operation["responses"], WITH_BODY)
            for status, response in operation["responses"].items():
                if status in WAITED_FOR:
                    _or_refused(response)


def _add(responses: dict[str, Any], answers: Mapping[int, str]) -> None:
    for status, said in answers.items():
        responses.setdefault(
            str(status), {"description": said, "content": {"application/json": {"schema": dict(FAILURE)}}}
        )


def _or_refused(response: dict[str, Any]) -> None:
    """Let an answer that is described as a run's failure be a refusal, too."""
    content = response.get("content", {}).get("application/json")
    if content is None:
        return
    schema = content.get("schema", {})
    if schema and schema != FAILURE and "anyOf" not in schema:
        content["schema"] = {"anyOf": [schema, dict(FAILURE)]}
