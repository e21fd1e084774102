"""The log of runs, and the commands that follow from it.

A fact is written once only; whoever comes second gets what the first wrote and goes on with that. A
command is refused while a copy of it is queued, which is as good as sent. (ADR 0002)
"""

import secrets
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Final, Generic, TypeVar

from shared import subjects
from shared.bus.errors import BusError, Refused
from shared.bus.jetstream import WRITER, JetStream, Stored
from shared.bus.payloads import HEADER, Payloads
from shared.contracts.commands import DeadlinePassed, SubmitRequest, Taker
from shared.contracts.message import Message, Run
from shared.moments import rfc3339
from shared.topology import EVENTS, FINISHES, MAX_MESSAGE_BYTES

M = TypeVar("M", bound=Message)

TOO_MANY: Final = 413
PAGE: Final = 1_000
TIMER_TRIES: Final = 5
"""Whoever comes in between each time has set a timer of his own that he does not take back."""


@dataclass(frozen=True, slots=True)
class Written(Generic[M]):
    """A fact as the log keeps it. `mine` is False when somebody's, or an earlier try's, was there before."""

    fact: M
    mine: bool


class FactVanished(BusError):
    """The log refused a fact as already there and then did not have it: only expiry or an operator does that."""

    def __init__(self, subject: str) -> None:
        super().__init__(f"{subject!r} exists and cannot be read: was the stream {EVENTS} purged?")


