"""A reference is replaced once; nothing else of a prompt changes, whatever the prompt and the values look like."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from shared.workflows.substitution import as_text, references, substitute
from tests.contracts.strategies import NAMES

calm = settings(deadline=None)
BRACED = st.text("{}ab_ \n", max_size=40)
PLAIN = st.text(st.characters(exclude_characters="{}", exclude_categories=["Cs"]), max_size=20)
VALUES = {"a": "1", "b": "{a}", "_x": "{{a}}"}


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("", ""),
        ("nothing to do", "nothing to do"),
        ("{a}", "1"),
        ("{a}{a} and {a}", "11 and 1"),
        ("{b}", "{a}"),  # what comes in is never expanded
        ("{_x}", "{{a}}"),
        ("{unknown}", "{unknown}"),
        ("{A}", "{A}"),
        ("{ a }", "{ a }"),
        ("{a b}", "{a b}"),
        ("{a.b}", "{a.b}"),
        ("{1}", "{1}"),
        ("{a-b}", "{a-b}"),
        ("{ä}", "{ä}"),
        ("{}", "{}"),
        ("{a\n}", "{a\n}"),
        # a doubled pair is one pair of literal braces
        ("{{a}}", "{a}"),
        ("{{}}", "{}"),
        ('{{"a": "{a}"}}', '{"a": "1"}'),
        ("{{{a}}}", "{1}"),
        ("{{{{a}}}}", "{{a}}"),
        ('{{"k": {{"l": {a}}}}}', '{"k": {"l": 1}}'),
        # braces that are no pair of their own
        ("{a", "{a"),
        ("a}", "a}"),
        ("}{", "}{"),
        ("{{a}", "{1"),
        ("{a}}", "1}"),
        ("{ {a}", "{ 1"),
        ("{{{a}", "{{1"),
        ("smile :-{ and {a}", "smile :-{ and 1"),
    ],
)
def test_what_a_text_becomes(text: str, becomes: str) -> None:
    assert substitute(text, VALUES) == becomes


@pytest.mark.parametrize(
    "code",
    [
        '{"a":{"b":{"c":{}}}}',
        '{"a": [{"b": 1}, {"c": {"d": 2}}]}',
        "int grid[2][2] = {{1, 2}, {3, 4}};",
        "if (x) { while (y) { z(); }}",
        'fn main() { println!("{:?}", v); }',
        "body { color: red; }\n@media print { a { color: black; }}",
        "x = {k: {v for v in s} for k in d}",
        "echo ${HOME:-/tmp} ${#list[@]}",
    ],
)
def test_json_and_code_survive(code: str) -> None:
    assert substitute(code, VALUES) == code
    assert references(code) == ()


def test_a_value_within_json_is_put_in() -> None:
    assert substitute('{"name":"{a}","more":{"x":{a}}}', VALUES) == '{"name":"1","more":{"x":1}}'


@pytest.mark.parametrize(
    ("value", "reads"),
    [
        ("tëxt\n", "tëxt\n"),
        ("", ""),
        (7, "7"),
        (0.5, "0.5"),
        (True, "true"),
        (None, ""),
        (["a", 1], '["a", 1]'),
        ({"ü": None}, '{"ü": null}'),
    ],
)
def test_how_a_value_reads(value: JsonValue, reads: str) -> None:
    assert as_text(value) == reads
    assert substitute("<{v}>", {"v": value}) == f"<{reads}>"


def test_references_come_once_and_in_order() -> None:
    assert references("{b} {a} {b} {{c}} {{{d}}} { e } {1f}") == ("b", "a", "d")


@calm
@given(st.recursive(PLAIN | st.integers() | st.none(), lambda v: st.lists(v, max_size=3) | st.dictionaries(PLAIN, v)))
def test_any_json_survives_in_any_layout(value: Any) -> None:
    layouts: tuple[dict[str, Any], ...] = ({"indent": 2}, {"separators": (",", ":")}, {})
    for layout in layouts:
        text = json.dumps(value, ensure_ascii=False, **layout)
        assert substitute(text, VALUES) == text


@calm
@given(text=BRACED, values=st.dictionaries(NAMES, PLAIN))
def test_a_text_without_references_has_lost_only_doubled_braces(text: str, values: dict[str, str]) -> None:
    if not references(text):
        assert substitute(text, values) == substitute(text, {})
        assert _without_braces(substitute(text, values)) == _without_braces(text)


@calm
@given(before=PLAIN, name=NAMES, after=PLAIN, value=st.text(max_size=20))
def test_a_value_comes_in_whole_and_unchanged(before: str, name: str, after: str, value: str) -> None:
    assert substitute(f"{before}{{{name}}}{after}", {name: value}) == f"{before}{value}{after}"


@calm
@given(text=BRACED, value=st.text("{}ab", max_size=6))
def test_values_are_never_read_as_references(text: str, value: str) -> None:
    """Putting in marks and replacing them afterwards is the same as putting the values in."""
    names = references(text)
    marks: dict[str, JsonValue] = {name: f"\x00{i}\x00" for i, name in enumerate(names)}
    marked = substitute(text, marks)
    for mark in marks.values():
        marked = marked.replace(str(mark), value)
    assert substitute(text, dict.fromkeys(names, value)) == marked


@calm
@given(st.recursive(PLAIN | st.just("{a}"), lambda t: t.map(lambda s: f"{{{s}}}") | st.tuples(t, t).map("".join)))
def test_doubling_every_brace_of_a_balanced_text_keeps_it(text: str) -> None:
    """The rule that the planning model is told: write two braces where one is meant."""
    doubled = text.replace("{", "{{").replace("}", "}}")
    assert substitute(doubled, VALUES) == text
    assert references(doubled) == ()


def _without_braces(text: str) -> str:
    return text.replace("{", "").replace("}", "")


def test_a_long_text_of_braces_takes_no_time_to_speak_of() -> None:
    for text in ("{" * 50_000, "}" * 50_000, "{" * 25_000 + "}" * 25_000, "{a}" * 20_000):
        assert len(substitute(text, {"a": "12345"})) >= 25_000
