"""Every request that the client makes, as a value: what is sent, what the answer is, and whether it may be sent again.

Pure, and shared by the client that waits and the one that awaits.
"""

import json
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ValidationError

from .answers import Begun, ChatAnswer, Model, Plan, Run, RunLine, Schedule, Session, Template, Usage, WorkflowAnswer
from .errors import ApiError, error_of

T = TypeVar("T")
B = TypeVar("B", bound=BaseModel)

SHOWN_CHARS: Final = 500
RETRIED: Final = frozenset({408, 429, 502, 503, 504})
"""Statuses that say: later. Of a question under a key, sending it again finds the same run."""
LEAST_WAIT_S: Final = 0.25
MOST_WAIT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request."""

    method: str
    path: str
    read: Callable[[Any], T]
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    """Sending it twice does what sending it once does."""
    also: int = 200
    """A second status that is a success."""


def pause_s(error: ApiError | None, attempt: int, chance: float) -> float | None:
    """Return how long to wait before a request is sent again; None: its error is final.

    `error` None: the connection failed. `attempt`: how often it was sent. `chance`: 0 to 1, so that many who were
    refused at once do not come back at once.
    """
    if error is not None and error.status not in RETRIED:
        return None
    backoff_s = LEAST_WAIT_S * 2.0 ** min(attempt - 1, 8)
    asked_s = error.retry_after_s if error is not None and error.retry_after_s is not None else 0.0
    return min(MOST_WAIT_S, max(asked_s, backoff_s) * (1 + chance / 4))


def taken(call: Call[T], status: int, content: bytes, headers: Mapping[str, str]) -> T:
    """Return what an answer says. Raises `ApiError` for one that is no success, or that is not Segue's."""
    if status == 204:
        return call.read({})
    try:
        body = json.loads(content)
    except ValueError:
        text = content[:SHOWN_CHARS].decode("utf-8", "replace")
        raise ApiError(status, f"HTTP {status}: {text}", headers) from None
    if status not in (200, call.also):
        raise error_of(status, body, headers)
    if not isinstance(body, dict):
        raise ApiError(status, f"this is no Segue: it answers {str(body)[:SHOWN_CHARS]}")
    try:
        return call.read(body)
    except (ValidationError, KeyError) as error:
        raise ApiError(status, f"this is no answer that this client knows ({error})") from error


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None and value != ()}


def keyed(key: str | None) -> dict[str, str]:
    """Return the header that makes a question one question, however often it is sent."""
    return {"Idempotency-Key": key or f"segue-client-{secrets.token_hex(16)}"}


