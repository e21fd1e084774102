"""Which of a role's models a run is asked of. Pure: models are told by their places in a row of weights."""

import zlib
from collections.abc import Sequence


def chosen(role: str, key: str, weights: Sequence[int]) -> int:
    """Return the place that a key falls to: always the same, and over many keys each by its weight.

    `key` is the session, else the run, so that a conversation stays with one model. Without any weight: the first.
    """
    total = sum(weights)
    place = zlib.crc32(f"{role} {key}".encode()) % total if total else 0
    for index, weight in enumerate(weights):
        place -= weight
        if place < 0:
            return index
    return 0


def in_order(role: str, key: str, weights: Sequence[int]) -> Sequence[int]:
    """Return the places in the order in which they are asked: the chosen one, then those that stand in for it.

    One that nothing falls to is asked nothing, not even in another's place.
    """
    first = chosen(role, key, weights)
    return [first, *(index for index, weight in enumerate(weights) if index != first and weight)]
