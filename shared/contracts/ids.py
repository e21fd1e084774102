"""Names of things: typed strings that are safe as subject tokens and as keys."""

import hashlib
import re
import secrets
from enum import StrEnum
from typing import Annotated

from pydantic import StringConstraints

TOKEN_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"

_TOKEN = re.compile(TOKEN_PATTERN.removesuffix("$"))

Token = Annotated[str, StringConstraints(pattern=TOKEN_PATTERN)]
RunId = Token
TenantId = Token
SessionId = Token
CallName = Token
"""Names a call within its run: `categorize`, `answer`, `plan-0`, or a task's `0-1` (queue and place)."""

DEFAULT_TENANT = "default"


def is_token(text: str) -> bool:
    """Whether a text can stand in a subject, and be an id or a name of ours."""
    return _TOKEN.fullmatch(text) is not None  # `$` would let a line break pass


class Priority(StrEnum):
    """How a request is served under load; the shares are `queuing.*PriorityRatio`."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Verb(StrEnum):
    """What can be wanted of a run that goes on."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    APPROVE = "approve"
    REJECT = "reject"


class Lane(StrEnum):
    """Which executors' places a call takes. Decisions have their own, so that they never queue behind answers."""

    CONTROL = "control"
    TEXT = "text"
    IMAGE = "image"
    VIDEO = "video"


class Purpose(StrEnum):
    """Who goes on when a call is settled. It is part of the subject of the call's events."""

    DECISION = "decision"
    """The service that asked for it and listens for it itself."""
    ANSWER = "answer"
    """The finisher: the call is the answer of an L or M request."""
    TASK = "task"
    """The planner: the call is a task of a workflow."""


class Category(StrEnum):
    """How a request is dealt with."""

    L = "L"
    M = "M"
    H = "H"


def new_run_id() -> RunId:
    """Return a fresh run id: 128 random bits, safe as a subject token."""
    return secrets.token_hex(16)


def new_session_id() -> SessionId:
    """Return a fresh session id, not guessable."""
    return secrets.token_hex(16)


def run_id_of_key(tenant: TenantId, idempotency_key: str) -> RunId:
    """Return the one run id that stands for `idempotency_key` of `tenant`: the same key is the same run."""
    digest = hashlib.sha256(f"{tenant}\x00{idempotency_key}".encode()).hexdigest()
    return f"k{digest[:31]}"
