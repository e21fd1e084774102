"""Tokens in a sliding window, over all executors: a record of what every second took. Pure.

A second counts until its window and a margin are over, so that clocks which differ by less than that do no harm. Whose
the tokens are is kept beside that by `SLOTS` a window: coarsely, since only whose turn it is depends on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from shared.contracts.health import TokenWindow

MARGIN_S = 1
SLOTS = 6
SIGNED = 16
MOST_OWNERS = 64
"""In a slot that are told apart; the others seem to hold nothing."""


@dataclass(frozen=True, slots=True)
class Reserved:
    """Tokens that are held, in which second, and the record that says so."""

    second: int
    tokens: int
    record: TokenWindow
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Later:
    """They do not fit now; after so many seconds they may."""

    seconds: float


def reserve(
    record: TokenWindow | None, *, now_s: float, tokens: int, most: int, window_s: int = 60, owner: str = ""
) -> Reserved | Later:
    """Hold tokens, if they fit into the window. A call that alone is more than the limit counts as all of it."""
    wanted, second = min(tokens, most), int(now_s)
    kept = _young(record, now_s, window_s)
    free = most - sum(kept.values())
    if wanted <= free:
        seconds = {**kept, str(second): kept.get(str(second), 0) + wanted}
        owners = _changed(_owners(record, now_s, window_s), _slot(second, window_s), owner, wanted)
        return Reserved(second, wanted, TokenWindow(seconds=seconds, owners=owners), owner)
    for old, held in sorted(kept.items(), key=lambda one: int(one[0])):
        free += held
        if wanted <= free:
            return Later(max(0.05, int(old) + 1 + window_s + MARGIN_S - now_s))
    return Later(float(window_s))


def settle(
    record: TokenWindow | None,
    reserved: Reserved,
    *,
    used: int,
    now_s: float,
    window_s: int = 60,
    sent_s: float | None = None,
) -> TokenWindow:
    """Put what was really used in the place of what was held, in the second in which it was sent.

    That may be later than when it was held: then it counts for longer, as it does with the provider.
    """
    kept = dict(_young(record, now_s, window_s))
    owners = _owners(record, now_s, window_s)
    second = max(reserved.second, int(sent_s or 0))
    if (key := str(reserved.second)) in kept:
        kept[key] = max(0, kept[key] - reserved.tokens)
        owners = _changed(owners, _slot(reserved.second, window_s), reserved.owner, used - reserved.tokens)
    if used and second + 1 + window_s + MARGIN_S > now_s:
        kept[str(second)] = kept.get(str(second), 0) + used
    return TokenWindow(seconds={second: held for second, held in kept.items() if held}, owners=owners)


def signed(record: TokenWindow, before: TokenWindow | None, name: str) -> TokenWindow:
    """Return a record as it is written: with the name of this write after those of the latest before it.

    A write whose answer was lost looks like somebody else's; its name says whose it was, so that nothing is settled
    twice.
    """
    writes = (*(before.writes if before is not None else ()), name)
    return record.model_copy(update={"writes": writes[-SIGNED:]})


def first_over_s(record: TokenWindow | None, *, now_s: float, window_s: int = 60) -> float:
    """Return in how many seconds the oldest tokens count no more."""
    oldest = min((int(second) for second in _young(record, now_s, window_s)), default=int(now_s))
    return max(0.05, oldest + 1 + window_s + MARGIN_S - now_s)


def held(record: TokenWindow | None, *, now_s: float, window_s: int = 60) -> Mapping[str, int]:
    """Return about how many tokens every owner holds or has used; never more in all than count."""
    found: dict[str, int] = {}
    for owners in _owners(record, now_s, window_s).values():
        for owner, tokens in owners.items():
            found[owner] = found.get(owner, 0) + tokens
    counted, told = sum(_young(record, now_s, window_s).values()), sum(found.values())
    return {owner: tokens * counted // told for owner, tokens in found.items()} if told > counted else found


def _young(record: TokenWindow | None, now_s: float, window_s: int) -> Mapping[str, int]:
    seconds = record.seconds if record is not None else {}
    return {second: held for second, held in seconds.items() if int(second) + 1 + window_s + MARGIN_S > now_s}


Owners = Mapping[str, Mapping[str, int]]


def _owners(record: TokenWindow | None, now_s: float, window_s: int) -> Owners:
    slots = record.owners if record is not None else {}
    lives_s = max(1, window_s // SLOTS) + window_s + MARGIN_S
    return {slot: owners for slot, owners in slots.items() if int(slot) + lives_s > now_s}


def _slot(second: int, window_s: int) -> str:
    return str(second - second % max(1, window_s // SLOTS))


def _changed(slots: Owners, slot: str, owner: str, tokens: int) -> dict[str, dict[str, int]]:
    """Return the slots with so many tokens more, or less, of an owner."""
    own = dict(slots.get(slot, {}))
    if owner in own or (owner and tokens > 0 and len(own) < MOST_OWNERS):
        own[owner] = max(0, own.get(owner, 0) + tokens)
    return {
        **{key: dict(owners) for key, owners in slots.items()},
        slot: {name: count for name, count in own.items() if count},
    }
