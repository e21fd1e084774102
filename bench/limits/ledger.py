"""What a provider's ledger says of a limit: the most of any window, and how much of the limit was used."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

STEP_S = 0.1

Asked = tuple[float, int]
"""When the provider had a request, in seconds, and the tokens that it took."""


def asked(entries: Sequence[Mapping[str, Any]]) -> list[Asked]:
    """Return every request. One that was refused counts as a request and takes no tokens."""
    return [
        (one["at"], 0 if one["status"] == 429 else one["prompt_tokens"] + one["completion_tokens"]) for one in entries
    ]


def most_in(times: Sequence[Asked], seconds: float) -> tuple[int, int]:
    """Return the most requests and the most tokens of any window."""
    ordered = sorted(times)
    requests = tokens = begin = held = 0
    for end, (at, count) in enumerate(ordered):
        held += count
        while ordered[begin][0] <= at - seconds:
            held -= ordered[begin][1]
            begin += 1
        requests, tokens = max(requests, end - begin + 1), max(tokens, held)
    return requests, tokens


def used(times: Sequence[Asked], most: tuple[int, int], seconds: float, end: float) -> tuple[float, float]:
    """Return which shares of the requests and of the tokens that are allowed were used, in the mean over windows.

    Over all windows from the first request to `end`, so that it does not depend on where a burst comes to lie: who
    takes all of a limit at once has to wait for a window, and then does the same again.
    """
    first = min(at for at, _ in times)
    starts = [first + STEP_S * step for step in range(max(1, int((end - seconds - first) / STEP_S)))]
    ordered = sorted(times)
    places = [at for at, _ in ordered]
    sums = [0, *accumulate(tokens for _, tokens in ordered)]
    bounds = [(bisect_left(places, start), bisect_left(places, start + seconds)) for start in starts]
    requests = sum(after - before for before, after in bounds) / len(starts)
    tokens = sum(sums[after] - sums[before] for before, after in bounds) / len(starts)
    return requests / most[0], tokens / most[1]
