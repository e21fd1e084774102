"""A client of Segue for Python programs: `Segue` waits, `AsyncSegue` awaits; the same methods, typed answers.

    with Segue("http://127.0.0.1:8000") as segue:
        print(segue.chat("Why is the sky blue?").response)

Every question is sent with an Idempotency-Key, so that it can be sent again after a broken connection and is still
answered once. It needs httpx and pydantic, and nothing else of Segue.
"""

from .answers import (
    Artifact,
    Begun,
    ChatAnswer,
    Model,
    Plan,
    Run,
    RunLine,
    Schedule,
    Session,
    Template,
    Usage,
    WorkflowAnswer,
)
from .awaiting import AsyncSegue
from .errors import (
    ApiError,
    Busy,
    ConnectionCut,
    Forbidden,
    Invalid,
    NotFound,
    RequestFailed,
    RunFailed,
    SegueError,
    Unauthorized,
    Unreachable,
    WrongAddress,
)
from .events import Event, EventReader
from .waiting import Segue

__all__ = [
    "ApiError",
    "Artifact",
    "AsyncSegue",
    "Begun",
    "Busy",
    "ChatAnswer",
    "ConnectionCut",
    "Event",
    "EventReader",
    "Forbidden",
    "Invalid",
    "Model",
    "NotFound",
    "Plan",
    "RequestFailed",
    "Run",
    "RunFailed",
    "RunLine",
    "Schedule",
    "Segue",
    "SegueError",
    "Session",
    "Template",
    "Unauthorized",
    "Unreachable",
    "Usage",
    "WorkflowAnswer",
    "WrongAddress",
]
