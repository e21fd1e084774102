"""What to do with a message that cannot be read: its run ends first, if it can be told which, then it is buried."""

import json
from contextlib import suppress

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


async def end_run_of(bus: Bus, body: bytes, reason: str) -> None:
    """Have the run of an unreadable message ended with the reason, when the message names one."""
    run = run_in(body)
    if run is None:
        return
    fault = Fault(type="logical", code="unreadable_message", status=422, message=reason)
    await bus.log.send(subjects.finish(run), FinishRun(run=run, outcome="denied", fault=fault))
