"""Times as the bus and the history write them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.moments import from_rfc3339, rfc3339, time_of, us_of


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-27T08:00:00Z", datetime(2026, 11, 27, 8, tzinfo=UTC)),
        ("2026-11-27T08:00:00.12Z", datetime(2026, 11, 27, 8, 0, 0, 120_000, tzinfo=UTC)),
        ("2026-11-27T08:00:00.123456789Z", datetime(2026, 11, 27, 8, 0, 0, 123_456, tzinfo=UTC)),
        ("2026-11-27T10:00:00+02:00", datetime(2026, 11, 27, 8, tzinfo=UTC)),
        ("2026-11-27T08:00:00", datetime(2026, 11, 27, 8, tzinfo=UTC)),
        ("", None),
        ("soon", None),
    ],
)
def test_what_the_bus_tells_is_read(text: str, at: datetime | None) -> None:
    """A second may have up to nine digits, a time without a zone is UTC, and what is no time is none."""
    assert from_rfc3339(text) == at


@given(st.timedeltas(timedelta(), timedelta(days=80_000)))
def test_a_time_comes_back_as_it_was(since: timedelta) -> None:
    """Neither the bus's way nor the history's loses a microsecond."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + since
    assert from_rfc3339(rfc3339(at)) == at
    assert time_of(us_of(at)) == at
