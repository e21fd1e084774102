"""Schedules: what starts a template again and again. The registry says what is wanted, the bus keeps the time.

The scheduled message is made from the registry's word, here when it is written and by every planner now and then,
so that neither a gateway that died in between nor a stream that was made anew leaves a schedule without its clock.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from shared import subjects
from shared.bus.connection import Bus
from shared.bus.errors import Refused
from shared.bus.jetstream import Stored
from shared.contracts.message import Unreadable
from shared.contracts.registry import Schedule, ScheduleDue, ScheduleState
from shared.moments import from_rfc3339
from shared.subjects import ROOT
from shared.topology import FINISHES

log = logging.getLogger("segue.registry")

MOST_BYTES: Final = 200_000
MOST: Final = 500
"""Schedules of one tenant."""
BAD_PATTERN: Final = 10189
BAD_ZONE: Final = 10223


class BadSchedule(Exception):
    """The bus does not understand when. `field` is the one that is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class TooManySchedules(Exception):
    """The tenant's places for schedules are taken."""

    def __init__(self) -> None:
        super().__init__(f"there are {MOST} schedules already; delete one first")


def pattern(schedule: Schedule) -> tuple[str, str | None]:
    """Return when, as the bus wants it (ADR-51), and the time zone where one counts. Raises `BadSchedule`."""
    if (schedule.cron is None) == (schedule.every is None):
        raise BadSchedule("cron", "give either cron or every")
    if (size := len(schedule.encode())) > MOST_BYTES:
        raise BadSchedule("variables", f"{size:,} bytes; at most {MOST_BYTES:,} are kept with a schedule")
    if schedule.every is not None:
        return f"@every {schedule.every.strip()}", None
    assert schedule.cron is not None
    cron = " ".join(schedule.cron.split())
    # The usual five fields mean second 0; the bus wants to be told so.
    return (cron if cron.startswith("@") or cron.count(" ") != 4 else f"0 {cron}"), schedule.timezone


