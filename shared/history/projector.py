"""Take the log in, stretch by stretch, into the history; whoever wants to read can ask for what is new first."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from shared import subjects
from shared.bus.connection import Bus
from shared.bus.errors import BusError, NotProvisioned, Unavailable
from shared.bus.jetstream import Stored
from shared.bus.payloads import HEADER, PayloadMissing
from shared.history.projection import Fact, project, wanted
from shared.history.rows import Rows
from shared.history.store import History, HistoryUnavailable, Position
from shared.moments import us_of
from shared.observe import metrics
from shared.subjects import ROOT
from shared.topology import EVENTS

log = logging.getLogger("segue.history")

STRETCH = 250
"""Facts taken in by one transaction."""
STRETCH_BYTES = 8 * 1024 * 1024
REST_S = 1.0
"""Between looks at a log that has nothing new."""
OTHERS_S = 2.0
"""For how long somebody else, who was quicker, is left to it."""
TROUBLE_S = 5.0
COUNT_EVERY_S = 10.0
FORGET_EVERY_S = 3600.0
DAY_US = 86_400_000_000


class Projector:
    """One process's. `start` it, `fresh` before reading, `stop` it."""

    def __init__(self, bus: Bus, history: History, *, runs_days: float, calls_days: float) -> None:
        self.history = history
        self.taken = 0
        """Facts taken in by this process."""
        self.problem: str | None = None
        self._bus = bus
        self._days = runs_days, calls_days
        self._wake = asyncio.Event()
        self._looked = asyncio.Condition()
        self._looks = 0
        self._task: asyncio.Task[None] | None = None
        self._forgot = 0.0
        self._counted = -COUNT_EVERY_S

    async def start(self) -> None:
        self._task = asyncio.create_task(self._keep_up())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await asyncio.to_thread(self.history.close)

    async def fresh(self, within_s: float = 1.0) -> None:
        """Return once everything that is on the log now is taken in, or the time is over.

        Raises `HistoryUnavailable` when the history cannot be kept at the moment.
        """
        wanted_look = self._looks + 2  # the one that goes on may have begun before this
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s), self._looked:
                await self._looked.wait_for(lambda: self._looks >= wanted_look or self.problem is not None)
        if self.problem is not None:
            raise HistoryUnavailable(self.problem)

    async def _keep_up(self) -> None:
        while True:
            pause_s = REST_S
            try:
                if not await self.catch_up():
                    pause_s = OTHERS_S
                self.problem = None
                await self._tidy()
            except (HistoryUnavailable, BusError) as error:
                if self.problem != str(error):
                    log.warning("history.behind", extra={"problem": str(error)})
                self.problem, pause_s = str(error), TROUBLE_S
                metrics.HISTORY_FAILURES.inc()
            except Exception:
                log.exception("history.failed")
                self.problem, pause_s = "an error of ours; the gateway's log has it", TROUBLE_S
                metrics.HISTORY_FAILURES.inc()
            async with self._looked:
                self._looks += 1
                self._looked.notify_all()
            # A reader that waits needs one more look, at once; a database that is down is not hammered for it.
            if not self._wake.is_set() or self.problem is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._wake.wait()
                        if self.problem is not None:
                            await asyncio.sleep(1.0)
            self._wake.clear()

    async def catch_up(self) -> bool:
        """Take in all that is new; False when somebody else was quicker with a stretch."""
        position = await asyncio.to_thread(self.history.position, await self._made())
        while True:
            page = await self._bus.jetstream.direct_page(
                EVENTS, f"{ROOT}.event.>", after=position.seq, limit=STRETCH, max_bytes=STRETCH_BYTES
            )
            if not page:
                return True
            rows = await self._rows(page)
            if not await asyncio.to_thread(self.history.apply, position, page[-1].seq, rows):
                return False
            self.taken += len(page)
            metrics.HISTORY_FACTS.inc(len(page))
            if rows.skipped:
                log.warning("history.unreadable", extra={"facts": rows.skipped, "up_to": page[-1].seq})
            position = Position(position.era, page[-1].seq)
            if len(page) < STRETCH and sum(len(one.data) for one in page) < STRETCH_BYTES // 2:
                return True  # that was all: to look for the few that came meanwhile would never end

    async def _rows(self, page: Sequence[Stored]) -> Rows:
        facts = [await self._fact(stored) for stored in page]
        return await asyncio.to_thread(project, facts)

    async def _fact(self, stored: Stored) -> Fact:
        """Return a fact with its outline; a body by reference that has none is fetched."""
        body = stored.data
        tenant, run_id, name = subjects.told_of(stored.subject)
        if not body and stored.headers and HEADER in stored.headers and wanted(name) is not None:
            with contextlib.suppress(PayloadMissing):  # it is counted as unreadable
                body = await self._bus.payloads.unpack(stored.data, stored.headers)
        return Fact(tenant, run_id, name, stored.seq, stored.time, body)

    async def _made(self) -> str:
        """Return when the log's stream was made: another time, another stream."""
        try:
            msg = await self._bus.jetstream.request(f"$JS.API.STREAM.INFO.{EVENTS}")
        except TimeoutError as error:
            raise Unavailable(f"the state of stream {EVENTS}", 2.0) from error
        info = json.loads(msg.data or b"{}")
        if "created" not in info:
            raise NotProvisioned(f"stream {EVENTS!r}")
        return str(info["created"])

    async def _tidy(self) -> None:
        if time.monotonic() - self._counted >= COUNT_EVERY_S:
            self._counted = time.monotonic()
            count, _ = await asyncio.to_thread(self.history.unknown_total)
            metrics.UNKNOWN_NOW.set(count)
        if time.monotonic() - self._forgot < FORGET_EVERY_S and self._forgot:
            return
        self._forgot = time.monotonic()
        now_us = us_of(datetime.now(UTC))
        runs_days, calls_days = self._days
        await asyncio.to_thread(
            self.history.forget,
            runs_before_us=now_us - round(runs_days * DAY_US),
            calls_before_us=now_us - round(calls_days * DAY_US),
        )
