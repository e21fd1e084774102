"""Deliver answers to the callbacks of their runs: take, POST, write what became of it or put it back, ack. (ADR 0023)

Whatever waits is kept by the bus as a scheduled message; nobody holds it, and it takes no place.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.finisher import callback
from services.finisher.callback import Policy, PutBack, Settle
from services.finisher.receivers import Receivers, origin_of
from shared import subjects
from shared.bus.connection import Bus
from shared.bus.delivery import Delivery, Done, Poison, Verdict
from shared.contracts.answer import delivery_of
from shared.contracts.callbacks import CallbackAttempt, CallbackSettled, DeliverCallback
from shared.contracts.events import RunAccepted, RunEnded
from shared.contracts.message import Run, Unreadable
from shared.faults import point
from shared.observe import metrics
from shared.observe.logs import bound
from shared.outward import FetchFailed, Forbidden, Outward
from shared.topology import FINISHES

log = logging.getLogger("segue.finisher")


async def call_back(bus: Bus, accepted: RunAccepted | None, now: datetime, *, again: bool) -> None:
    """Have an ended run's answer delivered, if its caller wants that. `again`: perhaps it is on its way already."""
    command = delivery_of(accepted, now) if accepted is not None else None
    if command is None:
        return
    run = command.run
    settled = subjects.facts(run).callback(1)
    if again and (await bus.log.exists(settled) or await _waiting(bus, run) is not None):
        return
    await bus.log.send(subjects.callback(run.tenant, run.run_id), command)
    point("finisher.callback.begun")


async def _waiting(bus: Bus, run: Run) -> DeliverCallback | None:
    stored = await bus.jetstream.last(FINISHES, subjects.callback_wait(run.tenant, run.run_id))
    return None if stored is None else await bus.log.decode(stored, DeliverCallback)


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What the handler needs; made in `app.py`."""

    bus: Bus
    outward: Outward
    receivers: Receivers
    policy: Policy
    secrets: Mapping[str, Sequence[bytes]]
    """By tenant; the first is the newest."""
    timeout_s: float
    most_bytes: int
    now: Callable[[], datetime]

    async def deliver(self, delivery: Delivery) -> Verdict:
        """Try once, unless it was settled or put back already."""
        body = await self.bus.payloads.unpack(delivery.data, delivery.headers)
        try:
            command = DeliverCallback.decode(body)
        except Unreadable as error:
            raise Poison(str(error)) from error
        run = command.run
        with bound(run_id=run.run_id, tenant=run.tenant):
            point("finisher.callback.taken")
            if await self.bus.log.exists(subjects.facts(run).callback(command.number)):
                return Done()
            waits = await _waiting(self.bus, run)
            if waits is not None and not command.hurried and waits.step > command.step:
                return Done()  # whoever put it back died before the ack
            if command.hurried:
                await self._forget(command)
            await self._deliver(command)
            return Done()

    async def _deliver(self, command: DeliverCallback) -> None:
        run, now = command.run, self.now()
        ended = await self.bus.log.read(subjects.facts(run).ended, RunEnded)
        secrets = self.secrets.get(run.tenant, ())
        if ended is None:
            await self._settle(command, "the run's end is not on the log any more")
            return
        if not secrets:
            await self._settle(
                command,
                f"there is no secret to sign with for tenant {run.tenant!r}: set SEGUE_CALLBACK_SECRETS, then send it "
                f"again with POST /runs/{run.run_id}/callback",
            )
            return
        origin = origin_of(command.callback.url)
        alone_s = self.receivers.enter(run.tenant, origin)
        if alone_s is not None:
            why = f"{origin} fails again and again" if alone_s else f"{origin} is slow, and too many wait there"
            await self._go_on(command, callback.defer(self.policy, command, alone_s, why, now), "deferred")
            return
        well: bool | None = None
        try:
            tried, later_s = await self._post(command, ended, secrets)
            well = tried.problem is None or (tried.status is not None and tried.status < 500)
        except Forbidden as forbidden:
            await self._settle(command, f"the URL is not asked: {forbidden}")
            return
        finally:
            self.receivers.leave(run.tenant, origin, well=well)
        point("finisher.callback.sent")
        follows = callback.after(self.policy, command, tried, later_s, self.now())
        further = command.model_copy(update={"tried": (*command.tried, tried)})
        await self._go_on(further, follows, "failed")

    async def _post(
        self, command: DeliverCallback, ended: RunEnded, secrets: Sequence[bytes]
    ) -> tuple[CallbackAttempt, float | None]:
        """Return how it went, and for how long the receiver wants to be left alone. Raises `Forbidden`."""
        loop, now = asyncio.get_running_loop(), self.now()
        body = callback.body_of(command, ended, self.most_bytes)
        headers = callback.headers_of(secrets, command.run.run_id, body, now)
        began, status, later_s, problem = loop.time(), None, None, None
        try:
            async with (
                asyncio.timeout(self.timeout_s),
                self.outward.send("POST", command.callback.url, headers=headers, body=body) as response,
            ):
                status = response.status
                later_s = callback.retry_after_s(response.headers, now)
                if not 200 <= status < 300:
                    redirects = "; redirects are not followed" if 300 <= status < 400 else ""
                    problem = f"it answered {status}{redirects}"
        except TimeoutError:
            problem = f"no answer within {self.timeout_s:g} s"
        except FetchFailed as failed:
            problem = str(failed)
        tried = CallbackAttempt(at=now, took_s=round(loop.time() - began, 3), status=status, problem=problem)
        return tried, later_s

    async def _go_on(self, command: DeliverCallback, follows: Settle | PutBack, word: str) -> None:
        match follows:
            case Settle():
                await self._settle(command, follows.reason)
            case PutBack():
                if word == "deferred":
                    command = command.model_copy(update={"deferred": command.deferred + 1})
                await self._put_back(command.model_copy(update={"hurried": False}), follows.at, word)

    async def _put_back(self, command: DeliverCallback, at: datetime, word: str) -> None:
        run = command.run
        waits, due = (where(run.tenant, run.run_id) for where in (subjects.callback_wait, subjects.callback))
        await self.bus.log.send_at(waits, due, command, at)
        metrics.CALLBACKS.labels(word).inc()
        last = command.tried[-1].problem if command.tried else None
        log.info("callback.put_back", extra={"until": at.isoformat(), "tried": len(command.tried), "problem": last})
        point("finisher.callback.put_back")

    async def _settle(self, command: DeliverCallback, reason: str | None) -> None:
        run = command.run
        outcome = "delivered" if reason is None else "given_up"
        fact = CallbackSettled(
            run=run,
            number=command.number,
            url=command.callback.url,
            outcome="delivered" if reason is None else "given_up",
            reason=reason,
            message_id=callback.message_id(run.run_id),
            attempts=command.tried,
            settled_at=self.now(),
        )
        written = await self.bus.log.write(subjects.facts(run).callback(command.number), fact)
        if written.mine:
            metrics.CALLBACKS.labels(outcome).inc()
            if reason is not None:
                log.warning("callback.given_up", extra={"reason": reason, "tried": len(command.tried)})
        point("finisher.callback.settled")

    async def _forget(self, command: DeliverCallback) -> None:
        """Take back what the bus keeps for later: it is tried now."""
        await self.bus.jetstream.purge(FINISHES, subjects.callback_wait(command.run.tenant, command.run.run_id))
