"""The validator lists everything that is wrong, each with a code and a path; what it lets through can run."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.contracts.commands import PlanRun, WorkflowRequest
from shared.contracts.message import Run
from shared.contracts.workflow import Workflow
from shared.workflows.substitution import references
from shared.workflows.validation import MAX_DEPTH, MAX_PROBLEMS, Catalogue, Invalid, Valid, json_path, validate
from tests.contracts.strategies import VALUES

CATALOGUE = Catalogue(frozenset({"medium_ai", "thinking_ai", "code_ai"}), frozenset({"seo", "storytelling"}))
calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def task(prompt: str = "do it", out: str | None = None, **more: object) -> dict[str, object]:
    named = {} if out is None else {"output_variable": out}
    return {"model": "medium_ai", "prompt": prompt, **named, **more}


def linear(*tasks: Mapping[str, object]) -> dict[str, object]:
    return {"type": "linear", "tasks": list(tasks)}


def inline(*tasks: Mapping[str, object]) -> dict[str, object]:
    return {"type": "inline", "tasks": list(tasks)}


def document(*queues: Mapping[str, object], **variables: object) -> dict[str, object]:
    return {"workflow": list(queues), "variables": variables}


def found(*queues: Mapping[str, object], **variables: object) -> list[tuple[str, str]]:
    """Return (code, path) of everything that is wrong."""
    return problems(document(*queues, **variables))


def problems(subject: object) -> list[tuple[str, str]]:
    checked = validate(subject, CATALOGUE)
    return [(problem.code, problem.path) for problem in checked.problems] if isinstance(checked, Invalid) else []


def message(*queues: Mapping[str, object], **variables: object) -> str:
    checked = validate(document(*queues, **variables), CATALOGUE)
    assert isinstance(checked, Invalid)
    (problem,) = checked.problems
    return problem.message


P = "$.workflow[0].tasks[0]"
Q = "$.workflow[1].tasks[0]"


@pytest.mark.parametrize(
    "queues",
    [
        [linear(task())],
        [linear(task(out="a"), task(out="b")), inline(task("{a} {b}", "c"), task("{c}{a}", "d")), linear(task("{d}"))],
        [inline(task(out="a"), task("again {a}"))],
        [linear(task("{topic} and {{literal}} and { no name } and {2}"))],
        [linear(task(config={"temperature": 2, "max_tokens": 1, "top_p": 1, "addons": ["seo"], "seed": 1}))],
        [linear(task(out="picture")), linear(task(input_image="{picture}"))],
        [linear(task(input_image="https://example.org/a.png"))],
        [linear(task(out="_")), linear(task(out="a1"))],
        [linear(task(), task(out="task_2_1"))],
    ],
)
def test_what_is_fine(queues: Sequence[Mapping[str, object]]) -> None:
    assert found(*queues, topic="x") == []


@pytest.mark.parametrize(
    ("queues", "wrong"),
    [
        # references
        ([linear(task("{x}"))], [("undefined_variable", f"{P}.prompt")]),
        ([linear(task("{x} {y} {x}"))], [("undefined_variable", f"{P}.prompt")] * 2),
        ([linear(task("{a}", "a"))], [("circular_variable", f"{P}.prompt")]),
        ([inline(task("{a}", "a"))], [("circular_variable", f"{P}.prompt")]),
        ([linear(task("{b}", "a"), task("{a}", "b"))],
         [("circular_variable", f"{P}.prompt"), ("circular_variable", "$.workflow[0].tasks[1].prompt")]),
        ([linear(task(out="a"), task("{a}"))], [("circular_variable", "$.workflow[0].tasks[1].prompt")]),
        ([inline(task("{b}"), task(out="b"))], [("circular_variable", f"{P}.prompt")]),
        ([linear(task("{late}")), linear(task(out="late"))], [("circular_variable", f"{P}.prompt")]),
        ([linear(task(input_image="{x}"))], [("undefined_variable", f"{P}.input_image")]),
        ([linear(task(input_image="{i}", out="i"))], [("circular_variable", f"{P}.input_image")]),
        ([linear(task()), linear(task("{task_1_2}"))], [("undefined_variable", "$.workflow[1].tasks[0].prompt")]),
        # names
        ([linear(task(out="a"), task(out="a"))], [("duplicate_name", "$.workflow[0].tasks[1].output_variable")]),
        ([inline(task(out="a"), task(out="a"))], [("duplicate_name", "$.workflow[0].tasks[1].output_variable")]),
        ([linear(task(out="a")), linear(task("", out="a"))],
         [("empty_prompt", f"{Q}.prompt"), ("duplicate_name", f"{Q}.output_variable")]),
        ([linear(task(out="topic"))], [("duplicate_name", f"{P}.output_variable")]),
        ([linear(task(out="task_1_2"), task())], [("duplicate_name", f"{P}.output_variable")]),
        ([linear(task(out="a b"))], [("bad_name", f"{P}.output_variable")]),
        ([linear(task(out=""))], [("bad_name", f"{P}.output_variable")]),
        ([linear(task(out="1a"))], [("bad_name", f"{P}.output_variable")]),
        ([linear(task(out="a\n"))], [("bad_name", f"{P}.output_variable")]),
        # what is named
        ([linear(task(model="gpt"))], [("unknown_model", f"{P}.model")]),
        ([linear(task(config={"addons": ["seo", "sea"]}))], [("unknown_addon", f"{P}.config.addons[1]")]),
        ([linear(task(" \n"))], [("empty_prompt", f"{P}.prompt")]),
        # shape
        ([], [("too_short", "$.workflow")]),
        ([linear()], [("too_short", "$.workflow[0].tasks")]),
        ([{"type": "circular", "tasks": [task()]}], [("literal_error", "$.workflow[0].type")]),
        ([{"tasks": [task()]}], [("missing", "$.workflow[0].type")]),
        ([{"type": "linear"}], [("missing", "$.workflow[0].tasks")]),
        ([linear({"model": "medium_ai"})], [("missing", f"{P}.prompt")]),
        ([linear(task(config={"temperature": 2.1}))], [("less_than_equal", f"{P}.config.temperature")]),
        ([linear(task(config={"max_tokens": 0}))], [("greater_than", f"{P}.config.max_tokens")]),
        (["linear"], [("model_type", "$.workflow[0]")]),
    ],
)  # fmt: skip
def test_what_is_wrong_and_where(queues: Sequence[Mapping[str, object]], wrong: list[tuple[str, str]]) -> None:
    assert found(*queues, topic="x") == wrong


@pytest.mark.parametrize(
    ("subject", "wrong"),
    [
        (None, [("model_type", "$")]),
        ([], [("model_type", "$")]),
        ({}, [("missing", "$.workflow")]),
        ({"workflow": {}}, [("tuple_type", "$.workflow")]),
        ({"workflow": [linear(task())], "variables": []}, [("dict_type", "$.variables")]),
        ({"workflow": [linear(task())], "variables": {"a b": 1}}, [("bad_name", "$.variables['a b']")]),
        ({"workflow": [linear(task())], "variables": {"it's": 1}}, [("bad_name", r"$.variables['it\'s']")]),
        ({"workflow": [linear(task())], "variables": {"task_1_1": 1}}, [("duplicate_name", "$.variables.task_1_1")]),
        ({"workflow": [linear(task("\ud83d"))]}, [("not_text", f"{P}.prompt")]),
        ({"workflow": [linear(task())], "variables": {"x": ["\udc00"]}}, [("not_text", "$.variables.x[0]")]),
        ({"workflow": [linear(task())], "variables": {"x": {"\udc00": 1}}}, [("not_text", "$.variables.x")]),
        ({"workflow": [linear(task())], "variables": {"x": float("inf")}}, [("not_finite", "$.variables.x")]),
        ({"workflow": [linear(task(config={"seed": float("nan")}))]}, [("not_finite", f"{P}.config.seed")]),
    ],
)
def test_what_is_no_workflow_at_all(subject: object, wrong: list[tuple[str, str]]) -> None:
    assert problems(subject) == wrong


def test_everything_is_listed_at_once() -> None:
    assert found(
        linear(task("{nobody}", model="mediun_ai", config={"addons": ["storyteling"]}), task("{b}", "b")),
        inline(task(out="topic"), task("", "b")),
        **{"topic": 1, "bad name": 2},
    ) == [
        ("bad_name", "$.variables['bad name']"),
        ("unknown_model", f"{P}.model"),
        ("unknown_addon", f"{P}.config.addons[0]"),
        ("undefined_variable", f"{P}.prompt"),
        ("circular_variable", "$.workflow[0].tasks[1].prompt"),
        ("duplicate_name", "$.workflow[1].tasks[0].output_variable"),
        ("empty_prompt", "$.workflow[1].tasks[1].prompt"),
        ("duplicate_name", "$.workflow[1].tasks[1].output_variable"),
    ]


def test_messages_say_what_to_write_instead() -> None:
    known = "code_ai, medium_ai, thinking_ai"
    assert message(linear(task(model="mediun_ai"))) == (
        f"unknown model 'mediun_ai'; did you mean 'medium_ai'? known: {known}"
    )
    assert message(linear(task(model="?"))) == f"unknown model '?'; known: {known}"
    assert message(linear(task(config={"addons": ["story_telling"]}))) == (
        "unknown addon 'story_telling'; did you mean 'storytelling'? known: seo, storytelling"
    )
    assert message(linear(task("{topics}")), topic=1, tone=2) == (
        "{topics} is not defined; did you mean 'topic'? known: tone, topic"
    )
    assert message(linear(task("{x}"))) == "{x} is not defined; known: none"
    assert message(inline(task("{b}"), task(out="b"))) == (
        "{b} is the output of $.workflow[0].tasks[1], which has not run when this task starts"
    )
    assert message(linear(task(out="task_1_2"), task())) == (
        "'task_1_2' is the name of the output of $.workflow[0].tasks[1], which has no output_variable: choose another"
    )
    assert str(validate({}, CATALOGUE)) == "$.workflow: Field required"


def test_too_many_tasks_are_refused() -> None:
    few = Catalogue(CATALOGUE.models, CATALOGUE.addons, max_tasks=3)
    subject = document(linear(task(), task()), inline(task(), task()))
    assert isinstance(validate(subject, CATALOGUE), Valid)
    checked = validate(subject, few)
    assert isinstance(checked, Invalid)
    assert [(p.code, p.path, p.message) for p in checked.problems] == [
        ("too_many_tasks", "$.workflow", "4 tasks; at most 3 are allowed")
    ]


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


def test_values_are_as_deep_as_readers_on_the_bus_bear() -> None:
    deepest = MAX_DEPTH - 2  # the document and its variables are the first two
    checked = validate(document(linear(task()), x=nested(deepest)), CATALOGUE)
    assert isinstance(checked, Valid)
    now = datetime(2026, 11, 1, tzinfo=UTC)
    run = Run(run_id="r", tenant="t", born_at=now, deadline_at=now)
    command = PlanRun(run=run, request=WorkflowRequest(workflow=checked.workflow))
    assert PlanRun.decode(command.encode()) == command

    ((code, path),) = found(linear(task()), x=nested(deepest + 1))
    assert (code, path) == ("too_deep", "$.variables.x" + "[0]" * deepest)
    assert [code for code, _ in found(linear(task()), x=nested(100_000))] == ["too_deep"]


def test_a_document_full_of_mistakes_is_answered_in_bounds_and_soon() -> None:
    checked = validate(document(linear(*[task("{x}" * 3)] * 5_000)), CATALOGUE)
    assert isinstance(checked, Invalid)
    assert len(checked.problems) == MAX_PROBLEMS + 1
    assert checked.problems[-1].message == "and 4,801 more problems"  # one each, and that there are too many tasks
    empty = validate(document(*[linear()] * 5_000), CATALOGUE)
    assert isinstance(empty, Invalid)
    assert empty.problems[-1].message == "and 4,800 more problems"
    long = validate(
        document(linear(task("{" + "x" * 100_000 + "}", "y" * 100_000 + "!", model="z" * 100_000))), CATALOGUE
    )
    assert len(str(long)) < 1_000


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ((), "$"),
        (("workflow", 0, "tasks", 12), "$.workflow[0].tasks[12]"),
        (("variables", "größe"), "$.variables.größe"),
        (("a b", "", "it's", "back\\slash", "1"), r"$['a b']['']['it\'s']['back\\slash']['1']"),
    ],
)
def test_json_paths(location: tuple[int | str, ...], path: str) -> None:
    assert json_path(location) == path


ODD = st.text("{}abx_1 \n\\'", max_size=8)
ALMOST = st.fixed_dictionaries(
    {},
    optional={
        "workflow": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "type": st.sampled_from(["linear", "inline", 1, None]),
                    "tasks": st.lists(
                        st.fixed_dictionaries(
                            {},
                            optional={
                                "model": st.sampled_from(["medium_ai", "code_ai", "", 1]),
                                "prompt": ODD | VALUES,
                                "output_variable": ODD | st.none() | st.integers(),
                                "config": VALUES
                                | st.fixed_dictionaries({"addons": st.lists(ODD | VALUES, max_size=2)}),
                                "input_image": ODD | VALUES,
                            },
                        )
                        | VALUES,
                        max_size=3,
                    )
                    | VALUES,
                },
            )
            | VALUES,
            max_size=3,
        )
        | VALUES,
        "variables": st.dictionaries(ODD, VALUES, max_size=3) | VALUES,
    },
)


@settings(calm, max_examples=100)
@given(subject=ALMOST | VALUES)
def test_any_json_is_valid_or_has_problems_that_point_into_it(subject: Any) -> None:
    checked = validate(subject, CATALOGUE)
    if isinstance(checked, Invalid):
        assert checked.problems
        assert all(problem.path.startswith("$") and problem.code and problem.message for problem in checked.problems)
    else:
        assert validate(checked.workflow.model_dump(mode="json", exclude_none=True), CATALOGUE) == checked
        assert validate(json.loads(json.dumps(subject)), CATALOGUE) == checked


OUTPUTS = st.none() | st.sampled_from(["a", "b", "c", "d", "e"])
PROMPTS = st.lists(st.sampled_from(["{a}", "{b}", "{c}", "{v}", "{{a}}", "text", "{ }"]), min_size=1, max_size=3)
TYPED = st.builds(
    lambda queues: {"workflow": queues, "variables": {"v": 1}},
    st.lists(
        st.fixed_dictionaries(
            {
                "type": st.sampled_from(["linear", "inline"]),
                "tasks": st.lists(
                    st.fixed_dictionaries(
                        {"model": st.just("medium_ai"), "prompt": PROMPTS.map(" ".join), "output_variable": OUTPUTS}
                    ),
                    min_size=1,
                    max_size=3,
                ),
            }
        ),
        min_size=1,
        max_size=3,
    ),
)


@settings(calm, max_examples=150)
@given(subject=TYPED)
def test_a_valid_workflow_has_every_value_when_it_needs_it(subject: Any) -> None:
    """Run by the letter of the rules: when a task starts, all that it refers to is there; and only then is it valid."""
    checked = validate(subject, CATALOGUE)
    assert isinstance(checked, Valid) == _runs(Workflow.model_validate(subject))


def _runs(workflow: Workflow) -> bool:
    there = set(workflow.variables)
    for queue in workflow.workflow:
        put_out: set[str] = set()
        for one in queue.tasks:
            if not set(references(one.prompt)) <= there:
                return False
            if one.output_variable in there | put_out:
                return False
            into = there if queue.type == "inline" else put_out
            into |= {one.output_variable} - {None}  # type: ignore[arg-type]  # None is taken out
        there |= put_out
    return True
