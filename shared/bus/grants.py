"""Limits that the server keeps: a grant is a message that lives as long as its window, and a stream takes only so many.

Every executor takes its grants from the same small streams, so a limit is exact however many there are, and what an
executor that died had taken comes back by itself. A grant lives a margin longer than its window: a request goes out
a moment after its grant was taken, and that moment is not always the same. Without the margin a late request and a
prompt one could come closer together than their grants, and the provider would count one too many.

A grant's subject says whose it is, so that the stream can also be asked who holds how many.
"""

import contextlib
import json
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from shared import subjects
from shared.bus.errors import QueueFull, Refused
from shared.bus.jetstream import WRONG_LAST_SEQUENCE, JetStream
from shared.moments import from_rfc3339
from shared.topology import Window, stream_of

LEAST_WAIT_S: Final = 0.02
TRIES: Final = 50
FURTHEST: Final = 16
"""Of the oldest grants: how far those who wait spread over them."""

Owner = tuple[str, str]
"""A tenant, and the priority of its calls."""
Turn = Callable[[Window, Mapping[Owner, int]], float]
"""By how many grants of a window everybody holds: 0 when it is the taker's turn, else for how many seconds it may be
others' at the most."""


@dataclass(frozen=True, slots=True)
class Granted:
    """A request may go out, within `USE_WITHIN_S` of `at`."""

    at: float
    """`time.monotonic()` before the first grant was asked for: whoever stands still until the answer comes has lost of
    its window what the server counts."""
    taken: tuple[tuple[str, int], ...] = ()
    """Streams and sequences of the grants."""


@dataclass(frozen=True, slots=True)
class Full:
    """As many as may go out in a window have, or what is free is others': come back after so many seconds."""

    seconds: float
    window: str


@dataclass(frozen=True, slots=True)
class Held:
    """Who holds how many grants of a window."""

    by: Mapping[Owner, int]
    last_seq: int | None
    """Of the stream when that was so; None: nobody answered."""


@dataclass(slots=True)
class Grants:
    """Grants over one connection."""

    jetstream: JetStream
    chance: random.Random = field(default_factory=random.Random)

    async def take(
        self, limit: str, windows: Sequence[Window], owner: Owner, *, turn: Turn | None = None, waiting: int = 0
    ) -> Granted | Full:
        """Take one grant of every window of a limit, or none of any.

        `turn` decides whether the owner may; without it nobody is asked who holds what. `waiting`: about how many wait
        for the same, over whose time a refusal is spread.
        """
        taken: list[tuple[str, int]] = []
        at = math.inf
        for window in sorted(windows, key=lambda one: -one.seconds):
            found = await self._take(limit, window, owner, turn, waiting)
            if isinstance(found, Full):
                await self.give_back(taken)
                return found
            seq, asked_at = found
            taken.append((stream_of(limit, window), seq))
            at = min(at, asked_at)
        return Granted(min(at, time.monotonic()), tuple(taken))

    async def _take(
        self, limit: str, window: Window, owner: Owner, turn: Turn | None, waiting: int
    ) -> tuple[int, float] | Full:
        """Return the sequence of one grant, and when it was asked for.

        Where turns count, a grant is only taken on top of what the decision saw: takers at other executors that look
        at the same moment would all see the same place free.
        """
        subject = subjects.grant(limit, window.name, *owner)
        stream = stream_of(limit, window)
        for _ in range(TRIES):
            expected: dict[str, str] | None = None
            if turn is not None:
                held = await self.held(limit, window)
                if others_s := turn(window, held.by):
                    return Full(await self._wait_s(window, stream, waiting, others_s), window.name)
                expected = {"Nats-Expected-Last-Sequence": str(held.last_seq)} if held.last_seq is not None else None
            asked_at = time.monotonic()
            try:
                return await self.jetstream.publish(subject, b"", headers=expected), asked_at
            except QueueFull:
                return Full(await self._wait_s(window, stream, waiting, window.lives_s), window.name)
            except Refused as refused:
                if refused.err_code != WRONG_LAST_SEQUENCE:
                    raise
        return Full(LEAST_WAIT_S, window.name)

    async def held(self, limit: str, window: Window) -> Held:
        """Return how many grants of a window everybody holds, by the stream's leader; nothing without its answer."""
        body = json.dumps({"subjects_filter": subjects.grant(limit, window.name, "*", "*")}).encode()
        with contextlib.suppress(TimeoutError):
            msg = await self.jetstream.request(f"$JS.API.STREAM.INFO.{stream_of(limit, window)}", body)
            state = json.loads(msg.data or b"{}").get("state", {})
            counts = state.get("subjects") or {}
            by = {holder: count for subject, count in counts.items() if (holder := subjects.granted_to(subject))}
            return Held(by, state.get("last_seq"))
        return Held({}, None)

    async def give_back(self, taken: Sequence[tuple[str, int]]) -> None:
        """Let others have grants that were not used. One that is lost on the way comes back with its window."""
        for stream, seq in taken:
            body = json.dumps({"seq": seq, "no_erase": True}).encode()
            with contextlib.suppress(TimeoutError):
                await self.jetstream.request(f"$JS.API.STREAM.MSG.DELETE.{stream}", body)

    async def _wait_s(self, window: Window, stream: str, waiting: int, most_s: float) -> float:
        """Return when one of the oldest grants is over, scattered a little: all who wait cannot have the same one."""
        rank = self.chance.randrange(1 + min(waiting // 4, FURTHEST - 1))
        oldest = await self.jetstream.direct_on(stream, ">", limit=rank + 1)
        left_s = 0.0
        if oldest and (stored := from_rfc3339(oldest[-1].time)) is not None:
            left_s = window.lives_s - (datetime.now(UTC) - stored).total_seconds()
        return max(LEAST_WAIT_S, min(left_s, most_s)) + self.chance.random() * min(1.0, window.seconds / 4)
