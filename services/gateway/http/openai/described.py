"""What the generated description says of the OpenAI routes. Errors have OpenAI's form here."""

from typing import Any, Final

from services.gateway.http.models import Body


class ErrorObject(Body):
    """What went wrong, in OpenAI's words."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None
    run_id: str | None = None


class ErrorAnswer(Body):
    """Every answer that is not a success."""

    error: ErrorObject


Answers = dict[int | str, dict[str, Any]]

EVENTS: Final[dict[str, Any]] = {"content": {"application/json": {}, "text/event-stream": {}}}
ERRORS: Final[Answers] = {status: {"model": ErrorAnswer} for status in (404, 503)}
ASKED: Final[Answers] = {
    status: {"model": ErrorAnswer} for status in (400, 404, 408, 409, 413, 415, 429, 502, 503, 504)
}
CALLBACK: Final = "Segue-Callback-Url"
CALLED_BACK: Final[dict[str, Any]] = {
    "parameters": [
        {
            "name": CALLBACK,
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": "The answer is POSTed there, signed, when the run has ended: docs/callbacks.md.",
        }
    ]
}


def at(name: str, said: str, *queries: tuple[str, str, str]) -> dict[str, Any]:
    """Return the description of a path's one parameter, and of its queries: name, type and what they are."""
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "description": said}
    ]
    parameters += [
        {"name": one, "in": "query", "required": False, "schema": {"type": kind}, "description": about}
        for one, kind, about in queries
    ]
    return {"parameters": parameters}
