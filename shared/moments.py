"""Times as others write them: RFC 3339 as the bus does, µs since 1970 as the history does. Pure."""

from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)


def rfc3339(at: datetime) -> str:
    """Return the time in UTC with six digits of a second, as the bus's schedules want it."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def from_rfc3339(text: str) -> datetime | None:
    """Return a time as the bus tells it, with up to nine digits of a second; in UTC where it names no zone.

    None: it is no time.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def us_of(at: datetime) -> int:
    """Return µs since 1970."""
    return (at - EPOCH) // _US


def time_of(us: int | None) -> datetime | None:
    """Return the time of µs since 1970."""
    return None if us is None else EPOCH + timedelta(microseconds=us)
