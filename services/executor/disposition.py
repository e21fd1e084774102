"""What becomes of a call that was taken: it is settled on the log, or put back to wait."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.executor import settlement
from services.executor.counting import count_call
from services.executor.insisting import insist
from services.executor.reconciling import Reconciliation
from services.executor.roster import Roster
from services.executor.settlement import Ledger
from shared import accounts, subjects
from shared.bus.connection import Bus
from shared.bus.delivery import Delivery, Done, Verdict
from shared.contracts.events import AttemptStarted, CallSettled
from shared.contracts.message import Fault
from shared.faults import point

log = logging.getLogger("segue.executor")

IN_PLACE_S: Final = 1.0
"""A wait of at most this is slept in place; a longer one is put back, so that it holds no place."""


@dataclass(frozen=True, slots=True)
class Disposition:
    """The three ways in which a call leaves this process's hands."""

    bus: Bus
    roster: Roster
    reconciliation: Reconciliation
    now: Callable[[], datetime]

    async def put_back(self, ledger: Ledger, delivery: Delivery, after_s: float) -> Verdict:
        """Have the bus send the call again later: waiting holds no place."""
        command = ledger.command
        at = self.now() + timedelta(seconds=after_s)
        waiting = subjects.wait(command.run, command.purpose, command.call)
        put_back = ledger.put_back()  # with what its attempts came to
        await insist(lambda: self.bus.log.send_at(waiting, delivery.subject, put_back, at), "call.waits_to_be_put_back")
        log.info("attempt.waits", extra={"after_s": round(after_s, 3), "attempts": ledger.next_attempt - 1})
        point("executor.scheduled")
        return Done()

    async def fail(self, ledger: Ledger, why: Fault, started: AttemptStarted | None = None) -> Verdict:
        route = self.roster.routes.get(ledger.role)
        simulated = route.simulated if route is not None else False
        return await self.settle(settlement.failed(ledger, why, started=started, simulated=simulated))

    async def settle(self, fact: CallSettled) -> Verdict:
        """Write how the call ended, once only. Somebody else's word is as good: whoever waits goes on with that."""
        fact = self.reconciliation.asking(fact)
        subject = subjects.facts(fact.run).settled(fact.purpose, fact.call)
        written = await insist(lambda: self.bus.log.write(subject, fact), "settlement.waits")
        point("executor.settled")
        if written.mine:
            count_call(fact)
        else:
            await self.reconciliation.book(fact, accounts.shares(fact), written.fact)
        await self.reconciliation.ask_after(written.fact)
        return Done()
