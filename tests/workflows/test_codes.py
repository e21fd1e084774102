"""Every code that the validator can say has a document that makes it say so, and is documented."""

import re
from typing import Any

import pytest

from shared.config.templates import Template
from shared.workflows.validation import Catalogue, Invalid, validate
from tests.system import ROOT

TEMPLATES = {
    "letter": Template.read(
        {"workflow": [{"type": "inline", "tasks": [{"model": "m", "prompt": "to {who}"}]}], "variables": {"who": {}}}
    ),
    "one": Template.read({"workflow": [{"type": "inline", "tasks": [{"template": "two"}]}]}),
    "two": Template.read({"workflow": [{"type": "inline", "tasks": [{"template": "one"}]}]}),
}
CATALOGUE = Catalogue(frozenset({"m"}), frozenset({"seo"}), max_tasks=3, max_depth=2, max_s=60, templates=TEMPLATES)


def flow(*tasks: dict[str, Any], kind: str = "graph", **variables: Any) -> dict[str, Any]:
    return {"workflow": [{"type": kind, "tasks": list(tasks)}], "variables": variables}


def task(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "prompt": "do", **fields}


def nested(depth: int) -> dict[str, Any]:
    inner = task()
    for _ in range(depth):
        inner = {"workflow": [{"type": "inline", "tasks": [inner]}]}
    return flow(inner)


SAID: dict[str, tuple[Any, str]] = {
    "unknown_model": (flow(task(model="n")), ".model"),
    "unknown_addon": (flow(task(config={"addons": ["sea"]})), ".config.addons[0]"),
    "unknown_template": (flow({"template": "leter"}), ".template"),
    "circular_template": (flow({"template": "one"}), ".template"),
    "bad_variable": (flow({"template": "letter"}), ".variables.who"),
    "undefined_variable": (flow(task(prompt="{x}")), ".prompt"),
    "circular_variable": (flow(task(prompt="{a}", output_variable="a")), ".prompt"),
    "duplicate_name": (flow(task(output_variable="a"), task(output_variable="a")), ".output_variable"),
    "bad_name": (flow(task(output_variable="a b")), ".output_variable"),
    "bad_reference": (flow(task(prompt="{item}", for_each={"items": "all"})), ".for_each.items"),
    "bad_condition": (flow(task(when="1 +")), ".when"),
    "bad_schema": (flow(task(output_schema={"type": "strin"})), ".output_schema"),
    "missing": (flow({"model": "m"}), ".prompt"),
    "empty_prompt": (flow(task(prompt=" ")), ".prompt"),
    "too_many_tasks": (flow(*[task() for _ in range(4)]), "$.workflow"),
    "too_deep": (nested(3), ".workflow"),
    "too_long": (flow(task(timeout_s=61)), ".timeout_s"),
    "model_or_workflow": (flow(task(template="letter", variables={"who": "x"})), "tasks[0]"),
    "for_each_needs_model": (flow({"approve": True, "for_each": "{x}"}, x=[1]), ".for_each"),
    "schema_needs_model": (flow({"approve": True, "output_schema": {}}), ".output_schema"),
    "expand_needs_model": (flow({"approve": True, "expand": True}), ".expand"),
    "variables_need_workflow": (flow(task(variables={"a": 1})), ".variables"),
    "not_text": (flow(task(prompt="\ud800")), ".prompt"),
    "not_finite": (flow(task(), x=float("nan")), "$.variables.x"),
    "more_problems": (flow(*[task(prompt="".join(f"{{x{n}}}" for n in range(300)))]), "$"),
}


@pytest.mark.parametrize("code", SAID)
def test_a_code_is_said_where_it_belongs(code: str) -> None:
    document, path = SAID[code]
    checked = validate(document, CATALOGUE)
    assert isinstance(checked, Invalid)
    places = [problem.path for problem in checked.problems if problem.code == code]
    assert any(place.endswith(path) for place in places), [(one.code, one.path) for one in checked.problems][:5]
    assert all(problem.message for problem in checked.problems)


def test_no_code_is_left_out_here_or_in_the_documentation() -> None:
    found = set()
    for name in ("meaning", "validation", "problems"):
        source = (ROOT / "shared" / "workflows" / f"{name}.py").read_text()
        found |= set(re.findall(r'Problem\(\s*(?:[^,()]|\([^()]*\))+,\s*"([a-z_]+)"', source))
    assert found <= SAID.keys(), found - SAID.keys()
    assert len(found) >= 20
    documented = (ROOT / "docs" / "workflows.md").read_text()
    assert [code for code in SAID if f"`{code}`" not in documented] == []
