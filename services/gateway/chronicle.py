"""Everything that the log has of one run, decoded: for showing it, never for deciding.

Of what is large the outline is read: a run of a thousand megabytes is shown as fast as any other.
"""

from dataclasses import dataclass, field

from shared import subjects
from shared.bus.connection import Bus
from shared.contracts.callbacks import CallbackSettled, DeliverCallback
from shared.contracts.events import (
    ApprovalAsked,
    ApprovalDecided,
    AttemptReconciled,
    AttemptStarted,
    CallSettled,
    CallWrittenOff,
    Progress,
    RunAccepted,
    RunCategorized,
    RunEnded,
    RunHeld,
    RunPlanned,
    TaskExpanded,
)
from shared.topology import EVENTS, FINISHES


@dataclass(slots=True)
class Chronicle:
    """The facts of a run, by what they are about. Calls are named `<purpose>.<call>`."""

    accepted: RunAccepted
    category: RunCategorized | None = None
    planned: RunPlanned | None = None
    ended: RunEnded | None = None
    attempts: dict[str, list[AttemptStarted]] = field(default_factory=dict)
    settled: dict[str, CallSettled] = field(default_factory=dict)
    late: dict[str, CallWrittenOff] = field(default_factory=dict)
    reconciled: dict[str, dict[int, AttemptReconciled]] = field(default_factory=dict)
    """By call, and by the attempt's number."""
    expanded: dict[str, TaskExpanded] = field(default_factory=dict)
    asked: dict[str, ApprovalAsked] = field(default_factory=dict)
    decided: dict[str, ApprovalDecided] = field(default_factory=dict)
    holds: list[RunHeld] = field(default_factory=list)
    callbacks: dict[int, CallbackSettled] = field(default_factory=dict)
    calling_back: DeliverCallback | None = None
    """The delivery that goes on, as the bus keeps it: due, or put back."""
    progress: Progress | None = None
    """The planner's record: there while a workflow runs."""


async def read_chronicle(bus: Bus, tenant: str, run_id: str) -> Chronicle | None:
    """Return what the log has of a run; None when it has nothing."""
    facts = subjects.events(tenant, run_id)
    first = await bus.jetstream.last(EVENTS, facts.accepted)
    if first is None:
        return None
    found = Chronicle(await bus.log.sketch(first, RunAccepted))
    decode = bus.log.sketch
    for stored in await bus.log.facts(tenant, run_id):
        match subjects.fact_of(stored.subject).split("."):
            case ["category"]:
                found.category = await decode(stored, RunCategorized)
            case ["plan"]:
                found.planned = await decode(stored, RunPlanned)
            case ["ended"]:
                found.ended = await decode(stored, RunEnded)
            case ["call", purpose, name, "settled"]:
                found.settled[f"{purpose}.{name}"] = await decode(stored, CallSettled)
            case ["call", purpose, name, "late"]:
                found.late[f"{purpose}.{name}"] = await decode(stored, CallWrittenOff)
            case ["call", purpose, name, "attempt", _]:
                found.attempts.setdefault(f"{purpose}.{name}", []).append(await decode(stored, AttemptStarted))
            case ["call", purpose, name, "attempt", number, "reconciled"]:
                of_call = found.reconciled.setdefault(f"{purpose}.{name}", {})
                of_call[int(number)] = await decode(stored, AttemptReconciled)
            case ["expanded", name]:
                found.expanded[name] = await decode(stored, TaskExpanded)
            case ["asked", name]:
                found.asked[name] = await decode(stored, ApprovalAsked)
            case ["approval", name]:
                found.decided[name] = await decode(stored, ApprovalDecided)
            case ["callback", number]:
                found.callbacks[int(number)] = await decode(stored, CallbackSettled)
            case ["hold", _]:
                found.holds.append(await decode(stored, RunHeld))
    if found.planned is not None and found.ended is None:
        found.progress, _ = await bus.runs.get(subjects.run_key(tenant, run_id), Progress)
    if found.accepted.callback is not None:
        for subject in (subjects.callback(tenant, run_id), subjects.callback_wait(tenant, run_id)):
            if (kept := await bus.jetstream.last(FINISHES, subject)) is not None:
                found.calling_back = await bus.log.decode(kept, DeliverCallback)
    return found
