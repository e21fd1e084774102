"""Tokens in a sliding window, over all executors: a record of what every second took. Pure.

A second counts until its window and a margin are over, so that clocks which differ by less than that do no harm.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from shared.contracts.health import TokenWindow

MARGIN_S = 1


@dataclass(frozen=True, slots=True)
class Reserved:
    """Tokens that are held, in which second, and the record that says so."""

    second: int
    tokens: int
    record: TokenWindow


@dataclass(frozen=True, slots=True)
class Later:
    """They do not fit now; after so many seconds they may."""

    seconds: float


def reserve(
    record: TokenWindow | None, *, now_s: float, tokens: int, most: int, window_s: int = 60
) -> Reserved | Later:
    """Hold tokens, if they fit into the window. A call that alone is more than the limit counts as all of it."""
    wanted, second = min(tokens, most), int(now_s)
    kept = _young(record, now_s, window_s)
    free = most - sum(kept.values())
    if wanted <= free:
        return Reserved(second, wanted, TokenWindow(seconds={**kept, str(second): kept.get(str(second), 0) + wanted}))
    for old, held in sorted(kept.items(), key=lambda one: int(one[0])):
        free += held
        if wanted <= free:
            return Later(max(0.05, int(old) + 1 + window_s + MARGIN_S - now_s))
    return Later(float(window_s))


def settle(
    record: TokenWindow | None, reserved: Reserved, *, used: int, now_s: float, window_s: int = 60
) -> TokenWindow:
    """Put what was really used in the place of what was held."""
    kept = dict(_young(record, now_s, window_s))
    key = str(reserved.second)
    if key in kept:
        kept[key] = max(0, kept[key] - reserved.tokens + used)
    return TokenWindow(seconds={second: held for second, held in kept.items() if held})


def _young(record: TokenWindow | None, now_s: float, window_s: int) -> Mapping[str, int]:
    seconds = record.seconds if record is not None else {}
    return {second: held for second, held in seconds.items() if int(second) + 1 + window_s + MARGIN_S > now_s}
