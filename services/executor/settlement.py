"""The one fact that a call ends with, built from what its attempts came to. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from services.executor.providers import Answered, Failed
from services.executor.taxonomy import (
    BREAKER_OPEN,
    EXECUTOR_DIED,
    LIMIT_REACHED,
    NO_PROVIDER,
    NOT_ALLOWED,
    OVER_BUDGET,
    UNPRICED,
    Verdict,
)
from shared.access.accounts import Over
from shared.accounts import Share, shares
from shared.contracts.commands import ExecuteCall, FailedAttempt, MediaJob, UnknownAttempt
from shared.contracts.events import AttemptStarted, CallSettled
from shared.contracts.message import Artifact, Fault, Run, Usage

MOST_UNKNOWN = 3
"""Executors that may die on a call before it is taken for what kills them."""


@dataclass(slots=True)
class Ledger:
    """What is known of a call's attempts: from its command, from the log, and from this process."""

    command: ExecuteCall
    failed: list[FailedAttempt] = field(default_factory=list)
    unknown: list[UnknownAttempt] = field(default_factory=list)
    role: str = ""
    """Of the latest attempt, else the one asked for."""
    job: MediaJob | None = None
    """The latest attempt's, while it goes on."""

    @classmethod
    def of(cls, command: ExecuteCall) -> "Ledger":
        role = command.failed[-1].role if command.failed else command.role
        return cls(command, list(command.failed), list(command.unknown), role, command.job)

    @property
    def next_attempt(self) -> int:
        """The first number that no attempt is known of."""
        known = [one.attempt for one in self.failed] + [one.attempt for one in self.unknown]
        return 1 + max(known, default=0)

    def lost(self, started: AttemptStarted) -> None:
        """Take in an attempt whose outcome died with its executor."""
        self.unknown.append(lost(started))
        self.role = started.role

    def take(self, started: AttemptStarted, failed: Failed, fault: Fault) -> None:
        """Take in an attempt that failed."""
        self.failed.append(
            FailedAttempt(
                attempt=started.attempt,
                role=started.role,
                fault=fault,
                backpressure=failed.verdict.backpressure,
                usage=failed.usage,
                cost_usd=failed.cost_usd or 0.0,
                cost_known=failed.cost_usd is not None,
                provider=started.provider,
                model=started.model,
                reserved_usd=started.reserved_usd if failed.cost_usd is None else 0.0,
                started_at=started.started_at if failed.cost_usd is None else None,
                generation_id=failed.generation_id if failed.cost_usd is None else None,
            )
        )

    def shares(self) -> tuple[Share, ...]:
        """Return the attempts' parts in what the call costs."""
        return shares(failed(self, too_many_died(self), started=None, simulated=False))

    def put_back(self) -> ExecuteCall:
        """Return the command that goes on where this one stops."""
        known = {"failed": tuple(self.failed), "unknown": tuple(self.unknown), "job": self.job}
        return self.command.model_copy(update=known)


def lost(started: AttemptStarted) -> UnknownAttempt:
    """Return an attempt of which only its beginning is known."""
    return UnknownAttempt(
        attempt=started.attempt,
        reserved_usd=started.reserved_usd,
        role=started.role,
        provider=started.provider,
        model=started.model,
        started_at=started.started_at,
    )


def fault(verdict: Verdict, message: str, status: int | None = None) -> Fault:
    return Fault(type=verdict.type, code=verdict.code, message=message, status=status)


def attempt_fault(started: AttemptStarted, failed: Failed) -> Fault:
    """Return the fault of one attempt: who said it, and what."""
    said = failed.message or "no reason given"
    where = f"{started.provider} ({started.model})"
    answered = f" answered {failed.status}" if failed.status is not None and failed.status != 200 else ""
    return fault(failed.verdict, f"{where}{answered}: {said}", failed.status)


def too_many_died(ledger: Ledger) -> Fault:
    numbers = ", ".join(str(one.attempt) for one in ledger.unknown)
    return fault(
        EXECUTOR_DIED,
        f"the executors of attempts {numbers} died on them; what came of them, and what it cost, is unknown",
    )


def nobody(role: str, chain: Sequence[str], reasons: Sequence[str]) -> Fault:
    """Return the fault of a role that cannot be asked, nor any that stands in for it."""
    tried = f" (nor {', '.join(chain[1:])}, which would stand in)" if len(chain) > 1 else ""
    return fault(NO_PROVIDER, f"{role} has no provider{tried}: {'; '.join(dict.fromkeys(reasons))}")


def limited(provider: str, what: str, seconds: float) -> Fault:
    """Return the fault of a call that our own limit holds back until it is too late."""
    said = f"{provider} may be asked {what} (rate_limiting), and the next place is {seconds:.0f} s away"
    return fault(LIMIT_REACHED, f"{said}; the run's deadline comes before that")


