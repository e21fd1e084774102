"""The standing pull: one pool of places, fed by the durable consumers of one kind of work.

It asks for exactly as many messages as it has free places, so no process ever holds a message that it is not working
on. What it works on it heartbeats, so that a message is another worker's only when this one is dead; what it has not
begun it gives back when it stops. It survives a reconnect, a killed server, a change of leader, a deleted consumer.
"""

import asyncio
import functools
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from shared.bus.delivery import (
    Buried,
    Bury,
    ConsumerMissing,
    Delivery,
    Done,
    Handler,
    Observer,
    Recreate,
    Retry,
    Source,
    Unobserved,
    parse,
)
from shared.bus.intake import Answer, Intake, read_status
from shared.bus.restore import add_consumer, exists, restore
from shared.bus.settlement import NAK, Settlement, backoff_s, nak
from shared.bus.shares import Shares

log = logging.getLogger("segue.bus")

SPOKEN_WITHIN_S = 3.0
"""A pool is healthy when the server has answered every source's requests within this time."""
DEAF_AFTER_S = 6.0
"""After so long without an answer the connection itself is put to the question."""
_FOUND_WITHIN_S = 10.0
"""A server that stands still for a moment, or elects a leader, as a pool starts is waited for."""
_LET_GO_WITHIN_S = 1.0
_LATE_S = 1.0
_MAX_PAUSE_S = 30.0
_ACK, _TERM, _PROGRESS = b"+ACK", b"+TERM", b"+WPI"


@dataclass(slots=True, eq=False)
class _Work:
    """A message being worked on."""

    delivery: Delivery
    key: tuple[int, int]
    reply: str
    began_s: float


