"""Limits that the server keeps: a grant is a message that lives as long as its window, and a stream takes only so many.

Every executor takes its grants from the same small streams, so a limit is exact however many there are, and what an
executor that died had taken comes back by itself. A grant lives a `MARGIN_S` longer than its window: a request goes out
a moment after its grant was taken, and that moment is not always the same. Without the margin a late request and a
prompt one could come closer together than their grants, and the provider would count one too many.
"""

import contextlib
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from shared import subjects
from shared.bus.errors import QueueFull
from shared.bus.jetstream import JetStream
from shared.topology import Window, stream_of

LEAST_WAIT_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Granted:
    """A request may go out, within `USE_WITHIN_S` of `at`."""

    at: float
    """`time.monotonic()`"""
    taken: tuple[tuple[str, int], ...] = ()
    """Streams and sequences of the grants."""


@dataclass(frozen=True, slots=True)
class Full:
    """As many as may go out in a window have: come back after so many seconds."""

    seconds: float
    window: str


@dataclass(slots=True)
class Grants:
    """Grants over one connection."""

    jetstream: JetStream
    chance: random.Random = field(default_factory=random.Random)

    async def take(self, limit: str, windows: Sequence[Window]) -> Granted | Full:
        """Take one grant of every window of a limit, or none of any."""
        taken: list[tuple[str, int]] = []
        for window in sorted(windows, key=lambda one: -one.seconds):
            stream = stream_of(limit, window)
            try:
                seq = await self.jetstream.publish(subjects.grant(limit, window.name), b"")
            except QueueFull:
                await self.give_back(taken)
                return Full(await self._wait_s(limit, window), window.name)
            taken.append((stream, seq))
        return Granted(time.monotonic(), tuple(taken))

    async def give_back(self, taken: Sequence[tuple[str, int]]) -> None:
        """Let others have grants that were not used. One that is lost on the way comes back with its window."""
        for stream, seq in taken:
            body = json.dumps({"seq": seq, "no_erase": True}).encode()
            with contextlib.suppress(TimeoutError):
                await self.jetstream.request(f"$JS.API.STREAM.MSG.DELETE.{stream}", body)

    async def _wait_s(self, limit: str, window: Window) -> float:
        """Return when the oldest grant is over, scattered a little: all who wait cannot have the same one."""
        stream = stream_of(limit, window)
        oldest = await self.jetstream.direct_on(stream, subjects.grant(limit, window.name), limit=1)
        left_s = 0.0
        if oldest and oldest[0].time:
            stored = datetime.fromisoformat(oldest[0].time[:26].rstrip("Z") + "+00:00")
            left_s = window.lives_s - (datetime.now(UTC) - stored).total_seconds()
        return max(LEAST_WAIT_S, left_s) + self.chance.random() * min(1.0, window.seconds / 4)
