"""Bear runs and hear of their ends. What counts is on the log; what is heard is a hint to look."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from services.gateway.admission import Admission
from services.gateway.births import Birth, is_repetition
from shared import subjects
from shared.bus.connection import Bus
from shared.bus.errors import BusError, NotProvisioned, QueueFull, Refused
from shared.bus.log import TIMER_TRIES
from shared.contracts.commands import PlanRun, SubmitRequest
from shared.contracts.events import RunAccepted, RunEnded
from shared.contracts.message import Run

NOT_THERE = (QueueFull, NotProvisioned, Refused)
"""Answers after which a command surely is not in its stream."""
ACCEPTED_WITHIN_S = 1.0
"""With the queue full a run is told of before it is accepted."""
GRACE_S = 5.0
"""The finisher ends a run at its deadline; its end may take this long to be heard here."""


class KeyReused(Exception):
    """The idempotency key stands for another request."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"this Idempotency-Key was used with a different request (run {run_id})")
        self.run_id = run_id


class NoEndInTime(Exception):
    """The run's end was not on the log although its deadline is over: the services behind are late or down."""

    def __init__(self, run_id: str, given_s: float) -> None:
        super().__init__(f"run {run_id} had not ended {GRACE_S:.0f} s after its deadline of {given_s:.0f} s")
        self.run_id = run_id


@dataclass(frozen=True, slots=True)
class Past:
    """What the log has of a run before this request does anything about it."""

    accepted: RunAccepted | None = None
    ended: RunEnded | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """A run's end. `replayed`: it had ended before this request came."""

    ended: RunEnded
    replayed: bool


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs as the gateway sees them: born here, ended elsewhere."""

    bus: Bus
    now: Callable[[], datetime]
    admission: Admission | None = None
    """Looks at the limits of whoever asks; None: nobody has any."""

    async def end_of(self, birth: Birth) -> Heard:
        """Bear a run, or join it when its key is known, and return its end.

        Raises `QueueFull` (nothing is left behind), `KeyReused`, `NoEndInTime` or another `BusError`.
        """
        past = await self.past(birth)
        if past.ended is not None:
            return Heard(past.ended, replayed=True)
        run = birth.run if past.accepted is None else past.accepted.run
        ended = await self.bus.live.expect(
            subjects.live(run.tenant, run.run_id).ended,
            subjects.facts(run).ended,
            RunEnded,
            ask=(lambda: self.bear(birth)) if past.accepted is None else None,
            until=self.patience_until(run),
        )
        if ended is None:
            raise NoEndInTime(run.run_id, given_s(run))
        await self.certify(birth, past)
        return Heard(ended, replayed=False)

    async def past(self, birth: Birth) -> Past:
        """Return what is known of a keyed run; nothing for one that is new. Raises `KeyReused`."""
        if not birth.keyed:
            return Past()
        facts = subjects.facts(birth.run)
        accepted = await self.bus.log.read(facts.accepted, RunAccepted)
        if accepted is not None and not is_repetition(birth, accepted):
            raise KeyReused(birth.run.run_id)
        return Past(accepted, await self.bus.log.read(facts.ended, RunEnded))

    async def certify(self, birth: Birth, past: Past) -> None:
        """Make sure that a keyed run that was not accepted when we asked was accepted with *our* request.

        Another gateway may have sent a different one under the same key at the same moment: the log says whose it is.
        """
        if not birth.keyed or past.accepted is not None:
            return
        accepted = await self.bus.log.read(subjects.facts(birth.run).accepted, RunAccepted)
        if accepted is not None and not is_repetition(birth, accepted):
            raise KeyReused(birth.run.run_id)

    async def soon_accepted(self, run: Run) -> None:
        """Wait a moment until a run is on the log, so that whoever is told of it can look at it at once."""
        live, facts = subjects.live(run.tenant, run.run_id), subjects.facts(run)
        until = asyncio.get_running_loop().time() + ACCEPTED_WITHIN_S
        await self.bus.live.expect(live.accepted, facts.accepted, RunAccepted, ask=None, until=until)

    async def bear(self, birth: Birth) -> Run:
        """Set the deadline, then send the command; returns the run. A full queue leaves nothing behind.

        A keyed run may be borne by others at the same moment, or have been before: then it has their times, and a timer
        that they cannot take back once it is queued. (ADR 0024) Raises `OverLimit`, `QueueFull`, `KeyReused`.
        """
        admission = self.admission if birth.accounts else None
        places = await admission.admit(birth) if admission is not None else ()
        own, sent = None, False
        try:
            birth, own = await self._timed(birth)
            sent = True
            await self._send(birth.command)
        except BaseException as error:
            # Once it is sent, only an answer that refuses it says that it is not there. One that does not come in time,
            # or a caller that goes meanwhile, says nothing: the run may begin, and keeps its places until it has ended.
            refused = sent and isinstance(error, NOT_THERE)
            others = refused and await self._take_back(birth, own)
            if admission is not None and (not sent or refused) and not others:
                await admission.take_back(birth, places)
            raise
        if birth.keyed and own is None:
            await self.bus.log.renew_timer(birth.run, birth.by, asked=birth.digest())
        return birth.run

    async def _timed(self, birth: Birth) -> tuple[Birth, int | None]:
        """Set a run's timer; returns the birth with its times, and the timer's sequence when it is this birth's.

        Raises `KeyReused` where the timer is that of another request under its key.
        """
        asked = birth.digest() if birth.keyed else None
        for _ in range(TIMER_TRIES):
            own = await self.bus.log.set_timer(birth.run, birth.by, asked=asked)
            if own is not None or not birth.keyed:
                return birth, own
            if (there := await self.bus.log.timer(birth.run.run_id)) is not None:
                if there[0].asked not in (None, asked):
                    raise KeyReused(birth.run.run_id)
                return birth.timed(there[0].run), None
        return birth, None

    async def _take_back(self, birth: Birth, own: int | None) -> bool:
        """Take back the timer of a run that was refused; returns whether others bear it, who keep its place."""
        run_id = birth.run.run_id
        with contextlib.suppress(BusError):  # a timer left behind fires once, for a run that nobody has
            if not birth.keyed or own is not None:
                await self.bus.log.take_timer_back(run_id, own=own)
            return birth.keyed and await self.bus.log.timer(run_id) is not None
        return False

    async def _send(self, command: SubmitRequest | PlanRun) -> None:
        match command:
            case SubmitRequest():
                await self.bus.log.submit(command)
            case PlanRun():
                await self.bus.log.send(subjects.workflow(command.run), command)

    def patience_until(self, run: Run) -> float:
        """Return the loop time until which the end of a run is waited for."""
        left_s = run.left_s(self.now())
        return asyncio.get_running_loop().time() + max(0.0, left_s) + GRACE_S


def given_s(run: Run) -> float:
    """Return how long a run has from its birth, in seconds."""
    return (run.deadline_at - run.born_at).total_seconds()