def over_budget(over: Over, account: str) -> Fault:
    """Return the fault of a call whose key or tenant may spend no more."""
    kind, _, name = account.partition(".")
    whose = "its API key" if kind == "key" else f"tenant {name!r}"
    said = (
        f"the call is not made: {whose} may use {over.what}; {over.amount(over.left)} of that is left, "
        f"and the call may take {over.amount(over.wanted)}"
    )
    return Fault(
        type=OVER_BUDGET.type,
        code=OVER_BUDGET.code,
        message=f"{said}; it begins anew at {over.turns_at:%Y-%m-%d %H:%M} UTC",
        status=402 if over.money else 429,
    )


def unpriced(route_model: str) -> Fault:
    """Return the fault of a call whose budget is in US dollars and whose price nobody knows."""
    return fault(
        UNPRICED,
        f"the call is not made: its budget is in US dollars and nobody knows what {route_model} costs; "
        "an operator can say it in SEGUE_PRICES",
    )


def not_allowed(role: str, chain: Sequence[str]) -> Fault:
    """Return the fault of a role that its key or tenant may not ask."""
    tried = f" (nor {', '.join(chain[1:])}, which would stand in)" if len(chain) > 1 else ""
    return fault(NOT_ALLOWED, f"{role} may not be asked with this key, or by this tenant{tried}", 403)


def not_bounded(settings: Sequence[str]) -> Fault:
    """Return the fault of a call with settings that may have another model answer, or cost more than is held for it."""
    names = ", ".join(one[:40] for one in settings[:5])
    said = (
        "who answers then, and what it costs, cannot be bounded, and its key or tenant has a budget or a list of models"
    )
    return fault(NOT_ALLOWED, f"the call is not made with {names}: {said}", 403)


def held_up(model: str, account: str) -> Fault:
    """Return the fault of a call that waits until its deadline for what others of its budget hold."""
    return fault(
        OVER_BUDGET,
        f"{model} was not asked: until the run's deadline other calls held what is left of the budget of {account}",
        402,
    )


def left_alone(models: Sequence[str], seconds: float) -> Fault:
    """Return the fault of a call that nobody may be asked for until it is too late."""
    names = ", ".join(models)
    said = "has failed again and again and is" if len(models) == 1 else "have failed again and again and are"
    return fault(
        BREAKER_OPEN, f"{names} {said} left alone for {seconds:.0f} s more; the run's deadline comes before that"
    )


def answered(
    ledger: Ledger,
    started: AttemptStarted,
    answer: Answered,
    *,
    took_s: float,
    simulated: bool,
    artifacts: tuple[Artifact, ...] = (),
) -> CallSettled:
    """Return the fact of a call that was answered."""
    command = ledger.command
    return CallSettled(
        run=command.run,
        call=command.call,
        purpose=command.purpose,
        outcome="answered",
        text=answer.text,
        artifacts=artifacts,
        tool_calls=answer.tool_calls or None,
        embeddings=answer.embeddings or None,
        role=started.role,
        asked_role=command.role,
        variant=started.variant,
        provider=started.provider,
        model=answer.model or started.model,
        finish_reason=answer.finish_reason,
        usage=_usage(ledger, answer.usage),
        cost_usd=_cost(ledger) + (answer.cost_usd or 0.0),
        cost_known=answer.cost_usd is not None and _known(ledger),
        priced_by=answer.priced_by,
        generation_id=answer.generation_id if answer.cost_usd is None else None,
        simulated=simulated,
        attempts=started.attempt,
        failed=tuple(ledger.failed),
        unknown=tuple(ledger.unknown),
        took_s=took_s,
        category=command.category,
        note=command.note,
        spent=command.spent,
    )


def failed(ledger: Ledger, why: Fault, *, started: AttemptStarted | None, simulated: bool) -> CallSettled:
    """Return the fact of a call that nobody could answer. `started`: the latest attempt, if there was one."""
    command = ledger.command
    return CallSettled(
        run=command.run,
        call=command.call,
        purpose=command.purpose,
        outcome="failed",
        fault=why,
        role=ledger.role,
        asked_role=command.role,
        variant=started.variant if started is not None else None,
        provider=started.provider if started is not None else None,
        model=started.model if started is not None else None,
        usage=_usage(ledger, Usage()),
        cost_usd=_cost(ledger),
        cost_known=_known(ledger),
        simulated=simulated,
        attempts=ledger.next_attempt - 1,
        failed=tuple(ledger.failed),
        unknown=tuple(ledger.unknown),
        category=command.category,
        note=command.note,
        spent=command.spent,
    )


def unreadable(run: Run, purpose: str, call: str, why: Fault) -> CallSettled:
    """Return the fact of a call whose command cannot be read."""
    return CallSettled.model_validate(
        {"run": run, "call": call, "purpose": purpose, "outcome": "failed", "fault": why, "role": "", "asked_role": ""}
    )


def _usage(ledger: Ledger, last: Usage) -> Usage:
    for one in ledger.failed:
        last = last.plus(one.usage)
    return last


def _cost(ledger: Ledger) -> float:
    return sum(one.cost_usd for one in ledger.failed)


def _known(ledger: Ledger) -> bool:
    return not ledger.unknown and all(one.cost_known for one in ledger.failed)
