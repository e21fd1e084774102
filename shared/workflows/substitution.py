"""`{name}` in a prompt stands for a value. Each is put in once; what comes in is data and is never expanded again.

A doubled pair `{{…}}` stands for one pair of literal braces. Braces around anything else stay as they are written, so
that JSON and code in a prompt survive: in `{"a": {"b": 1}}` the two at the end belong to different pairs.
"""

import json
import re
from collections.abc import Mapping
from typing import Final

from pydantic import JsonValue

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BRACE: Final = re.compile(r"[{}]")

Cut = tuple[int, int, str | None]
"""From, to, and the name that stands there; None: a brace too many."""


def references(text: str) -> tuple[str, ...]:
    """Return the names that a text refers to, each once, in order."""
    return tuple(dict.fromkeys(name for _, _, name in _cuts(text) if name is not None))


def substitute(text: str, values: Mapping[str, JsonValue]) -> str:
    """Return the text with every reference replaced in one pass. A name without a value stays as it is written."""
    pieces: list[str] = []
    done = 0
    for start, end, name in _cuts(text):
        pieces.append(text[done:start])
        if name is not None:
            pieces.append(as_text(values[name]) if name in values else text[start:end])
        done = end
    return "".join((*pieces, text[done:]))


def as_text(value: JsonValue) -> str:
    """Return a value as it reads in a prompt: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cuts(text: str) -> list[Cut]:
    """Return what of a text is replaced, in order."""
    closes = _pairs(text)
    cuts: list[Cut] = []
    literal: set[int] = set()
    for start in sorted(closes):
        end = closes[start]
        if start in literal:
            continue
        if closes.get(start + 1) == end - 1:
            literal.add(start + 1)
            cuts += ((start, start + 1, None), (end, end + 1, None))
        elif NAME.fullmatch(text, start + 1, end):
            cuts.append((start, end + 1, text[start + 1 : end]))
    return sorted(cuts, key=lambda cut: cut[0])


def _pairs(text: str) -> dict[int, int]:
    """Return where each opening brace is closed; those that never are, and closing ones too many, are left out."""
    closes: dict[int, int] = {}
    opened: list[int] = []
    for brace in _BRACE.finditer(text):
        if brace.group() == "{":
            opened.append(brace.start())
        elif opened:
            closes[opened.pop()] = brace.start()
    return closes
