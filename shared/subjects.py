"""Every subject of Segue, built in one place. No subject string stands at a call site."""

from dataclasses import dataclass

from shared.contracts.ids import Lane, Priority, Purpose, Verb
from shared.contracts.message import Run

ROOT = "segue"


# Commands


def request(tenant: str, priority: Priority) -> str:
    """Of `SubmitRequest`; written by the gateway and by outside systems, read by the categorizer."""
    return f"{ROOT}.request.{tenant}.{priority}"


def workflow(run: Run) -> str:
    """Of `PlanRun`; written by the categorizer and the gateway, read by the planner."""
    return f"{ROOT}.workflow.{run.tenant}.{run.priority}.{run.run_id}"


def call(run: Run, lane: Lane, purpose: Purpose, name: str) -> str:
    """Of `ExecuteCall`; read by the executor of its lane."""
    return f"{ROOT}.call.{lane}.{run.priority}.{run.tenant}.{run.run_id}.{purpose}.{name}"


def call_of(subject: str) -> tuple[str, str, str, str] | None:
    """Return (tenant, run, purpose, call) of a subject made by `call`; None for any other."""
    tokens = subject.split(".")
    if len(tokens) != 8 or tokens[:2] != [ROOT, "call"]:
        return None
    return tokens[4], tokens[5], tokens[6], tokens[7]


def wait(run: Run, purpose: Purpose, name: str) -> str:
    """Of a call put back until its next attempt: a scheduled message that targets the call's own subject."""
    return f"{ROOT}.wait.{run.tenant}.{run.run_id}.{purpose}.{name}"


def inquiry(run: Run, purpose: Purpose, name: str, attempt: int) -> str:
    """Of a question about an attempt while it is scheduled: targets `reconcile`."""
    return f"{ROOT}.inquiry.{run.tenant}.{run.run_id}.{purpose}.{name}.{attempt}"


def reconcile(run: Run, purpose: Purpose, name: str, attempt: int) -> str:
    """Of `ReconcileAttempt`, fired by the bus; read by the executor."""
    return f"{ROOT}.reconcile.{run.tenant}.{run.run_id}.{purpose}.{name}.{attempt}"


def finish(run: Run) -> str:
    """Of `FinishRun`; read by the finisher."""
    return f"{ROOT}.finish.{run.priority}.{run.run_id}"


def begin(run: Run) -> str:
    """Of `BeginRun`: a planned run that waits for a place among the running workflows; the planner's own."""
    return f"{ROOT}.begin.{run.priority}.{run.run_id}"


def control(tenant: str, run_id: str, verb: Verb) -> str:
    """Of `ControlRun`; `cancel` is read by the finisher, the others by the planner."""
    return f"{ROOT}.control.{tenant}.{run_id}.{verb}"


def task_timer(run_id: str, task: str) -> str:
    """Of a task's deadline while it is scheduled: targets `task_due`; those of a run are purged when it ends."""
    return f"{ROOT}.tasktimer.{run_id}.{task}"


def task_due(run_id: str, task: str) -> str:
    """Of `TaskDue`, fired by the bus; read by the planner."""
    return f"{ROOT}.due.task.{run_id}.{task}"


def schedule(tenant: str, name: str) -> str:
    """Of a schedule as the bus keeps it: targets `schedule_due` again and again."""
    return f"{ROOT}.schedule.{tenant}.{name}"


def schedule_due(tenant: str, name: str) -> str:
    """Of `ScheduleDue`, fired by the bus; read by the planner."""
    return f"{ROOT}.due.schedule.{tenant}.{name}"


def timer(run_id: str) -> str:
    """Of a run's deadline while it is scheduled: targets `deadline`, purged when the run ends in time."""
    return f"{ROOT}.timer.{run_id}"


def deadline(run_id: str) -> str:
    """Of `DeadlinePassed`, fired by the bus; read by the finisher."""
    return f"{ROOT}.deadline.{run_id}"


def callback(tenant: str, run_id: str) -> str:
    """Of `DeliverCallback` that is due; read by the finisher."""
    return f"{ROOT}.callback.{tenant}.{run_id}"


def callback_wait(tenant: str, run_id: str) -> str:
    """Of a delivery that was put back: a scheduled message that targets `callback`."""
    return f"{ROOT}.callbackwait.{tenant}.{run_id}"


def dead(service: str) -> str:
    """Of messages that a service buried, with the reason in a header."""
    return f"{ROOT}.dead.{service}"


def canary(service: str) -> str:
    """Of a write that only shows that the log can be written; kept for a moment."""
    return f"{ROOT}.canary.{service}"


# Facts


