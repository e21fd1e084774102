"""Whatever is done to a file, `parse` returns a configuration or raises `ConfigInvalid`, never anything else."""

import copy
import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from shared.config import ConfigInvalid, Problem, parse
from shared.config.environment import Environment
from shared.config.providers import routes
from tests.config.reference_file import reference

SHIPPED = json.loads((Path(__file__).resolve().parents[2] / "orchestration_config.json").read_text(encoding="utf-8"))
SHIPPED["prompt_addons"] = dict(list(SHIPPED["prompt_addons"].items())[:4])

ODD = ["", "L", "{x}", "{{", "$", "_", "a.b", "[0]", "medium_ai", "linear", "\x00", "\ud800", "ü", "x" * 300, "1e5"]
KEYS = st.sampled_from(ODD) | st.text(max_size=6)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 10**30, 2**63, 10**400])
    | st.floats()
    | st.sampled_from(ODD)
    | st.text(max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of everything in a document."""
    found: list[tuple[Any, ...]] = [path] if path else []
    if isinstance(document, dict | list):
        for key, inner in document.items() if isinstance(document, dict) else enumerate(document):
            found += places(inner, (*path, key))
    return found


def follow(document: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        document = document[step]
    return document


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A file with one to four places replaced, removed, renamed, added to or overwritten by another place."""
    document = copy.deepcopy(draw(st.sampled_from([SHIPPED, reference()])))
    for _ in range(draw(st.integers(1, 4))):
        there = places(document)
        if not there:
            return document
        *steps, last = draw(st.sampled_from(there))
        inner = follow(document, tuple(steps))
        match draw(st.sampled_from(["replace", "remove", "rename", "add", "overwrite"])):
            case "remove":
                del inner[last]
            case "rename" if isinstance(inner, dict):
                near = [str(last)[:-1], str(last) + "s", str(last).upper()]
                inner[draw(st.sampled_from(near) | KEYS)] = inner.pop(last)
            case "add" if isinstance(inner, dict):
                inner[draw(KEYS)] = draw(values)
            case "overwrite":
                inner[last] = copy.deepcopy(follow(document, draw(st.sampled_from(there))))
            case _:
                inner[last] = draw(values)
    return document


def survives(text: str) -> None:
    """Fail when anything but a usable configuration or a list of problems comes of a text."""
    problems: tuple[Problem, ...] = ()
    try:
        configuration, warnings = parse(text)
    except ConfigInvalid as invalid:
        problems = invalid.problems
    else:
        event("loaded")
        assert all(warning.startswith("$") for warning in warnings)
        for env in ({}, {"SEGUE_SIMULATOR_URL": "http://127.0.0.1:1/api/v1"}):
            assert routes(configuration, Environment.read(env)).keys() == configuration.ai_models.keys()
        return
    event("refused")
    assert problems
    assert all(problem.path.startswith("$") and problem.found and problem.expected for problem in problems)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(mutated())
def test_a_mutated_file(document: Any) -> None:
    survives(json.dumps(document))


@settings(max_examples=200, deadline=None)
@given(values)
def test_any_json(document: Any) -> None:
    survives(json.dumps(document))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200) | st.text(alphabet='{}[]",:0123 \\untruefals', max_size=60))
def test_any_text(text: str) -> None:
    survives(text)
