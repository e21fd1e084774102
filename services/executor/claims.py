"""Claiming an attempt on the log, and finding out what became of attempts that somebody else claimed. (ADR 0007)"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from services.executor.budgets import Budgets
from services.executor.pricing import reserved_usd
from services.executor.running import Running
from services.executor.settlement import Ledger
from shared import subjects
from shared.bus.connection import Bus
from shared.bus.delivery import Delivery, Done, Retry, Verdict
from shared.config.providers import Route
from shared.contracts.events import AttemptStarted, CallSettled, JobSubmitted
from shared.contracts.ids import Purpose
from shared.observe import metrics
from shared.prices import PriceBook
from shared.topology import CALLS

log = logging.getLogger("segue.executor")

ANSWER_WITHIN_S = 0.5
"""For a living executor to say that it works on a claim. A dead one is known at once: nobody listens there."""
SERVER_WITHIN_S = 3
"""For the server itself, before it is said to stand still."""
NOBODY = "nobody.nothing"
"""No claim: the server itself says at once that nobody listens there."""
LOOK_AGAIN_S = 1.0
BACK_WITHIN_S = 3.0
"""After a server was away, until every living executor is connected again."""
STILL = b"1"
CLAIM_STANDS_S = 5.0
"""A request goes out so soon after its claim; later, only after a look whether its call was settled meanwhile."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """This process may send this attempt."""

    started: AttemptStarted
    run_ended: bool


@dataclass(slots=True)
class Claims:
    bus: Bus
    running: Running
    now: Callable[[], datetime]
    prices: PriceBook = field(default_factory=PriceBook)
    budgets: Budgets = field(default_factory=Budgets)
    _reconnected_s: float = -math.inf

    async def reconnected(self) -> None:
        """To be called when the connection was made again, before anything is taken over it."""
        self._reconnected_s = time.monotonic()

    async def claim(self, ledger: Ledger, claim: str, route: Route) -> Claimed | None:
        """Write the next attempt, once only, and look whether its run has ended. None: somebody's attempt is there.

        `claim`: its name, see `Running.claim`.
        """
        run = ledger.command.run
        facts = subjects.facts(run)
        number = ledger.next_attempt
        started = AttemptStarted(
            run=run,
            call=ledger.command.call,
            attempt=number,
            role=route.role,
            variant=route.variant,
            provider=route.provider,
            model=route.model,
            reserved_usd=reserved_usd(ledger.command, route, self.prices),
            claimed_by=claim,
            started_at=self.now(),
        )
        subject = facts.attempt(ledger.command.purpose, ledger.command.call, number)
        looking = asyncio.create_task(self.bus.log.exists(facts.ended))
        try:
            written = await self.bus.log.write(subject, started)
            if not written.mine:
                return None
            return Claimed(started, await looking)
        finally:
            looking.cancel()

    async def lapsed(self, started: AttemptStarted, purpose: Purpose) -> bool:
        """Whether a claim that was held for long is worth nothing any more: others have settled its call."""
        if (self.now() - started.started_at).total_seconds() <= CLAIM_STANDS_S:
            return False
        facts = subjects.facts(started.run)
        return await self.bus.log.exists(facts.settled(purpose, started.call))

    async def over(self, ledger: Ledger) -> CallSettled | None:
        """Return how a call was settled, if it is."""
        run, command = ledger.command.run, ledger.command
        subject = subjects.facts(run).settled(command.purpose, command.call)
        return await self.bus.log.read(subject, CallSettled)

    async def started(self, subject: str) -> AttemptStarted | None:
        return await self.bus.log.read(subject, AttemptStarted)

    async def survey(self, ledger: Ledger, delivery: Delivery) -> Verdict | CallSettled | None:
        """Take in attempts that are on the log and that the command does not know of: redelivered, or a copy.

        Returns what to answer when the call is in other hands, how it was settled when it is over; None when this
        process is to go on. An attempt's executor that still works on it is left alone. One that no longer does has put
        the call back or settled it *before* it let go, so what it left is looked for after asking it; else the outcome
        is unknown.
        """
        command = ledger.command
        run, purpose, call = command.run, command.purpose, command.call
        facts = subjects.facts(run)
        while True:
            started = await self.bus.log.read(facts.attempt(purpose, call, ledger.next_attempt), AttemptStarted)
            if started is not None and await self.may_still_work(started):
                return Retry(LOOK_AGAIN_S)
            if await self.bus.jetstream.last(CALLS, subjects.wait(run, purpose, call)) is not None:
                return Done()  # it waits for its next attempt, and knows more than this copy
            newest = await self.bus.jetstream.last(CALLS, delivery.subject)
            if newest is not None and newest.seq > delivery.stream_seq:
                return Done()  # its wait is over: the later message knows more
            if (over := await self.over(ledger)) is not None:
                if started is not None:
                    await self.budgets.lost(started, purpose)
                return over
            if started is None:
                return None
            named = await self.bus.log.read(facts.job(purpose, call, started.attempt), JobSubmitted)
            if named is not None:
                log.info("job.resumed", extra={"attempt": started.attempt, "operation": named.job.operation})
                ledger.job, ledger.role = named.job, named.job.role
                return None
            log.warning(
                "attempt.unknown", extra={"attempt": started.attempt, "model": started.model, "by": started.claimed_by}
            )
            metrics.ATTEMPTS.labels(started.provider, started.model, "unknown").inc()
            await self.budgets.lost(started, purpose)
            ledger.lost(started)

    async def may_still_work(self, started: AttemptStarted) -> bool:
        """Ask the attempt's executor. One that says nothing is dead, unless it may not be back on the bus yet.

        Nothing is concluded while the bus is away or stands still, nor when this process did: the answer may be here.
        """
        claim = started.claimed_by
        if self.running.works_on(claim):
            return True
        asked_s = time.monotonic()
        try:
            answer = await self.bus.jetstream.request(subjects.working(claim), timeout_s=ANSWER_WITHIN_S)
        except TimeoutError:
            with suppress(TimeoutError):  # no ping: one that is answered too late ends nats-py's reading for good
                await self.bus.jetstream.request(subjects.working(NOBODY), timeout_s=SERVER_WITHIN_S)
            if time.monotonic() - asked_s > 2 * ANSWER_WITHIN_S:
                return True
        else:
            if answer.data:
                return bool(answer.data == STILL)
        return not self.bus.client.is_connected or time.monotonic() - self._reconnected_s < BACK_WITHIN_S
