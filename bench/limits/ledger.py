"""What a provider's ledger says of a limit: the most of any window, and how much of the limit was used."""

from collections.abc import Mapping, Sequence
from typing import Any

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


def used(
    times: Sequence[Asked], begin: float, end: float, most: tuple[int, int], seconds: float
) -> tuple[float, float]:
    """Return which shares of the requests and of the tokens that are allowed between two moments were used."""
    within = [tokens for at, tokens in times if begin < at <= end]
    windows = (end - begin) / seconds
    return len(within) / (most[0] * windows), sum(within) / (most[1] * windows)
