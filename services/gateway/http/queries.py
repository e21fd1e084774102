"""Read what stands behind the question mark of a URL as a body would be read, and describe it."""

from typing import Any, TypeVar, get_origin

from pydantic import ValidationError
from starlette.requests import Request

from services.gateway.http.errors import Refusal
from services.gateway.http.models import Body
from shared.workflows.validation import Problem

B = TypeVar("B", bound=Body)


def queried(request: Request, kind: type[B]) -> B:
    """Return the query as what it should be, or refuse it with every problem: a misspelt filter filters nothing."""
    given: dict[str, Any] = {}
    problems = []
    for name, values in _by_name(request).items():
        field = kind.model_fields.get(name)
        if field is None:
            offered = ", ".join(kind.model_fields)
            problems.append(
                Problem(f"?{name}", "unknown_parameter", f"there is no parameter {name!r}; there are {offered}")
            )
        elif get_origin(field.annotation) is tuple:
            given[name] = tuple(part for value in values for part in value.split(",") if part)
        else:
            given[name] = values[-1]
    try:
        found = kind.model_validate(given)
    except ValidationError as error:
        told = error.errors(include_url=False, include_input=False, include_context=False)
        problems += [Problem(f"?{one['loc'][0]}", str(one["type"]), one["msg"]) for one in told]
    if problems:
        raise Refusal(422, tuple(problems))
    return found


def _by_name(request: Request) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        found.setdefault(name[:80], []).append(value)
    return found


def asks(kind: type[Body]) -> dict[str, Any]:
    """Return the description of a route's query parameters."""
    schema = kind.model_json_schema()
    parameters = []
    for name, described in schema["properties"].items():
        shape = {key: value for key, value in described.items() if key not in ("description", "title")}
        one = {"name": name, "in": "query", "required": False, "schema": shape}
        if "description" in described:
            one["description"] = described["description"]
        if shape.get("type") == "array":
            one |= {"style": "form", "explode": False}
        parameters.append(one)
    return {"parameters": parameters}
