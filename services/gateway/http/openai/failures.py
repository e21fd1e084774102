"""Errors in OpenAI's form, with the statuses that its clients make their exceptions of. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import to_json

from shared.contracts.events import RunEnded

PREFIX: Final = "/v1/"
FINAL: Final = {"x-should-retry": "false"}
"""To OpenAI's clients, which otherwise send again what ended with 409 or 5xx, and have it paid for again."""

_KINDS: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_KIND: Final = re.compile(r"\.(?:str|int|float|bool)(?=[.\[]|$)|\['[^']*[\[\]-][^']*'\]")
_CODES: Final = {
    401: "invalid_api_key",
    404: "not_found",
    413: "request_too_large",
    429: "rate_limit_exceeded",
    503: "overloaded",
}
_OF_THE_CALLER: Final = {
    "invalid_request": "invalid_request",
    "context_too_long": "context_length_exceeded",
    "content_policy": "content_policy_violation",
    "safety_filter": "content_filter",
    "refusal": "refusal",
    "image_unusable": "invalid_image",
    "artifact_gone": "invalid_image",
    "request_too_large": "request_too_large",
    "workflow_invalid": "workflow_invalid",
}
"""Faults that the same request meets again: by our code, OpenAI's."""


OURS: Final = frozenset({"budget_exceeded", "model_not_allowed"})
"""Faults whose status is for the caller: what they may, and how much."""


@dataclass(frozen=True, slots=True)
class Failing:
    """An error as it is answered."""

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    run_id: str | None = None
    final: bool = False

    @property
    def kind(self) -> str:
        return _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")

    @property
    def error(self) -> dict[str, Any]:
        """The object that every error has under `error`."""
        code = self.code or _CODES.get(self.status)
        found = {"message": self.message, "type": self.kind, "param": self.param, "code": code}
        return found if self.run_id is None else {**found, "run_id": self.run_id}

    def body(self) -> bytes:
        return to_json({"error": self.error})

    def headers(self) -> Mapping[str, str]:
        return FINAL if self.final else {}


def is_ours(path: str) -> bool:
    """Whether a path is answered in OpenAI's form, errors included."""
    return path.startswith(PREFIX)


def of_detail(
    status: int, detail: Any, run_id: str | None = None, *, code: str | None = None, final: bool = False
) -> Failing:
    """Return what is said elsewhere with a `detail`. What is not valid is 400 here, and names its first parameter.

    `code`: ours; what OpenAI's clients know by the status keeps their word for it. `final`: they need not try again.
    """
    if isinstance(detail, str):
        known = code if code in OURS else None
        final = final or status in (500, 504)
        return Failing(400 if status == 422 else status, detail, known, run_id=run_id, final=final)
    by_param = {_param(one["path"]): one["message"] for one in reversed(detail)}
    said = [f"{param}: {message}" if param else message for param, message in reversed(by_param.items())]
    first: dict[str, Any] = detail[0] if detail else {"path": "$", "code": None}
    param = _param(first["path"])
    named = {"unknown_model": "model_not_found"}.get(first["code"], first["code"])
    return Failing(400 if status == 422 else status, "; ".join(said[:20]), named, param or None, run_id)


def _param(path: str) -> str:
    """Return a parameter's path, without the kinds that it could have been of."""
    return _KIND.sub("", path.removeprefix("$")).removeprefix(".")


def of_run(ended: RunEnded) -> Failing:
    """Return the error that a run's end without success is. It is final: sent again it would be another run."""
    fault, run_id = ended.fault, ended.run.run_id
    said = fault.message if fault is not None else f"the run was {ended.outcome}"
    if ended.text and ended.outcome == "failed":
        said = f"{ended.text.rstrip()}\n\nThe fault: {said}"
    code = fault.code if fault is not None else ended.outcome
    if (theirs := _OF_THE_CALLER.get(code)) is not None:
        return Failing(400, said, theirs, "messages" if theirs == "context_length_exceeded" else None, run_id, True)
    if code in OURS and fault is not None and fault.status is not None:
        return Failing(fault.status, said, code, None, run_id, True)
    match ended.outcome:
        case "denied":
            status = fault.status if fault is not None and fault.status in range(400, 500) else 400
            return Failing(status or 400, said, code, None, run_id, True)
        case "cancelled":
            return Failing(409, said, "cancelled", None, run_id, True)
    return Failing(504 if code == "deadline" else 502, said, code, None, run_id, True)