def chat_body(
    message: str,
    session_id: str | None,
    images: Sequence[str],
    context_tokens: int | None,
    priority: str | None,
    timeout_s: float | None,
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the body of a question."""
    fields = _given(
        session_id=session_id,
        images=list(images) or None,
        context_tokens=context_tokens,
        priority=priority,
        timeout_s=timeout_s,
    )
    return {"message": message, **fields, **extra}


def chat(body: Mapping[str, Any], key: str | None) -> Call[ChatAnswer]:
    return Call("POST", "/chat", ChatAnswer.model_validate, body, keyed(key))


def start_chat(body: Mapping[str, Any], key: str | None) -> Call[Begun]:
    return Call("POST", "/chat", Begun.model_validate, {**body, "async": True}, keyed(key), also=202)


def workflow_body(queues: Sequence[Any], variables: Mapping[str, Any] | None, callback_url: str | None) -> Any:
    """Return the body of a workflow."""
    return {"workflow": list(queues), "variables": dict(variables or {}), **_given(callback_url=callback_url)}


def workflow(body: Mapping[str, Any], key: str | None) -> Call[WorkflowAnswer]:
    return Call("POST", "/workflow", WorkflowAnswer.model_validate, body, keyed(key))


def start_workflow(body: Mapping[str, Any], key: str | None) -> Call[Begun]:
    return Call("POST", "/workflow?wait=false", Begun.model_validate, body, keyed(key), also=202)


def template(
    name: str, variables: Mapping[str, Any], callback_url: str | None, key: str | None
) -> Call[WorkflowAnswer]:
    path = f"/template/{quoted(name)}" + query({"callback_url": callback_url})
    return Call("POST", path, WorkflowAnswer.model_validate, dict(variables), keyed(key))


def start_template(name: str, variables: Mapping[str, Any], callback_url: str | None, key: str | None) -> Call[Begun]:
    path = f"/template/{quoted(name)}" + query({"wait": "false", "callback_url": callback_url})
    return Call("POST", path, Begun.model_validate, dict(variables), keyed(key), also=202)


def plan(body: Mapping[str, Any], key: str | None) -> Call[Plan]:
    return Call("POST", "/plan", Plan.model_validate, body, keyed(key))


def run(run_id: str) -> Call[Run]:
    return Call("GET", f"/runs/{quoted(run_id)}", Run.model_validate)


def output(run_id: str, name: str) -> str:
    return f"/runs/{quoted(run_id)}/outputs/{quoted(name)}"


def runs(wanted: Mapping[str, Any], cursor: str | None) -> Call[tuple[list[RunLine], str | None]]:
    def read(body: Any) -> tuple[list[RunLine], str | None]:
        return _each(RunLine, body["runs"]), body["next"]

    return Call("GET", "/runs" + query({**wanted, "cursor": cursor}), read)


def control(run_id: str, verb: str, reason: str | None = None, task: str | None = None) -> Call[dict[str, Any]]:
    body = _given(reason=reason, task=task)
    # Cancelled twice is cancelled; of the others the second is refused although the first has counted.
    return Call("POST", f"/runs/{quoted(run_id)}/{verb}", dict, body, repeatable=verb == "cancel", also=202)


def again(run_id: str, verb: str, body: Mapping[str, Any], key: str | None) -> Call[Begun]:
    path = f"/runs/{quoted(run_id)}/{verb}?wait=false"
    return Call("POST", path, Begun.model_validate, body, keyed(key), also=202)


def session(session_id: str) -> Call[Session]:
    return Call("GET", f"/session/{quoted(session_id)}", Session.model_validate)


def delete_session(session_id: str) -> Call[dict[str, Any]]:
    return Call("DELETE", f"/session/{quoted(session_id)}", dict)


def models() -> Call[list[Model]]:
    return Call("GET", "/models", lambda body: _each(Model, body["models"]))


def templates() -> Call[list[Template]]:
    return Call("GET", "/templates", lambda body: _each(Template, body["templates"]))


def schedules() -> Call[list[Schedule]]:
    return Call("GET", "/schedules", lambda body: _each(Schedule, body["schedules"]))


def schedule(name: str) -> Call[Schedule]:
    return Call("GET", f"/schedules/{quoted(name)}", Schedule.model_validate)


def put_schedule(
    name: str, template: str, variables: Mapping[str, Any] | None, fields: Mapping[str, Any]
) -> Call[Schedule]:
    body = {"template": template, "variables": dict(variables or {}), **fields}
    return Call("PUT", f"/schedules/{quoted(name)}", Schedule.model_validate, body, also=201)


def delete_schedule(name: str) -> Call[dict[str, Any]]:
    return Call("DELETE", f"/schedules/{quoted(name)}", dict)


def usage(by: Iterable[str], since: str | None, until: str | None) -> Call[Usage]:
    return Call("GET", "/usage" + query({"by": ",".join(by), "since": since, "until": until}), Usage.model_validate)


def health() -> Call[dict[str, Any]]:
    return Call("GET", "/health", dict, also=503)


def artifact_path(artifact: str) -> str:
    """Return the path of an artifact: it is named by its path or its id."""
    return artifact if artifact.startswith("/artifacts/") else f"/artifacts/{quoted(artifact)}"


def events_path(run_id: str) -> str:
    return f"/runs/{quoted(run_id)}/events"


def plain(method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Call[dict[str, Any]]:
    """Return a request that has no method of its own yet."""
    also = {"POST": 202, "PUT": 201}.get(method, 200)
    return Call(method, path, dict, body, headers or {}, repeatable=method != "POST", also=also)


def quoted(name: str) -> str:
    return quote(name, safe="")


def query(wanted: Mapping[str, Any]) -> str:
    """Return a query string of what is wanted; lists with commas between."""
    given = {
        name: ",".join(map(str, value)) if isinstance(value, list | tuple) else value
        for name, value in wanted.items()
        if value is not None
    }
    return f"?{urlencode(given)}" if given else ""


def _each(kind: type[B], items: Iterable[Any]) -> list[B]:
    return [kind.model_validate(item) for item in items]
