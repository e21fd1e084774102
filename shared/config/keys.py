"""The walk over a file before it is validated: other shapes are read, unknown keys warned of, typos refused.

Every key of every part is looked up among the part's own. One that differs only in case or underscores is read as
the key it means, with a warning; a near miss of a key that is not there is a typo and is refused with the key that
it seems to mean; anything else is left out with a warning, because a file written for the reference may have more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import cache
from types import MappingProxyType
from typing import Any, Final, get_args

from pydantic import AliasChoices, BaseModel, JsonValue

from shared.config.errors import Problem, json_path, shown
from shared.config.section import Section

Location = tuple[int | str, ...]

TYPO: Final = 0.85
"""Similarity (0 to 1, difflib) of two keys in small letters without underscores above which one is a typo."""


@dataclass(slots=True)
class Notes:
    """What was found on the way."""

    warnings: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def warn(self, location: Location, message: str) -> None:
        self.warnings.append(f"{json_path(location)}: {message}")

    def refuse(self, location: Location, value: JsonValue, expected: str) -> None:
        path = json_path(location)
        self.problems.append(Problem(path, shown(value, path), expected))


def read(kind: type[BaseModel], value: JsonValue, location: Location, notes: Notes) -> JsonValue:
    """Return a part of the file with its keys as the model names them."""
    if issubclass(kind, Section):
        value = kind.shaped(value)
    if not isinstance(value, dict):
        return value
    known = _keys(kind)
    result: dict[str, JsonValue] = {}
    for key, inner in value.items():
        here = (*location, key)
        meant = key if key in known else _meant(kind, key, value, here, notes)
        if meant is not None:
            result[meant] = _inside(known.get(meant), inner, here, notes)
    return result


def _meant(kind: type[BaseModel], key: str, value: Mapping[str, JsonValue], here: Location, notes: Notes) -> str | None:
    """Return what an unknown key is kept as; None leaves it out."""
    if key.startswith(("_", "//", "#", "$")):
        return None  # the usual ways of putting a comment or a schema into JSON
    missing = [name for name in _keys(kind) if name not in value]
    plain = _plain(key)
    same = next((name for name in missing if _plain(name) == plain), None)
    if same is not None:
        notes.warn(here, f"read as {same!r}, which is how it is written")
        return same
    close = max(missing, key=lambda name: _similarity(plain, name), default=None)
    if close is not None and _similarity(plain, close) >= TYPO:
        if getattr(kind, "names_are_given", True):
            notes.refuse(here, value[key], f"a known key; did you mean {close!r}?")
        else:
            notes.warn(here, f"unknown key, left out; did you mean {close!r}?")
        return None
    if kind.model_config.get("extra") == "allow":
        return key
    notes.warn(here, "unknown key, left out")
    return None


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _similarity(plain: str, name: str) -> float:
    return SequenceMatcher(None, plain, _plain(name), autojunk=False).ratio()


@dataclass(frozen=True, slots=True)
class _Each:
    """The values of an object, or the items of a list, are parts themselves."""

    of: "_Shape"


_Shape = type[BaseModel] | _Each | None


def _inside(shape: _Shape, value: JsonValue, location: Location, notes: Notes) -> JsonValue:
    match shape, value:
        case None, _:
            return value
        case _Each(), dict():
            return {key: _inside(shape.of, inner, (*location, key), notes) for key, inner in value.items()}
        case _Each(), list():
            return [_inside(shape.of, inner, (*location, index), notes) for index, inner in enumerate(value)]
        case _Each(), _:
            return value
        case _:
            return read(shape, value, location, notes)


@cache
def _keys(kind: type[BaseModel]) -> Mapping[str, _Shape]:
    """Return the keys that a part may have in the file, with what is inside each."""
    found: dict[str, _Shape] = {}
    for name, one in kind.model_fields.items():
        alias = one.validation_alias or one.alias or name
        names = alias.choices if isinstance(alias, AliasChoices) else [alias]
        for written in names:
            found[str(written)] = _shape(one.annotation)
    return MappingProxyType(found)


def _shape(annotation: Any) -> _Shape:
    """Return what a field's type has inside: a part, many parts, or neither."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    arguments = [_shape(argument) for argument in get_args(annotation)]
    inner = next((argument for argument in reversed(arguments) if argument is not None), None)
    if inner is None or isinstance(None, type):
        return None
    return inner if _is_union(annotation) else _Each(inner)


def _is_union(annotation: Any) -> bool:
    return type(None) in get_args(annotation)
