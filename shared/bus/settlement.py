"""What becomes of a message: the handler's verdict, or what its failure amounts to."""

import logging
from collections.abc import Hashable

from shared.bus.delivery import Buried, Bury, Delivery, Done, Handler, Poison, Retry, Verdict

log = logging.getLogger("segue.bus")

FAILURES_BEFORE_BURIAL = 10
"""A message whose handler raised so often in one process is buried."""
DELIVERIES_BEFORE_BURIAL = 30
"""Or, wherever it was handed out, one whose handler raises after so many deliveries."""
NAK = b"-NAK"
_FIRST_BACKOFF_S = 0.1
_MAX_BACKOFF_S = 30.0
_REMEMBERED = 10_000


def backoff_s(delivered: int) -> float:
    """Return the pause after a handler failed: 0.1 s on the first delivery, doubled on each other, 30 s at most."""
    return float(min(_FIRST_BACKOFF_S * 2.0 ** min(delivered - 1, 20), _MAX_BACKOFF_S))


def nak(after_s: float) -> bytes:
    """Return the answer that asks for redelivery after so many seconds."""
    return b'-NAK {"delay":%d}' % int(after_s * 1e9) if after_s > 0 else NAK


class Settlement:
    """Runs one pool's handler. Raising in it never loses a message and never loops fast."""

    def __init__(self, handler: Handler, bury: Bury, pool: str) -> None:
        self._handler = handler
        self._bury = bury
        self._pool = pool
        self._failures: dict[Hashable, int] = {}

    async def verdict(self, delivery: Delivery, key: Hashable) -> Verdict:
        """Return what is to become of the message `key`. A dead letter is stored before this returns `Buried`."""
        verdict: Verdict
        try:
            verdict = await self._handler(delivery)
            if not isinstance(verdict, Done | Retry | Buried):
                raise TypeError(f"the handler of pool {self._pool} answered {verdict!r}, not Done, Retry or Buried")
        except Poison as poison:
            verdict = Buried(poison.reason)
        except Exception as error:  # noqa: BLE001 - here a message is settled: whatever went wrong, it is tried again
            verdict = self._failed(delivery, key, error)
        if isinstance(verdict, Buried):
            try:
                await self._bury(delivery, verdict.reason)
            except Exception:
                log.exception("pool %s: cannot store dead letter %s; it stays queued", self._pool, delivery.subject)
                return Retry(backoff_s(delivery.delivered))
        if self._failures and not isinstance(verdict, Retry):
            self._failures.pop(key, None)
        return verdict

    def _failed(self, delivery: Delivery, key: Hashable, error: Exception) -> Verdict:
        """Again, ever later; after enough of that the message is buried with the error's text."""
        failures = self._failures.pop(key, 0) + 1
        self._failures[key] = failures
        if len(self._failures) > _REMEMBERED:
            del self._failures[next(iter(self._failures))]
        buried = failures >= FAILURES_BEFORE_BURIAL or delivery.delivered >= DELIVERIES_BEFORE_BURIAL
        after_s = backoff_s(delivery.delivered)
        log.error(
            "pool %s: handler failed on %s (sequence %d, delivery %d, failure %d here); %s",
            self._pool,
            delivery.subject,
            delivery.stream_seq,
            delivery.delivered,
            failures,
            "buried" if buried else f"again in {after_s:.1f} s",
            exc_info=error,
        )
        if buried:
            return Buried(f"handler failed {failures} times, last with {type(error).__name__}: {error}")
        return Retry(after_s)
