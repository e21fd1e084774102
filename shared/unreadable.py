"""A message that cannot be dealt with: its run ends first, if it can be told which, then it is buried."""

import json
from contextlib import suppress
from typing import Literal

from pydantic import ValidationError

from shared import subjects
from shared.bus.connection import Bus
from shared.contracts.commands import FinishRun
from shared.contracts.message import Fault, Run


def run_in(body: bytes) -> Run | None:
    """Return the run that a message says it is about, even if nothing else of it can be read."""
    with suppress(ValueError, ValidationError, AttributeError):
        return Run.model_validate(json.loads(body).get("run"))
    return None


async def end_run_of(bus: Bus, body: bytes, reason: str, *, outcome: Literal["denied", "failed"]) -> None:
    """Have the run of such a message ended with the reason, when the message names one.

    `denied`: the message itself is wrong. `failed`: it could be read, and working on it failed for good.
    """
    run = run_in(body)
    if run is None:
        return
    if outcome == "denied":
        fault = Fault(type="logical", code="unreadable_message", status=422, message=reason)
    else:
        fault = Fault(type="fatal", code="buried", status=500, message=reason)
    await bus.log.send(subjects.finish(run), FinishRun(run=run, outcome=outcome, fault=fault))
