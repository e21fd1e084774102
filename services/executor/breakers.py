"""The breakers of all executors: kept in a bucket, followed live, so that what one learns all know within a moment."""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from nats.aio.msg import Msg

from services.executor import breaker
from services.executor.breaker import Go, Settings, Wait
from services.executor.taxonomy import MODEL_GONE, Verdict
from shared.bus.buckets import ON_TOP_OF
from shared.bus.connection import Bus
from shared.bus.errors import BusError
from shared.config.providers import Route
from shared.contracts.health import BreakerState
from shared.contracts.message import Unreadable
from shared.observe import metrics
from shared.topology import BREAKERS

log = logging.getLogger("segue.executor")

LOOK_S = 5.0
"""What is heard live is a hint: the bucket is read again after this long, and after every reconnect."""
TRIES = 20

Place = tuple[int, int]
"""What a state is in the bucket: its revision, and 0; of one that was heard, the revision that it came after, and 1."""


def key_of(provider: str, model: str) -> str:
    """Return the bucket's key: model ids have characters that keys don't."""
    return hashlib.sha256(f"{provider} {model}".encode()).hexdigest()[:32]


@dataclass(slots=True)
class Breakers:
    """What this process knows of them."""

    bus: Bus
    settings: Settings
    now: Callable[[], datetime]
    _known: dict[str, BreakerState] = field(default_factory=dict)
    _learnt: dict[str, Place] = field(default_factory=dict)
    """Of what was heard or written since the last look, where it stands: an older read does not undo it."""
    _following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read them, and follow what changes."""
        await self.bus.client.subscribe(f"$KV.{BREAKERS}.*", cb=self._heard)
        await self._look()
        self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        if self._following is not None:
            self._following.cancel()

    async def reconnected(self) -> None:
        """To be called when the connection was made again: what was said meanwhile was missed."""
        with contextlib.suppress(BusError):
            await self._look()

    async def _heard(self, msg: Msg) -> None:
        key = msg.subject.rsplit(".", 1)[1]
        headers = msg.headers or {}
        place = (int(headers.get(ON_TOP_OF) or self._learnt.get(key, (0, 0))[0]), 1)
        if headers.get("KV-Operation") in {"DEL", "PURGE"} or not msg.data:
            self._learn(key, None, place)
            return
        with contextlib.suppress(Unreadable):
            self._learn(key, BreakerState.decode(msg.data), place)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            with contextlib.suppress(BusError):
                await self._look()

    async def _look(self) -> None:
        """Read the bucket. What was learnt since the last look, and is newer than what a replica has, stays."""
        before = dict(self._learnt)
        there = await self.bus.breakers.entries("", BreakerState)
        for key in self._known.keys() - there.keys() - self._learnt.keys():
            self._forget(key)
        for key, (state, revision) in there.items():
            if (revision, 0) >= self._learnt.get(key, (0, 0)):
                self._note(key, state)
        self._learnt = {key: place for key, place in self._learnt.items() if before.get(key) != place}

    def _learn(self, key: str, state: BreakerState | None, place: Place) -> None:
        """Take in a state, or that there is none, unless something newer is known."""
        if place < self._learnt.get(key, (0, 0)):
            return
        self._learnt[key] = place
        if state is not None:
            self._note(key, state)
        else:
            self._forget(key)

    def _note(self, key: str, state: BreakerState) -> None:
        before = self._known.get(key)
        self._known[key] = state
        metrics.BREAKER_OPEN.labels(state.provider, state.model).set(_LEVELS[state.state])
        gone = state.state != "closed" and state.code == MODEL_GONE.code
        if gone or (before is not None and before.code == MODEL_GONE.code):
            metrics.MODEL_GONE.labels(state.provider, state.model).set(1 if gone else 0)
        if state.state != (before.state if before is not None else "closed"):
            log.warning(
                "breaker.changed",
                extra={"provider": state.provider, "model": state.model, "state": state.state, "reason": state.reason},
            )

    def _forget(self, key: str) -> None:
        before = self._known.pop(key, None)
        if before is not None:
            metrics.BREAKER_OPEN.labels(before.provider, before.model).set(0)
            if before.code == MODEL_GONE.code:
                metrics.MODEL_GONE.labels(before.provider, before.model).set(0)
            if before.state != "closed":
                log.warning("breaker.closed", extra={"provider": before.provider, "model": before.model})

    async def gate(self, route: Route) -> Go | Wait:
        """Return whether a route may be asked now; a half-open one lets only a few through, over all executors."""
        key = key_of(route.provider, route.model)
        known = self._known.get(key)
        if known is None:
            return Go()
        found = breaker.gate(known, self.now(), self.settings)
        if not isinstance(found, Go) or found.state is None:
            return found
        for _ in range(TRIES):
            state, revision = await self.bus.breakers.get(key, BreakerState)
            found = breaker.gate(state, self.now(), self.settings)
            if not isinstance(found, Go) or found.state is None:
                return found
            if (written := await self.bus.breakers.put(key, found.state, revision)) is not None:
                self._learn(key, found.state, (written, 0))
                return Go(probe=True)
        return Wait(1.0)

    async def failed(self, route: Route, verdict: Verdict, reason: str, *, probe: bool) -> None:
        """Take a failure in, if it speaks against the model."""
        if not breaker.counts(verdict):
            if probe:
                await self.put_probe_back(route)
            return
        key = key_of(route.provider, route.model)
        for _ in range(TRIES):
            there, revision = await self.bus.breakers.get(key, BreakerState)
            state = there or BreakerState(provider=route.provider, model=route.model)
            after = breaker.after_failure(
                state, verdict, reason[:500], probe=probe, now=self.now(), settings=self.settings
            )
            if after == there:
                return
            if (written := await self.bus.breakers.put(key, after, revision)) is not None:
                self._learn(key, after, (written, 0))
                return

    async def answered(self, route: Route, *, probe: bool) -> None:
        """Take an answer in. A model that nobody has anything against costs nothing here."""
        key = key_of(route.provider, route.model)
        if key not in self._known:
            return
        for _ in range(TRIES):
            there, revision = await self.bus.breakers.get(key, BreakerState)
            if there is None:
                self._forget(key)
                return
            after = breaker.after_answer(there, probe=probe, settings=self.settings)
            if after is None:
                await self.bus.breakers.delete(key)
                self._learn(key, None, (revision, 1))
                return
            written = revision if after == there else await self.bus.breakers.put(key, after, revision)
            if written is not None:
                self._learn(key, after, (written, 0))
                return

    async def put_probe_back(self, route: Route) -> None:
        """Let another call try: this one's failure says nothing about the model."""
        key = key_of(route.provider, route.model)

        def more(state: BreakerState | None) -> BreakerState | None:
            if state is None or state.state != "half_open":
                return None
            return state.model_copy(update={"probes": min(self.settings.probes, state.probes + 1)})

        await self.bus.breakers.update(key, BreakerState, more)


_LEVELS = {"closed": 0.0, "half_open": 0.5, "open": 1.0}