class Log:
    """Facts and commands on one connection."""

    def __init__(self, jetstream: JetStream, payloads: Payloads) -> None:
        self.jetstream = jetstream
        self.payloads = payloads
        self._name = secrets.token_hex(6)
        self._writes = count(1)

    async def write(self, subject: str, fact: M) -> Written[M]:
        """Write a fact once only, and return the one that the log has now."""
        body, headers = await self.payloads.pack(fact.encode())
        if headers is not None and (outline := fact.outline()) is not None:
            short = outline.encode()
            body = short if len(short) <= MAX_MESSAGE_BYTES else b""
        writer = f"{self._name}.{next(self._writes)}"
        if await self.jetstream.publish_once(subject, body, headers={WRITER: writer, **(headers or {})}) is not None:
            return Written(fact, mine=True)
        stored = await self.jetstream.last(EVENTS, subject)
        if stored is None:
            raise FactVanished(subject)
        mine = (stored.headers or {}).get(WRITER) == writer
        return Written(await self.decode(stored, type(fact)), mine=mine)

    async def read(self, subject: str, kind: type[M]) -> M | None:
        """Read a fact from the log's leader. Raises `Unreadable` for one that a later version wrote."""
        stored = await self.jetstream.last(EVENTS, subject)
        return None if stored is None else await self.decode(stored, kind)

    async def exists(self, subject: str) -> bool:
        """Whether a fact is on the log, by its leader."""
        return await self.jetstream.last(EVENTS, subject) is not None

    async def decode(self, stored: Stored, kind: type[M]) -> M:
        """Read a stored message, fetching its body where it travelled by reference."""
        return kind.decode(await self.payloads.unpack(stored.data, stored.headers))

    async def sketch(self, stored: Stored, kind: type[M]) -> M:
        """Read a stored fact's outline where it has one, else the whole: for showing, and for counting."""
        if stored.data and stored.headers and HEADER in stored.headers:
            return kind.decode(stored.data)
        return await self.decode(stored, kind)

    async def facts(self, tenant: str, run_id: str) -> list[Stored]:
        """Every fact of a run that some replica has, oldest first: for showing, and for finding what must be there."""
        facts = subjects.events(tenant, run_id)
        try:
            return await self.jetstream.direct_all(EVENTS, [facts.all])
        except Refused as refused:
            if refused.code != TOO_MANY:
                raise
        return [stored async for stored in self.jetstream.direct_each(EVENTS, facts.all, page=PAGE)]

    async def story(self, tenant: str, run_id: str) -> list[Stored]:
        """The run's decisions without its attempts, oldest first, from some replica.

        Of a run with more than 1024 of them the settled tasks are left out: they are read by their names.
        """
        facts = subjects.events(tenant, run_id)
        wanted = [facts.accepted, facts.category, facts.plan, facts.ended]
        try:
            return await self.jetstream.direct_all(EVENTS, [*wanted, *facts.all_settled])
        except Refused as refused:
            if refused.code != TOO_MANY:
                raise
        return await self.jetstream.direct_all(EVENTS, [*wanted, *facts.all_settled_but_tasks])

    async def send(self, subject: str, command: Message) -> bool:
        """Send a command unless a copy of it is queued. Returns whether this one was taken. Raises `QueueFull`."""
        body, headers = await self.payloads.pack(command.encode())
        return await self.jetstream.publish_once(subject, body, headers=headers) is not None

    async def send_at(self, subject: str, target: str, command: Message, at: datetime) -> bool:
        """Have the bus send a command to `target` at a time; once per `subject`, like `send`. (NATS ADR-51)"""
        return await self._schedule(subject, target, command, at) is not None

    async def _schedule(
        self, subject: str, target: str, command: Message, at: datetime, *, behind: int = 0
    ) -> int | None:
        body, headers = await self.payloads.pack(command.encode())
        schedule = {"Nats-Schedule": f"@at {rfc3339(at)}", "Nats-Schedule-Target": target, **(headers or {})}
        return await self.jetstream.publish_once(subject, body, headers=schedule, behind=behind)

    async def submit(self, command: SubmitRequest) -> None:
        """Queue a request; the run's id makes a repeated one a single one. Raises `QueueFull`."""
        body, headers = await self.payloads.pack(command.encode())
        subject = subjects.request(command.run.tenant, command.run.priority)
        await self.jetstream.publish(subject, body, headers={"Nats-Msg-Id": command.run.run_id, **(headers or {})})

    async def set_timer(
        self, run: Run, by: Taker | None = None, *, asked: str | None = None, behind: int = 0
    ) -> int | None:
        """Have the bus say when the run's time is over. Returns the timer's sequence; None: there is one already.

        `by`, `asked`: who is to take the run up, and a digest of what for, of one that nobody has. `behind`: in place
        of the timer with this sequence.
        """
        command = DeadlinePassed(run=run, by=by, asked=asked)
        at, target = subjects.timer(run.run_id), subjects.deadline(run.run_id)
        return await self._schedule(at, target, command, run.deadline_at, behind=behind)

    async def timer(self, run_id: str) -> tuple[DeadlinePassed, int] | None:
        """Return a run's timer and its sequence, by the leader."""
        stored = await self.jetstream.last(FINISHES, subjects.timer(run_id))
        return None if stored is None else (await self.decode(stored, DeadlinePassed), stored.seq)

    async def renew_timer(self, run: Run, by: Taker | None = None, *, asked: str | None = None) -> None:
        """Have a timer of one's own, whatever there is: who set another can take that back, and not this. (ADR 0024)"""
        for _ in range(TIMER_TRIES):
            there = await self.timer(run.run_id)
            if await self.set_timer(run, by, asked=asked, behind=there[1] if there is not None else 0) is not None:
                return

    async def keep_timer(self, run: Run) -> None:
        """Have the bus say when the time of an accepted run is over, and not when another bearer's would be."""
        if await self.set_timer(run) is None:
            there = await self.timer(run.run_id)
            if there is None or there[0].run.deadline_at != run.deadline_at:
                await self.renew_timer(run)

    async def take_timer_back(self, run_id: str, *, own: int | None = None) -> None:
        """Forget a run's deadline. Idempotent. `own`: if it is the timer with this sequence, or an earlier one."""
        await self.jetstream.purge(FINISHES, subjects.timer(run_id), below=None if own is None else own + 1)
