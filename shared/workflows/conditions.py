"""Conditions of tasks (`when`), in CEL: the Common Expression Language neither loops for ever nor reaches anything.

https://github.com/google/cel-spec. The library is imported only where a workflow has a condition: it takes 25 MB.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from pydantic import JsonValue

_BOUND: Final = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(\s*([A-Za-z_]\w*)\s*,")
"""Names that a macro binds: those are not looked up."""


class WrongCondition(ValueError):
    """A condition cannot be read, or not be evaluated over the values that it met."""


@lru_cache(maxsize=1_024)
def _compiled(text: str) -> Any:
    import cel

    try:
        return cel.compile(text)
    except (ValueError, RuntimeError) as error:
        said = str(error).splitlines()[0].partition("ERROR: ")[2] or str(error)
        raise WrongCondition(f"is not a CEL expression: {said.strip()}") from error


def names_in(text: str) -> tuple[str, ...]:
    """Return the variables that a condition looks at. Raises `WrongCondition`."""
    bound = set(_BOUND.findall(text))
    return tuple(name for name in _compiled(text).variables() if name not in bound)


def holds(text: str, values: Mapping[str, JsonValue]) -> bool:
    """Return whether a condition holds. Raises `WrongCondition` when that is neither true nor false."""
    try:
        found = _compiled(text).execute({name: values[name] for name in names_in(text) if name in values})
    except (ValueError, RuntimeError, TypeError, KeyError, OverflowError) as error:
        raise WrongCondition(f"cannot be evaluated: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(found, bool):
        raise WrongCondition(f"is neither true nor false, but {found!r:.80}")
    return found
