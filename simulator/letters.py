"""The Categorizer's letter: L for one heavy task, H for several things that belong together, M for the rest. Pure."""

import re
from typing import Final, Literal

from simulator.demands import Demands, demands_of
from simulator.vocabulary import BIG_TEXT, HARD, LENGTH, LENGTH_WORDS, THOROUGH

Letter = Literal["L", "M", "H"]

ORCHESTRATE_FROM: Final = 3
LONG_TEXT_WORDS: Final = 1_500
LONG_TEXT_PAGES: Final = 5
LENGTH_IS_SAID_WITHIN_CHARS: Final = 2_000
_FRAMED: Final = re.compile(r"<message>\n(.*)\n</message>", re.DOTALL)
"""What is to be sorted, where the question stands around it."""


def sorted_in(text: str) -> str:
    """Return what is to be sorted of what was said."""
    framed = _FRAMED.search(text)
    return framed[1] if framed is not None else text


def letter(request: str) -> Letter:
    """Return the category of a request. H weighs first: in doubt it is H."""
    demands = demands_of(request)
    if weight(demands) >= ORCHESTRATE_FROM:
        return "H"
    return "L" if heavy(request, demands) else "M"


def weight(demands: Demands) -> int:
    """Return how much a request asks for more than one thing at once."""
    more = max(0, len(demands.actions) - 1)
    things = len(demands.deliverables)
    plain_code = demands.code and not demands.media and things < 2
    total = min(more, 1 if plain_code else 3)
    total += min(demands.sequenced, 2) if more or things > 1 else 0
    total += 3 if things > 2 else max(0, things - 1)
    total += (3 if more or things != 1 else 1) if demands.campaign else 0
    total += 3 if demands.media else 0
    total += 2 if demands.investigates_and_produces and not plain_code else 0
    return total


def heavy(request: str, demands: Demands) -> bool:
    """Return whether one strong model should take its time over this."""
    if demands.words & HARD or (demands.words & LENGTH_WORDS and _is_long(request)):
        return True
    if demands.code and not demands.small_code:
        return True
    return bool(demands.words & THOROUGH) and bool(demands.words & BIG_TEXT)


def _is_long(request: str) -> bool:
    for number, thousands, unit in LENGTH.findall(request[:LENGTH_IS_SAID_WITHIN_CHARS].lower()):
        count = int(re.sub(r"[,.]", "", number)) * (1_000 if thousands else 1)
        if count >= (LONG_TEXT_WORDS if unit.startswith("word") else LONG_TEXT_PAGES):
            return True
    return False
