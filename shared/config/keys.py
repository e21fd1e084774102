"""The walk over a file before it is validated: other shapes are read, unknown keys warned of, typos refused.

Every key of every part is looked up among the part's own. One that differs only in case or underscores is read as
the key it means, with a warning; a near miss of a key that is not there is a typo and is refused with the key that
it seems to mean; anything else is left out with a warning, because a file written for the reference may have more.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import cache
from types import MappingProxyType, UnionType
from typing import Any, Final, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel, JsonValue
from pydantic.fields import FieldInfo

from shared.config.errors import Problem, json_path, shown
from shared.config.section import Section

Location = tuple[int | str, ...]

TYPO: Final = 0.85
"""Similarity (0 to 1, difflib) of two keys in small letters without underscores above which one is a typo."""

COMMENT: Final = ("_", "$", "#", "//")
"""How a key begins that is a comment, or names a schema: the usual ways in JSON, which has no comments."""


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
        missing = [name for name in known if name not in value and name not in result]
        meant = key if key in known else _meant(kind, key, inner, missing, here, notes)
        if meant is not None:
            result[meant] = _inside(known.get(meant), inner, here, notes)
    return result


def _meant(
    kind: type[BaseModel], key: str, value: JsonValue, missing: Sequence[str], here: Location, notes: Notes
) -> str | None:
    """Return what an unknown key is kept as; None leaves it out."""
    if key.startswith(COMMENT):
        return None
    plain = _plain(key)
    same = next((name for name in missing if _plain(name) == plain), None)
    if same is not None:
        notes.warn(here, f"read as {same!r}, which is how it is written")
        return same
    close = max(missing, key=lambda name: _similarity(plain, name), default=None)
    if close is not None and _similarity(plain, close) >= TYPO:
        if getattr(kind, "names_are_given", True):
            notes.refuse(here, value, f"a known key; did you mean {close!r}?")
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
            return {
                key: _inside(shape.of, inner, (*location, key), notes)
                for key, inner in value.items()
                if not key.startswith(COMMENT)
            }
        case _Each(), list():
            return [_inside(shape.of, inner, (*location, index), notes) for index, inner in enumerate(value)]
        case _Each(), _:
            return value
        case _:
            return read(shape, value, location, notes)


@cache
def _keys(kind: type[BaseModel]) -> Mapping[str, _Shape]:
    """Return the keys that a part may have in the file, with what is inside each."""
    return MappingProxyType({name: _shape(one.annotation) for names, one in _fields(kind) for name in names})


def _fields(kind: type[BaseModel]) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Yield every field with the keys that it may have in the file, the usual one first."""
    for name, one in kind.model_fields.items():
        alias = one.validation_alias or one.alias or name
        yield (tuple(map(str, alias.choices)) if isinstance(alias, AliasChoices) else (str(alias),)), one


def _shape(annotation: Any) -> _Shape:
    """Return what a field's type has inside: a part, many parts, or neither."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inside = [_shape(argument) for argument in get_args(annotation)]
    found = next((one for one in reversed(inside) if one is not None), None)
    if get_origin(annotation) is Mapping:
        return _Each(found)
    if found is None or get_origin(annotation) in (Union, UnionType):
        return found
    return _Each(found)


def description(kind: type[BaseModel], location: Location) -> str:
    """Return what the model says of a place, empty where it says nothing."""
    shape: _Shape = kind
    said = ""
    for part in location:
        match shape:
            case _Each():
                shape, said = shape.of, ""
            case None:
                return ""
            case _:
                said = next((one.description or "" for names, one in _fields(shape) if part in names), "")
                shape = _keys(shape).get(str(part))
    return said