class StandingPull:
    """One pool of `places`, in which `handler` runs as one task a message.

    `bury` stores a dead letter; the message leaves its queue only after that. `recreate` declares a consumer again that
    vanished (default: `add_consumer` with the source's configuration). `heartbeat_s` must be well under the consumers'
    `ack_wait`.
    """

    def __init__(
        self,
        client: Client,
        sources: Sequence[Source],
        handler: Handler,
        *,
        places: int,
        name: str,
        bury: Bury,
        heartbeat_s: float = 0.5,
        recreate: Recreate | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.name = name
        self._client = client
        self._sources = tuple(sources)
        self._settlement = Settlement(handler, bury, name)
        self._heartbeat_s = heartbeat_s
        self._recreate = recreate or add_consumer(client)
        self._observer: Observer = observer or Unobserved()
        self._shares = Shares(places, [source.share for source in sources])
        self._intakes: tuple[Intake, ...] = ()
        self._works: dict[tuple[int, int], _Work] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._errands: set[asyncio.Task[None]] = set()
        self._chores: list[asyncio.Task[None]] = []
        self._restoring: dict[int, asyncio.Task[None]] = {}
        self._unserved: set[int] = set()
        self._refused_s: dict[int, float] = {}
        self._wake: asyncio.Future[None] | None = None
        self._stirred = False
        self._doubt: asyncio.Task[None] | None = None
        self._reconnects = 0
        self._draining = False
        self._drained: asyncio.Task[None] | None = None

    @property
    def places(self) -> int:
        return self._shares.places

    @property
    def running(self) -> int:
        """Messages being worked on."""
        return self._shares.running

    @property
    def asked(self) -> int:
        """Messages asked for and not delivered yet; with `running` never more than `places`."""
        return self._shares.asked

    @property
    def healthy(self) -> bool:
        """Whether it takes work: connected, its consumers there, and answering within `SPOKEN_WITHIN_S`."""
        if self._draining or not self._chores or not self._client.is_connected or self._unserved:
            return False
        if any(chore.done() for chore in self._chores):
            return False
        return all(intake.silent_s() < SPOKEN_WITHIN_S for intake in self._intakes)

    async def start(self) -> None:
        """Find the consumers and ask for work. Raises `ConsumerMissing`, which says what to run, or a time-out."""
        self._clock = asyncio.get_running_loop().time
        self._reconnects = self._client.stats["reconnects"]
        for source in self._sources:
            if not await exists(self._client, source, _FOUND_WITHIN_S):
                raise ConsumerMissing(source.stream, source.durable)
        self._intakes = tuple(
            Intake(self._client, source, i, on_message=self._delivered, on_status=self._answered)
            for i, source in enumerate(self._sources)
        )
        for intake in self._intakes:
            await intake.enter()
        self._chores = [asyncio.create_task(self._asking()), asyncio.create_task(self._ticking())]
        for chore in self._chores:
            chore.add_done_callback(self._chore_ended)

    async def drain(self, timeout_s: float) -> None:
        """Stop. What has not begun goes back at once; what runs may finish within `timeout_s`, else goes back too.

        On a cluster this takes up to `STANDING_S` when there is nothing to finish. Once only: who calls again waits for
        the first.
        """
        if self._drained is None:
            self._draining = True
            self._drained = asyncio.create_task(self._drain(timeout_s))
        await asyncio.shield(self._drained)

    async def _drain(self, timeout_s: float) -> None:
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        if self._chores:
            self._chores[0].cancel()
        for restoring in list(self._restoring.values()):
            restoring.cancel()
        leaving = [
            asyncio.create_task(intake.leave(functools.partial(self._shares.open, intake.index)))
            for intake in self._intakes
        ]
        if self._tasks:
            left_s = max(0.0, deadline_s - asyncio.get_running_loop().time())
            _, late = await asyncio.wait(self._tasks, timeout=left_s)
            for task in late:
                task.cancel()
            if late:
                _, stuck = await asyncio.wait(late, timeout=_LET_GO_WITHIN_S)
                if stuck:
                    log.error(
                        "pool %s: %d handlers ignore being cancelled; their work is given back", self.name, len(stuck)
                    )
        await asyncio.gather(*leaving)
        await asyncio.gather(*self._errands)
        for work in list(self._works.values()):  # cancelled before the first step, or deaf
            self._let_go(work)
            await self._answer(work.reply, NAK)
        chores = [*self._chores, self._doubt] if self._doubt is not None else self._chores
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)

    async def on_reconnect(self) -> None:
        """To be called after the client reconnected: requests of the old connection are lost, ask again at once."""
        self._reconnects = self._client.stats["reconnects"]
        for intake in () if self._draining else self._intakes:
            await self._forget(intake)
        self._stir()

    # Asking

    def _stir(self) -> None:
        """Let the asking task look, once for all that happens before it does."""
        if self._shares.hungry:
            self._stirred = True
            if self._wake is not None and not self._wake.done():
                self._wake.set_result(None)

    async def _asking(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._stirred = False
            if self._client.is_connected and not self._draining:
                for ask in self._shares.plan(self._clock()):
                    intake = self._intakes[ask.source]
                    try:
                        await intake.ask(ask)
                    except nats.errors.Error as error:  # closed or its buffer full: the tick looks again
                        log.warning("pool %s: cannot ask %s: %r", self.name, intake.source.durable, error)
                        self._shares.voided(ask.source)
            if not self._stirred:  # else something happened while a request was sent
                self._wake = loop.create_future()
                await self._wake

    def _answered(self, intake: Intake, code: str, description: str) -> None:
        """A status message about the open request; one that was answered in full needs no more words."""
        if not self._shares.open(intake.index):
            return
        match read_status(code, description):
            case Answer.ALIVE:
                return
            case Answer.EMPTY:
                self._unserved.discard(intake.index)
                self._refused_s.pop(intake.index, None)
                self._shares.emptied(intake.index)
            case Answer.GONE:
                self._shares.voided(intake.index)
                self._restore(intake)
            case Answer.MOVED:
                log.info("pool %s: %s %s; asking again", self.name, intake.source.durable, description)
                self._shares.voided(intake.index)
                self._later(intake.enter())
            case Answer.REFUSED:
                self._shares.voided(intake.index)
                pause_s = min(2 * self._refused_s.get(intake.index, 0.5), _MAX_PAUSE_S)
                self._refused_s[intake.index] = pause_s
                self._shares.bar(intake.index, self._clock() + pause_s)
                log.error(
                    "pool %s: consumer %s of stream %s refuses requests (%s %s); check its limits; again in %.0f s",
                    self.name, intake.source.durable, intake.source.stream, code, description, pause_s,
                )  # fmt: skip
        self._stir()

    async def _forget(self, intake: Intake) -> None:
        """Give up on the open request, so that it can never be answered later, and be ready for another."""
        self._shares.voided(intake.index)
        await intake.enter()

    def _restore(self, intake: Intake) -> None:
        """Nobody serves the consumer: do not ask until it is there again."""
        if intake.index in self._restoring or self._draining:
            return
        if intake.index not in self._unserved:
            self._unserved.add(intake.index)
            log.warning("pool %s: nobody serves %s: deleted, or no leader", self.name, intake.source.durable)
        self._shares.bar(intake.index, float("inf"))
        task = asyncio.create_task(self._bring_back(intake))
        self._restoring[intake.index] = task
        task.add_done_callback(lambda _: self._restoring.pop(intake.index, None))

    async def _bring_back(self, intake: Intake) -> None:
        if await restore(self._client, intake.source, self._recreate, self._observer.recreated):
            self._unserved.discard(intake.index)
        self._shares.bar(intake.index, float("-inf"))
        self._stir()

    # Working

    def _delivered(self, intake: Intake, msg: Msg, current: bool) -> None:
        """A message came; it was asked for unless it came to an inbox that was left."""
        delivery = parse(msg.subject, msg.reply, msg.data, msg.headers, intake.source.name)
        if delivery is None:
            log.warning("pool %s: ignored a message that JetStream did not send: %s", self.name, msg.subject)
            return
        asked = current and self._shares.open(intake.index) > 0
        if asked:
            self._shares.taken(intake.index, delivery.pending)
        self._unserved.discard(intake.index)
        key = (intake.index, delivery.stream_seq)
        work = self._works.get(key)
        if work is not None:  # handed out again while it is worked on here: the newest delivery is the one to answer
            work.reply = msg.reply
            if asked:
                self._shares.done()
        elif self._draining or not (asked or self._shares.uninvited(intake.index, delivery.pending)):
            if asked:
                self._shares.done()
            self._later(self._answer(msg.reply, NAK))
        else:
            work = self._works[key] = _Work(delivery, key, msg.reply, self._clock())
            task = asyncio.create_task(self._work(work))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._stir()

    def _later(self, errand: Coroutine[Any, Any, None]) -> None:
        """Do what the read loop cannot wait for."""
        task = asyncio.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def _work(self, work: _Work) -> None:
        """Run the handler on one message and settle it, once."""
        delivery = work.delivery
        if self._draining:
            self._let_go(work)
            await self._answer(work.reply, NAK)
            return
        self._observer.taken(delivery)
        if delivery.delivered > 1:
            self._observer.redelivered(delivery)
        try:
            verdict = await self._settlement.verdict(delivery, work.key)
        except asyncio.CancelledError:
            self._let_go(work)
            await self._answer(work.reply, nak(0 if self._draining else backoff_s(delivery.delivered)))
            raise
        self._let_go(work)
        match verdict:
            case Done():
                answer = _ACK
            case Retry(after_s=after_s):
                answer = nak(after_s)
            case Buried():
                answer = _TERM
            case _:
                assert_never(verdict)
        await self._answer(work.reply, answer)
        self._observer.settled(delivery, verdict, self._clock() - work.began_s)

    def _let_go(self, work: _Work) -> None:
        """Its place is free. Before the answer is published, so that both leave in one write."""
        if self._works.pop(work.key, None) is not None:
            self._shares.done()
            self._stir()

    async def _answer(self, reply: str, answer: bytes) -> None:
        """Tell JetStream. Not awaited by the server's word: an answer that is lost means a redelivery."""
        try:
            await self._client.publish(reply, answer)
        except nats.errors.Error as error:
            log.warning("pool %s: %s not sent (%r); the message is redelivered", self.name, answer.decode(), error)

    async def _ticking(self) -> None:
        """Keep what is worked on, and notice what the server forgot."""
        expected_s = self._clock()
        while True:
            expected_s += self._heartbeat_s
            await asyncio.sleep(expected_s - self._clock())
            now_s = self._clock()
            if now_s - expected_s > _LATE_S:
                log.warning(
                    "pool %s: the event loop stood still for %.1f s; messages being worked on may be redelivered",
                    self.name, now_s - expected_s,
                )  # fmt: skip
                expected_s = now_s
            if self._client.stats["reconnects"] != self._reconnects:
                await self.on_reconnect()
            if self._client.is_connected:
                await self._keep(now_s)
                if not self._draining:
                    await self._watch(now_s)
            self._stir()

    async def _keep(self, now_s: float) -> None:
        young_s = now_s - self._heartbeat_s / 2
        for work in [work for work in self._works.values() if work.began_s <= young_s]:
            if self._works.get(work.key) is work:  # not settled while the ones before it were sent
                await self._answer(work.reply, _PROGRESS)

    async def _watch(self, now_s: float) -> None:
        for intake in self._intakes:
            if self._shares.open(intake.index) and intake.lost(now_s):
                log.warning("pool %s: no word about a request to %s; asking again", self.name, intake.source.durable)
                self._observer.stalled(intake.source.name)
                self._shares.emptied(intake.index)
                await self._forget(intake)
        doubting = self._doubt is not None and not self._doubt.done()
        if not doubting and any(intake.silent_s() > DEAF_AFTER_S for intake in self._intakes):
            self._doubt = asyncio.create_task(self._try_connection())

    async def _try_connection(self) -> None:
        """Replace a connection over which nothing comes back although the client holds it for connected."""
        try:
            await exists(self._client, self._sources[0])
        except nats.errors.TimeoutError:
            log.error("pool %s: the server says nothing over this connection; connecting anew", self.name)
            await self._client.force_reconnect()
        except nats.errors.Error as error:
            log.warning("pool %s: the server answers (%r), but not to requests for work", self.name, error)
        await asyncio.sleep(DEAF_AFTER_S)  # one such question at a time, and not often

    def _chore_ended(self, chore: asyncio.Task[None]) -> None:
        if not chore.cancelled() and (error := chore.exception()) is not None:
            log.critical("pool %s takes no more work: a fault of its own", self.name, exc_info=error)
