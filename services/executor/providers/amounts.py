"""What providers count and say, read with doubt. Pure."""

from typing import Final

MOST_TOKENS: Final = 1e12
MOST_USD: Final = 1e6
"""Of one answer. A provider that says more says nothing."""


def amount(value: object, most: float) -> float | None:
    """Return what can be an amount; None for what cannot: not a number, negative, absurd."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        return None
    return float(value)


def word(value: object) -> str | None:
    """Return a short text; None for what is none."""
    return value[:200] if isinstance(value, str) and value else None


def shown(value: object) -> str:
    """Return the beginning of what somebody said, for people."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else repr(value)
    return text[:200]
