"""Pools of places as every service uses them: fed by the topology's consumers, counted in the metrics."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

from shared.bus.connection import Bus
from shared.bus.delivery import Buried, Delivery, Done, Handler, Retry, Source, Verdict
from shared.bus.payloads import PayloadMissing
from shared.bus.provisioner import declare_feed
from shared.bus.pull import StandingPull
from shared.observe import metrics
from shared.service import bury
from shared.subjects import ROOT
from shared.topology import Feed
from shared.unreadable import end_run_of


class Counted:
    """Counts what a pool does."""

    def __init__(self, service: str) -> None:
        self._service = service

    def taken(self, delivery: Delivery) -> None:
        metrics.TAKEN.labels(self._service, delivery.source).inc()

    def redelivered(self, delivery: Delivery) -> None:
        metrics.REDELIVERED.labels(self._service, delivery.source).inc()

    def settled(self, delivery: Delivery, verdict: Verdict, took_s: float) -> None:
        match verdict:
            case Done():
                word = "done"
            case Retry():
                word = "retry"
            case Buried():
                word = "buried"
        metrics.SETTLED.labels(self._service, delivery.source, word).inc()
        metrics.HANDLER_SECONDS.labels(self._service, delivery.source).observe(took_s)

    def stalled(self, source: str) -> None:
        metrics.STALLS.labels(self._service, source).inc()

    def recreated(self, source: str) -> None:
        metrics.STALLS.labels(self._service, source).inc()


async def _bury(bus: Bus, service: str, delivery: Delivery, reason: str) -> None:
    """End the message's run, unless its handler did or the run does not wait for it; then store it with the reason."""
    if not delivery.subject.startswith((f"{ROOT}.finish.", f"{ROOT}.reconcile.")):
        with suppress(PayloadMissing):
            body = await bus.payloads.unpack(delivery.data, delivery.headers)
            await end_run_of(bus, body, reason, outcome="failed")
    await bury(bus, service, delivery, reason)


def pool(
    bus: Bus,
    service: str,
    feeds: Sequence[Feed],
    handler: Handler,
    *,
    places: int,
    shares: Mapping[str, float] | None = None,
) -> StandingPull:
    """Return a pool of `places` that takes from `feeds`; `shares` by priority, evenly where there is none."""
    by_durable = {feed.durable: feed for feed in feeds}

    async def recreate(source: Source) -> None:
        await declare_feed(bus.client.jetstream(timeout=5), by_durable[source.durable])

    return StandingPull(
        bus.client,
        [Source(feed.stream, feed.config(), (shares or {}).get(feed.name, 1.0), feed.durable) for feed in feeds],
        handler,
        places=places,
        name=feeds[0].durable.rsplit("-", 1)[0] if len(feeds) > 1 else feeds[0].durable,
        bury=lambda delivery, reason: _bury(bus, service, delivery, reason),
        recreate=recreate,
        observer=Counted(service),
    )