@dataclass(frozen=True, slots=True)
class Schedules:
    """The schedules of every tenant."""

    bus: Bus

    async def get(self, tenant: str, name: str) -> Schedule | None:
        """Return a schedule by the registry's leader; None where there is none (any more)."""
        found, _ = await self.bus.registry.get(f"schedule.{tenant}.{name}", Schedule)
        return None if found is None or found.deleted else found

    async def state(self, tenant: str, name: str) -> ScheduleState:
        """Return what has become of a schedule so far."""
        found, _ = await self.bus.registry.get(f"fired.{tenant}.{name}", ScheduleState)
        return found or ScheduleState()

    async def all(self, tenant: str) -> list[tuple[Schedule, ScheduleState]]:
        """Return every schedule by name, with what has become of it: for listings."""
        wanted = await self.bus.registry.every(f"schedule.{tenant}", Schedule)
        states = await self.bus.registry.every(f"fired.{tenant}", ScheduleState)
        return [
            (one, states.get(f"fired.{tenant}.{one.name}", ScheduleState()))
            for _, one in sorted(wanted.items())
            if not one.deleted
        ]

    async def write(self, tenant: str, name: str, make: Callable[[int], Schedule]) -> tuple[Schedule, bool]:
        """Write a schedule's next version, which `make` returns, and set the bus's clock by it.

        Returns it, and whether there was none.

        Raises `BadSchedule` with nothing changed, `TooManySchedules`.
        """
        key = f"schedule.{tenant}.{name}"
        while True:
            before, revision = await self.bus.registry.readable(key, Schedule)
            new = before is None or before.deleted
            if new and len(await self.all(tenant)) >= MOST:
                raise TooManySchedules
            wanted = make((before.version if before is not None else revision) + 1)
            await self._try(wanted)
            if await self.bus.registry.put(key, wanted, revision) is not None:
                await self._set(wanted)
                return wanted, new

    async def delete(self, schedule: Schedule, *, by: str) -> None:
        """Forget a schedule; the runs that it began go on."""

        def gone(now: Schedule | None) -> Schedule | None:
            if now is None or now.deleted:
                return None
            changed = {"deleted": True, "version": now.version + 1, "written_at": datetime.now(UTC), "by": by}
            return now.model_copy(update=changed)

        await self.bus.registry.update(f"schedule.{schedule.tenant}.{schedule.name}", Schedule, gone)
        await self._stop(schedule.tenant, schedule.name)
        await self.bus.registry.delete(f"fired.{schedule.tenant}.{schedule.name}")

    async def reconcile(self) -> int:
        """Set the clocks that are missing or of another version, stop those that nobody wants; returns how many."""
        unreadable: dict[str, Unreadable] = {}
        """By key. A later version of ours may have written them: their clocks are left alone."""
        known = await self.bus.registry.every("schedule", Schedule, unreadable=unreadable.__setitem__)
        wanted = {
            subjects.schedule(one.tenant, one.name): one for one in known.values() if not one.deleted and not one.paused
        }
        every = self.bus.jetstream.direct_each(FINISHES, f"{ROOT}.schedule.*.*")
        ticking = {one.subject: one async for one in every}
        changed = 0
        for subject, schedule in wanted.items():
            if _version(ticking.get(subject)) != schedule.version:
                # Another gateway may be writing it at this moment: what counts is the registry's leader.
                now = await self.get(schedule.tenant, schedule.name)
                if now is not None and not now.paused and await self._missing(now):
                    await self._set(now)
                    changed += 1
        alone = {subjects.schedule(*key.split(".")[1:]) for key in unreadable}
        for subject in ticking.keys() - wanted.keys() - alone:
            _, _, tenant, name = subject.split(".")
            found = await self.get(tenant, name)
            if found is None or found.paused:
                await self._stop(tenant, name)
                changed += 1
        if changed:
            log.warning("schedules.reconciled", extra={"changed": changed})
        return changed

    async def _missing(self, schedule: Schedule) -> bool:
        there = await self.bus.jetstream.last(FINISHES, subjects.schedule(schedule.tenant, schedule.name))
        return _version(there) != schedule.version

    async def _try(self, schedule: Schedule) -> None:
        """Have the bus read when, without keeping it: it is the only one who says what it understands."""
        probe = subjects.schedule("_", f"{schedule.tenant}-{schedule.name}"[:64])
        await self._publish(probe, schedule, target=subjects.schedule_due("_", "none"))
        await self.bus.jetstream.purge(FINISHES, probe)

    async def _set(self, schedule: Schedule) -> None:
        if schedule.paused:
            await self._stop(schedule.tenant, schedule.name)
            return
        target = subjects.schedule_due(schedule.tenant, schedule.name)
        await self._publish(subjects.schedule(schedule.tenant, schedule.name), schedule, target=target)

    async def _publish(self, subject: str, schedule: Schedule, *, target: str) -> None:
        when, zone = pattern(schedule)
        headers: dict[str, str] = {"Nats-Schedule": when, "Nats-Schedule-Target": target}
        if zone is not None and zone != "UTC":
            headers["Nats-Schedule-Time-Zone"] = zone
        due = ScheduleDue(tenant=schedule.tenant, name=schedule.name, version=schedule.version)
        try:
            await self.bus.jetstream.publish(subject, due.encode(), headers=headers)
        except Refused as refused:
            raise _bad(schedule, refused) from refused

    async def _stop(self, tenant: str, name: str) -> None:
        await self.bus.jetstream.purge(FINISHES, subjects.schedule(tenant, name))


def _bad(schedule: Schedule, refused: Refused) -> Exception:
    if refused.err_code == BAD_ZONE:
        return BadSchedule(
            "timezone", f"{schedule.timezone!r} is no time zone of the IANA database, such as Europe/Berlin"
        )
    if refused.err_code == BAD_PATTERN:
        if schedule.every is not None:
            return BadSchedule("every", f"{schedule.every!r} is no duration of a second or more, such as 90s, 15m, 6h")
        return BadSchedule(
            "cron",
            f"{schedule.cron!r} is no cron expression: minute hour day month weekday, such as '0 8 * * 1-5', "
            "with seconds before it where there are six, or @hourly, @daily, @weekly, @monthly, @yearly",
        )
    return refused


def _version(stored: Stored | None) -> int | None:
    if stored is None:
        return None
    try:
        return ScheduleDue.decode(stored.data).version
    except Unreadable:
        return None


def next_of(headers: Mapping[str, str] | None) -> datetime | None:
    """Return when the bus fires again, as it said when it fired (`Nats-Schedule-Next`)."""
    return from_rfc3339((headers or {}).get("Nats-Schedule-Next", ""))
