"""Every kind of fact on the log by its subject behind the run: what is heard live under the same name."""

from collections.abc import Mapping
from typing import Final

from shared.contracts.callbacks import CallbackSettled
from shared.contracts.events import (
    ApprovalAsked,
    ApprovalDecided,
    AttemptReconciled,
    AttemptStarted,
    CallSettled,
    CallWrittenOff,
    JobSubmitted,
    RunAccepted,
    RunCategorized,
    RunEnded,
    RunHeld,
    RunPlanned,
    TaskExpanded,
)
from shared.contracts.message import Message

FACTS: Final[Mapping[str, type[Message]]] = {
    "accepted": RunAccepted,
    "category": RunCategorized,
    "plan": RunPlanned,
    "expanded.{task}": TaskExpanded,
    "asked.{task}": ApprovalAsked,
    "approval.{task}": ApprovalDecided,
    "hold.{number}": RunHeld,
    "call.{purpose}.{call}.attempt.{attempt}": AttemptStarted,
    "call.{purpose}.{call}.attempt.{attempt}.job": JobSubmitted,
    "call.{purpose}.{call}.attempt.{attempt}.reconciled": AttemptReconciled,
    "call.{purpose}.{call}.settled": CallSettled,
    "call.{purpose}.{call}.late": CallWrittenOff,
    "ended": RunEnded,
    "callback.{number}": CallbackSettled,
}
