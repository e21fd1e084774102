"""`{name}` in a prompt stands for a value. Each is put in once; what comes in is data and is never expanded again.

A doubled pair `{{…}}` stands for one pair of literal braces. Braces around anything else stay as they are written, so
that JSON and code in a prompt survive: in `{"a": {"b": 1}}` the two at the end belong to different pairs.
"""

import json
import re
from collections.abc import Container, Mapping
from typing import Final

from pydantic import JsonValue

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PATH: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*|\[\d{1,6}\])+")
"""A part of a value that is JSON: `{report.title}`, `{items[0].name}`. Literal text where its head is not known."""
_STEP: Final = re.compile(r"\.([A-Za-z_][A-Za-z0-9_]*)|\[(\d+)\]")
_BRACE: Final = re.compile(r"[{}]")
_FENCE: Final = re.compile(r"```[A-Za-z]*\s*\n(.*?)\n?```", re.DOTALL)

Cut = tuple[int, int, str | None]
"""From, to, and the name that stands there; None: a brace too many."""


def references(text: str) -> tuple[str, ...]:
    """Return the names that a text refers to, each once, in order; heads of paths are `heads`."""
    return tuple(dict.fromkeys(name for _, _, name in _cuts(text) if name is not None and NAME.fullmatch(name)))


def heads(text: str, known: Container[str]) -> tuple[str, ...]:
    """Return the known names that paths in a text begin with, each once, in order."""
    found = (NAME.match(name) for _, _, name in _cuts(text) if name is not None and PATH.fullmatch(name))
    return tuple(dict.fromkeys(match.group() for match in found if match is not None and match.group() in known))


def whole(text: str) -> str | None:
    """Return the one reference that a text consists of, a name or a path; None when it is anything else."""
    cuts = _cuts(text.strip())
    if len(cuts) == 1 and cuts[0][2] is not None and cuts[0][:2] == (0, len(text.strip())):
        return cuts[0][2]
    return None


def value_at(reference: str, values: Mapping[str, JsonValue]) -> JsonValue:
    """Return what a name or a path stands for. Raises `KeyError` with the reference when there is no such thing.

    A text that is JSON is read for a path: models' answers are texts.
    """
    head = NAME.match(reference)
    if head is None or head.group() not in values:
        raise KeyError(reference)
    value = values[head.group()]
    for step in _STEP.finditer(reference, head.end()):
        value = _inside(as_json(value), step, reference)
    return value


def _inside(value: JsonValue, step: re.Match[str], reference: str) -> JsonValue:
    name, place = step.group(1), step.group(2)
    if name is not None and isinstance(value, dict) and name in value:
        return value[name]
    if place is not None and isinstance(value, list) and int(place) < len(value):
        return value[int(place)]
    raise KeyError(reference)


def as_json(value: JsonValue) -> JsonValue:
    """Return the value that a text is as JSON, in a code fence or not; anything else as it is."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    fenced = _FENCE.fullmatch(text)
    if fenced is not None:
        text = fenced.group(1)
    if not text.startswith(("{", "[", '"')) and text not in {"true", "false", "null"}:
        return value
    try:
        found: JsonValue = json.loads(text)
    except (ValueError, RecursionError):
        return value
    return found


def substitute(text: str, values: Mapping[str, JsonValue]) -> str:
    """Return the text with every reference replaced in one pass. A name without a value stays as it is written."""
    pieces: list[str] = []
    done = 0
    for start, end, name in _cuts(text):
        pieces.append(text[done:start])
        if name is not None:
            pieces.append(_put_in(name, values, text[start:end]))
        done = end
    return "".join((*pieces, text[done:]))


def _put_in(name: str, values: Mapping[str, JsonValue], written: str) -> str:
    if name in values:
        return as_text(values[name])
    head = NAME.match(name)
    if head is None or head.group() == name or head.group() not in values:
        return written
    try:
        return as_text(value_at(name, values))
    except KeyError:
        return written  # the value has no such part: shown, not hidden


def as_text(value: JsonValue) -> str:
    """Return a value as it reads in a prompt: text as it is, nothing for null, anything else as JSON."""
    if value is None:
        return ""
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
        elif NAME.fullmatch(text, start + 1, end) or PATH.fullmatch(text, start + 1, end):
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