@dataclass(frozen=True, slots=True)
class Facts:
    """The subjects of one run's events. `live` is where the same event is heard once it is stored."""

    tenant: str
    run_id: str
    prefix: str

    @property
    def accepted(self) -> str:
        return f"{self.prefix}.accepted"

    @property
    def category(self) -> str:
        return f"{self.prefix}.category"

    @property
    def plan(self) -> str:
        return f"{self.prefix}.plan"

    @property
    def ended(self) -> str:
        return f"{self.prefix}.ended"

    @property
    def deleted(self) -> str:
        return f"{self.prefix}.deleted"

    def expanded(self, task: str) -> str:
        return f"{self.prefix}.expanded.{task}"

    def asked(self, task: str) -> str:
        return f"{self.prefix}.asked.{task}"

    def approval(self, task: str) -> str:
        return f"{self.prefix}.approval.{task}"

    def hold(self, number: int) -> str:
        return f"{self.prefix}.hold.{number}"

    def callback(self, number: int) -> str:
        """What became of a delivery of the answer to its callback's URL."""
        return f"{self.prefix}.callback.{number}"

    def late(self, purpose: Purpose, name: str) -> str:
        """What a call cost although somebody else had settled it."""
        return f"{self.prefix}.call.{purpose}.{name}.late"

    @property
    def all(self) -> str:
        return f"{self.prefix}.>"

    @property
    def all_settled(self) -> tuple[str, ...]:
        return tuple(f"{self.prefix}.call.{purpose}.*.settled" for purpose in Purpose)

    @property
    def all_settled_but_tasks(self) -> tuple[str, ...]:
        return tuple(f"{self.prefix}.call.{purpose}.*.settled" for purpose in Purpose if purpose is not Purpose.TASK)

    def attempt(self, purpose: Purpose, name: str, attempt: int) -> str:
        return f"{self.prefix}.call.{purpose}.{name}.attempt.{attempt}"

    def job(self, purpose: Purpose, name: str, attempt: int) -> str:
        """What a provider calls the long job that an attempt began."""
        return f"{self.attempt(purpose, name, attempt)}.job"

    def reconciled(self, purpose: Purpose, name: str, attempt: int) -> str:
        """What an attempt cost whose call was settled without knowing it."""
        return f"{self.attempt(purpose, name, attempt)}.reconciled"

    def settled(self, purpose: Purpose, name: str) -> str:
        return f"{self.prefix}.call.{purpose}.{name}.settled"


def events(tenant: str, run_id: str) -> Facts:
    """The log's subjects of a run."""
    return Facts(tenant, run_id, f"{ROOT}.event.{tenant}.{run_id}")


def facts(run: Run) -> Facts:
    """The log's subjects of a run that is at hand."""
    return events(run.tenant, run.run_id)


def live(tenant: str, run_id: str) -> Facts:
    """Where a run's events are heard after they are stored."""
    return Facts(tenant, run_id, f"{ROOT}.live.{tenant}.{run_id}")


def fact_of(subject: str) -> str:
    """Return what an event's subject says after the run: `accepted`, `call.answer.answer.settled`, …"""
    return subject.split(".", 4)[4]


def told_of(subject: str) -> tuple[str, str, str]:
    """Return (tenant, run, fact) of an event's subject."""
    _, _, tenant, run_id, fact = subject.split(".", 4)
    return tenant, run_id, fact


# Hints over core NATS: never decided upon


def token(tenant: str, run_id: str, name: str) -> str:
    """Of `TextDelta`: a call's text as it comes in, outside the log."""
    return f"{ROOT}.token.{tenant}.{run_id}.{name}"


def sofar(tenant: str, run_id: str, name: str) -> str:
    """Of `AskText`: answered by the executor that streams the call, by nobody when none does."""
    return f"{ROOT}.sofar.{tenant}.{run_id}.{name}"


def streamed(subject: str) -> tuple[str, str, str]:
    """Return (tenant, run, call) of a subject made by `token` or `sofar`."""
    _, _, tenant, run_id, call = subject.split(".", 4)
    return tenant, run_id, call


def cancel(tenant: str, run_id: str) -> str:
    """Of `CancelRun`: executors drop what they are doing for this run."""
    return f"{ROOT}.cancel.{tenant}.{run_id}"


def cancelled(subject: str) -> tuple[str, str]:
    """Return (tenant, run) of a subject made by `cancel`."""
    _, _, tenant, run_id = subject.split(".", 3)
    return tenant, run_id


def door(tenant: str, *said: str) -> str:
    """Of what an outside system asks: imported by its account, so that the tenant is not its own to choose."""
    return ".".join((ROOT, "door", tenant, *said))


def asked_of(subject: str) -> tuple[str, tuple[str, ...]]:
    """Return (tenant, what is asked) of a subject made by `door`."""
    _, _, tenant, *said = subject.split(".")
    return tenant, tuple(said)


def grant(limit: str, window: str, tenant: str, priority: str) -> str:
    """Of one permission to ask a provider, kept for as long as its window."""
    return f"{ROOT}.grant.{limit}.{window}.{tenant}.{priority}"


def granted_to(subject: str) -> tuple[str, str] | None:
    """Return (tenant, priority) of a subject made by `grant`; None for one that an older version made."""
    tokens = subject.split(".")
    return (tokens[4], tokens[5]) if len(tokens) == 6 else None


def limit_wait(limit: str, tenant: str, priority: str) -> str:
    """Of `LimitWait`: executors tell each other whose calls wait for a limit."""
    return f"{ROOT}.limitwait.{limit}.{tenant}.{priority}"


def limit_wait_of(subject: str) -> tuple[str, str, str]:
    """Return (limit, tenant, priority) of a subject made by `limit_wait`."""
    _, _, limit, tenant, priority = subject.split(".")
    return limit, tenant, priority


def rate(account: str) -> str:
    """Of the counter of requests that an account (`key.<id>`, `tenant.<name>`) begins."""
    return f"{ROOT}.rate.{account}"


def access(record: str) -> str:
    """Where a change of a key's or tenant's record (`key.<id>`, `tenant.<name>`) is heard once it is stored."""
    return f"{ROOT}.access.{record}"


def record_of(subject: str) -> str:
    """Return the record of a subject made by `access`."""
    return subject.split(".", 2)[2]


def working(claim: str) -> str:
    """Of the question whether an executor still works on a claim (`<executor>.<claim>`); nobody there: it is dead."""
    return f"{ROOT}.working.{claim}"


def claim_of(subject: str) -> str:
    """Return the claim of a subject made by `working`."""
    return subject.split(".", 2)[2]


# Keys in buckets


def run_key(tenant: str, run_id: str) -> str:
    """Of the planner's record of a run in `runs`."""
    return f"{tenant}.{run_id}"


def session_key(tenant: str, session_id: str) -> str:
    """Of a conversation in `sessions`."""
    return f"{tenant}.{session_id}"
