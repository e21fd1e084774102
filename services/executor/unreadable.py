"""A command that cannot be read: its call is settled first, as far as it can be told which, so that its run goes on."""

from contextlib import suppress

from pydantic import ValidationError

from services.executor import settlement
from services.executor.taxonomy import UNREADABLE
from shared import subjects
from shared.bus.connection import Bus
from shared.contracts.events import RunAccepted
from shared.contracts.message import Run, Unreadable
from shared.unreadable import run_in


async def settle_unreadable(bus: Bus, subject: str, body: bytes, reason: str) -> None:
    """Settle the call that the subject names as failed; nothing when the subject or the run cannot be recognised."""
    named = subjects.call_of(subject)
    if named is None:
        return
    tenant, run_id, purpose, call = named
    run = await _run(bus, tenant, run_id, body)
    if run is None:
        return
    why = settlement.fault(UNREADABLE, f"the command for this call cannot be read: {reason}")
    with suppress(ValidationError):  # the subject's names are none of ours: nobody waits for them
        fact = settlement.unreadable(run, purpose, call, why)
        await bus.log.write(subjects.events(tenant, run_id).settled(fact.purpose, fact.call), fact)


async def _run(bus: Bus, tenant: str, run_id: str, body: bytes) -> Run | None:
    """Return the run as the log knows it, else as the command says, if that is the run of the subject."""
    try:
        accepted = await bus.log.read(subjects.events(tenant, run_id).accepted, RunAccepted)
    except Unreadable:
        accepted = None
    if accepted is not None:
        return accepted.run
    run = run_in(body)
    return run if run is not None and (run.tenant, run.run_id) == (tenant, run_id) else None
