"""What the master AI is asked for, and how whatever it answers is read."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it ships no types

from services.planner.planning import (
    HISTORY_TOKENS,
    MATERIAL_TOKENS,
    MAX_PLANNED_TASKS,
    Offer,
    material,
    opening,
    plan_call,
    read_plan,
    repair,
    schema,
)
from shared.contracts.commands import Spent
from shared.contracts.ids import Category, Lane, Purpose
from shared.contracts.message import ChatMessage, Run
from shared.conversation import tokens_of, user_message
from shared.workflows.substitution import references, substitute
from shared.workflows.validation import Invalid, Problem, Valid
from tests.contracts.strategies import VALUES

NOW = datetime(2026, 11, 1, tzinfo=UTC)
RUN = Run(run_id="r1", tenant="acme", born_at=NOW, deadline_at=NOW + timedelta(seconds=300))
OFFER = Offer({"thinking_ai": "hard tasks", "code_ai": "code"}, ("seo", "storytelling"))
PLAN: dict[str, Any] = {
    "workflow": [
        {
            "type": "linear",
            "tasks": [
                {"model": "code_ai", "prompt": "Write it", "output_variable": "code", "config": {"addons": []}},
                {"model": "thinking_ai", "prompt": "Judge", "output_variable": "view", "config": {"addons": ["seo"]}},
            ],
        },
        {
            "type": "inline",
            "tasks": [
                {"model": "code_ai", "prompt": "{code}{view}", "output_variable": "end", "config": {"addons": []}},
            ],
        },
    ]
}
JSON = json.dumps(PLAN)
STEPS: dict[str, Any] = {
    "step_1": {"name": "code", "model": "code_ai", "prompt": "Write it", "addons": []},
    "step_2": {"name": "view", "needs": [], "model": "thinking_ai", "prompt": "Judge", "addons": ["seo"]},
    "step_3": {"name": "end", "needs": ["step_1", "step_2"], "model": "code_ai", "prompt": "Join", "addons": []},
    **{f"step_{number}": None for number in range(4, MAX_PLANNED_TASKS + 1)},
}


def changed(step: str, **fields: Any) -> dict[str, Any]:
    """The plan with one step that is different."""
    return {**STEPS, step: {**STEPS[step], **fields}}


def tasks_of(plan: dict[str, Any]) -> list[dict[str, Any]]:
    checked = read_plan(json.dumps(plan), OFFER.catalogue)
    assert isinstance(checked, Valid), checked
    (queue,) = checked.workflow.model_dump(mode="json", exclude_none=True, exclude_defaults=True)["workflow"]
    assert queue["type"] == "graph"
    found: list[dict[str, Any]] = queue["tasks"]
    return found


def test_the_schema_takes_a_plan_and_no_other_names() -> None:
    wanted = Draft202012Validator(schema(OFFER))
    wanted.validate(STEPS)
    for field, value in (("model", "gpt"), ("addons", ["sea"]), ("extra", 1), ("prompt", 1)):
        assert list(wanted.iter_errors(changed("step_2", **{field: value}))), field


def test_the_schema_lets_a_step_need_earlier_ones_only() -> None:
    wanted = Draft202012Validator(schema(OFFER))
    for step, need in (("step_1", "step_1"), ("step_2", "step_2"), ("step_2", "step_3"), ("step_3", "step_99")):
        assert list(wanted.iter_errors(changed(step, needs=[need]))), (step, need)
    wanted.validate(changed("step_3", needs=["step_2"]))


def test_steps_come_to_a_graph_with_what_they_need_below_their_prompts() -> None:
    first, second, third = tasks_of(STEPS)
    assert first == {"model": "code_ai", "prompt": "Write it", "output_variable": "code"}
    assert second["config"] == {"addons": ["seo"]}
    assert third["prompt"] == "Join\n\n<code>\n{code}\n</code>\n\n<view>\n{view}\n</view>"


def test_what_a_prompt_mentions_is_put_there_and_not_again() -> None:
    for mention in ("{code}", "{step_1}", "{ code }"):
        prompt = tasks_of(changed("step_3", prompt=f"Judge {mention}!"))[2]["prompt"]
        assert prompt == "Judge {code}!\n\n<view>\n{view}\n</view>"
    assert tasks_of(changed("step_2", prompt="After {code}"))[1]["prompt"] == "After {code}", "an edge by itself"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "}",
        '{"a": 1}',
        "{nobody}",
        "{end}",
        "{{x}}",
        "f'{n:02}'",
        "{}",
        "${x}",
        "a } b {",
        "<b>{{{x}}}</b>",
        "{{x}",
    ],
)
def test_braces_that_are_no_references_mean_themselves(text: str) -> None:
    prompt = tasks_of(changed("step_2", prompt=f"Write {text}"))[1]["prompt"]
    assert references(prompt) == ()
    meant = f"Write {text}"
    assert substitute(prompt, {}) == (meant.replace("{{", "{").replace("}}", "}") if "}}" in text else meant)


def test_what_is_needed_is_found_between_literal_braces_too() -> None:
    prompt = tasks_of(changed("step_3", prompt="Judge {{{step_1}}}!"))[2]["prompt"]
    assert substitute(prompt, {"code": "x", "view": "y"}).startswith("Judge {x}!")


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("Market Research!", "market_research"),
        ("code", "step_2"),
        ("", "step_2"),
        ("step_7", "step_2"),
        ("2nd", "step_2"),
        ("x" * 80, "x" * 64),
    ],
)
def test_an_output_goes_by_its_name_where_that_is_one(name: str, output: str) -> None:
    assert tasks_of(changed("step_2", name=name))[1]["output_variable"] == output


@pytest.mark.parametrize(
    ("plan", "path", "code", "says"),
    [
        (changed("step_2", needs=["step_3"]), "$.step_2.needs[0]", "bad_need", "it can need: step_1"),
        (changed("step_1", needs=["step_1"]), "$.step_1.needs[0]", "bad_need", "none"),
        (changed("step_3", needs=["step_1", 7]), "$.step_3.needs[1]", "bad_need", "7"),
        (changed("step_3", model="kode_ai"), "$.step_3.model", "unknown_model", "did you mean 'code_ai'?"),
        (changed("step_2", addons=["seo", "sea"]), "$.step_2.addons[1]", "unknown_addon", "seo"),
        (changed("step_2", prompt=""), "$.step_2.prompt", "empty_prompt", "empty"),
        ({**STEPS, "step_2": "write"}, "$.step_2", "bad_step", "not an object"),
        (dict.fromkeys(STEPS), "$", "too_short", "step_1"),
    ],
)
def test_a_problem_is_said_of_the_step_that_has_it(plan: dict[str, Any], path: str, code: str, says: str) -> None:
    checked = read_plan(json.dumps(plan), OFFER.catalogue)
    assert isinstance(checked, Invalid)
    assert (checked.problems[0].path, checked.problems[0].code) == (path, code)
    assert says in checked.problems[0].message


@pytest.mark.parametrize("given", [(), ("request",), ("request", "conversation")])
def test_the_examples_that_the_model_is_shown_are_plans(given: tuple[str, ...]) -> None:
    """By the schema and by the validator."""
    offer = Offer({"thinking_ai": "hard", "medium_ai": "all else"}, (), given)
    system = str(opening("", offer, (), user_message("x"))[0].content)
    shown = [json.loads(line) for line in system.splitlines() if line.startswith("{")]
    assert [sum(step is not None for step in plan.values()) for plan in shown] == [3, 2]
    for plan in shown:
        Draft202012Validator(schema(offer)).validate(plan)
        assert isinstance(read_plan(json.dumps(plan), offer.catalogue, dict.fromkeys(given, "text")), Valid)
    assert ('"needs": ["request"]' in system) == ("request" in given)
    assert ('names "conversation"' in system) == ("conversation" in given)


# What steps can need beside each other's results

GIVEN = {"request": "Sum this up:\n" + "{x} " * 500, "conversation": "User: Hello\n\nAssistant: Hi"}
WITH_MATERIAL = replace(OFFER, given=tuple(GIVEN))
NEEDING: dict[str, Any] = {
    **STEPS,
    "step_1": {**STEPS["step_1"], "needs": ["request"]},
    "step_2": {**STEPS["step_2"], "needs": ["conversation", "step_1"]},
}


def planned(plan: dict[str, Any], given: dict[str, str]) -> tuple[list[str], dict[str, Any]]:
    """The prompts and the variables that a plan comes to."""
    checked = read_plan(json.dumps(plan), OFFER.catalogue, given)
    assert isinstance(checked, Valid), checked
    return [task.prompt or "" for task in checked.workflow.workflow[0].tasks], dict(checked.workflow.variables)


def test_a_step_gets_the_request_or_what_came_before_it_where_it_says_so() -> None:
    Draft202012Validator(schema(WITH_MATERIAL)).validate(NEEDING)
    prompts, variables = planned(NEEDING, GIVEN)
    assert prompts[0] == "Write it\n\n<request>\n{request}\n</request>"
    assert prompts[1] == "Judge\n\n<conversation>\n{conversation}\n</conversation>\n\n<code>\n{code}\n</code>"
    assert variables == GIVEN
    assert substitute(prompts[0], variables).endswith(f"<request>\n{GIVEN['request']}\n</request>"), (
        "data, not a template"
    )


def test_only_what_is_needed_is_kept_with_the_plan() -> None:
    assert planned(changed("step_1", prompt="Sum up {request}"), GIVEN)[1] == {"request": GIVEN["request"]}
    assert planned(STEPS, {"request": "Build me a shop"})[1] == {}


def test_where_there_is_nothing_before_a_plan_no_step_can_need_it() -> None:
    """As in a workflow that a task's model writes."""
    assert list(Draft202012Validator(schema(OFFER)).iter_errors(NEEDING))
    checked = read_plan(json.dumps(NEEDING), OFFER.catalogue)
    assert isinstance(checked, Invalid)
    assert [problem.code for problem in checked.problems] == ["bad_need", "bad_need"]


def test_a_long_request_that_a_plan_forgets_goes_to_those_who_begin() -> None:
    """What is longer than all prompts together can't have been copied into them."""
    prompts, variables = planned(STEPS, GIVEN)
    assert [prompt.count("{request}") for prompt in prompts] == [1, 1, 0]
    assert variables == {"request": GIVEN["request"]}
    copied = changed("step_1", prompt="Write " + "it " * 1_000)
    assert planned(copied, GIVEN)[1] == {}
    assert planned(NEEDING | {"step_2": STEPS["step_2"]}, GIVEN)[0][1] == "Judge", "the plan has decided"


def test_a_result_never_goes_by_the_name_of_what_is_given() -> None:
    prompts, variables = planned(
        {**changed("step_1", name="request"), "step_2": {**STEPS["step_2"], "needs": ["request"]}}, GIVEN
    )
    assert prompts[1] == "Judge\n\n<request>\n{request}\n</request>"
    assert variables == {"request": GIVEN["request"]}


def test_the_conversation_before_a_request_is_there_for_a_step_as_it_went() -> None:
    said = (user_message("Hello"), ChatMessage(role="assistant", content="Hi"))
    assert material("Go on", said) == {"request": "Go on", "conversation": GIVEN["conversation"]}
    assert material("Go on", ()) == {"request": "Go on"}
    long = [user_message("y" * 3_000) for _ in range(100)]
    assert 0 < len(material("Go on", long)["conversation"]) <= MATERIAL_TOKENS * 4


def test_the_schema_is_in_the_strict_subset() -> None:
    """What providers take as strict: every object is closed and requires all that it may have."""

    def look(part: Any) -> None:
        if isinstance(part, dict):
            if part.get("$ref"):
                assert part.keys() == {"$ref"}
            if part.get("type") == "object":
                assert part["additionalProperties"] is False
                assert sorted(part["required"]) == sorted(part["properties"])
            for inner in part.values():
                look(inner)
        elif isinstance(part, list):
            for inner in part:
                look(inner)

    look(schema(OFFER))
    look(schema(WITH_MATERIAL))


def test_the_opening_says_what_there_is() -> None:
    asked = opening("You plan.", OFFER, (), user_message("Build me a shop"))
    assert [message.role for message in asked] == ["system", "user"]
    system = str(asked[0].content)
    assert system.startswith("You plan.\n\n")
    assert "- code_ai: code\n- thinking_ai: hard tasks\n" in system
    assert "seo, storytelling" in system
    assert f"At most {MAX_PLANNED_TASKS} steps" in system
    assert asked[-1].content == "Build me a shop"


def test_the_opening_takes_the_end_of_the_session() -> None:
    history = [ChatMessage(role=role, content="x" * 2_000) for _ in range(20) for role in ("user", "assistant")]
    asked = opening("You plan.", OFFER, history, user_message("go on"))
    assert 0 < len(asked) - 2 < len(history)
    assert asked[1].role == "user"
    assert sum(map(tokens_of, asked[1:-1])) <= HISTORY_TOKENS


def test_a_plan_is_asked_for_as_a_decision() -> None:
    messages = opening("You plan.", OFFER, (), user_message("x"))
    call = plan_call(RUN, "thinking_ai", messages, OFFER, 2, Spent(calls=3))
    assert (call.call, call.purpose, call.lane, call.role) == ("plan-2", Purpose.DECISION, Lane.TEXT, "thinking_ai")
    assert (call.category, call.spent, call.messages) == (Category.H, Spent(calls=3), messages)
    assert call.response_schema == schema(OFFER)
    assert call.response_schema_name == "segue_workflow"


def test_a_repair_hands_back_the_answer_with_its_problems() -> None:
    asked = opening("You plan.", OFFER, (), user_message("x"))
    problems = tuple(Problem(f"$.workflow[{n}]", "odd", f"number {n} is odd") for n in range(30))
    again = repair(asked, "y" * 50_000, problems)
    assert again[: len(asked)] == asked
    answered, wanted = again[len(asked) :]
    assert (answered.role, len(str(answered.content))) == ("assistant", 20_000)
    assert wanted.role == "user"
    assert "- $.workflow[0]: number 0 is odd\n" in str(wanted.content)
    assert str(wanted.content).count("is odd") == 20


@pytest.mark.parametrize(
    "answer",
    [
        JSON,
        json.dumps(PLAN, indent=2),
        f"\ufeff{JSON}",
        f"```json\n{JSON}\n```",
        f"Here is the plan:\n\n{JSON}\n\nIt runs two tasks side by side.",
        f'<think>Perhaps {{topic}}, or {{}}? Or {{"a": 1}}.</think>{JSON}',
        f"I put {{code}} and {{view}} together: {JSON} and {{end}} is the result.",
        JSON + JSON,
        JSON + "}",
    ],
)
def test_prose_around_a_plan_does_not_matter(answer: str) -> None:
    checked = read_plan(answer, OFFER.catalogue)
    assert isinstance(checked, Valid)
    assert checked.workflow.model_dump(exclude_none=True, exclude_defaults=True)["workflow"][1]["tasks"][0] == {
        "model": "code_ai", "prompt": "{code}{view}", "output_variable": "end",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        ("", "not_json", "no JSON object"),
        ("I cannot do that.", "not_json", "no JSON object"),
        ("[1, 2]", "not_json", "no JSON object"),
        (JSON[:-1], "not_json", "Expecting ',' delimiter"),
        (JSON[:90], "not_json", "not valid JSON"),
        (JSON.replace('"', "'"), "not_json", "not valid JSON"),
        ('{"workflow": [,]}', "not_json", "char 14"),
        ("{" * 100_000, "not_json", "not valid JSON"),
        ('{"workflow": ' + "[" * 100_000, "not_json", "too deep"),
        ('{"workflow": ' + '{"a":' * 100_000, "not_json", "too deep"),
        ('{"queues": []}', "missing", "Field required"),
        ("{}", "missing", "Field required"),
        ('{"workflow": NaN}', "not_finite", "nan"),
        ('{"workflow": [{"type": "\\ud83d"}]}', "not_text", "half of a character"),
        (JSON.replace("code_ai", "kode_ai", 1), "unknown_model", "did you mean 'code_ai'?"),
        (JSON.replace("{code}", "{end}"), "circular_variable", "own output"),
    ],
)
def test_what_is_no_plan_says_why(answer: str, code: str, says: str) -> None:
    checked = read_plan(answer, OFFER.catalogue)
    assert isinstance(checked, Invalid)
    assert checked.problems[0].code == code
    assert says in checked.problems[0].message


def test_a_plan_has_a_bound_of_its_own() -> None:
    task = {"model": "code_ai", "prompt": "x"}
    plan = {"workflow": [{"type": "linear", "tasks": [task] * (MAX_PLANNED_TASKS + 1)}]}
    checked = read_plan(json.dumps(plan), OFFER.catalogue)
    assert isinstance(checked, Invalid)
    assert [problem.code for problem in checked.problems] == ["too_many_tasks"]


@settings(deadline=None)
@given(st.text(max_size=60) | st.text('{}[]",:workflow1 ', max_size=60) | VALUES.map(json.dumps))
def test_whatever_a_model_says_is_a_plan_or_has_problems(answer: str) -> None:
    checked = read_plan(answer, OFFER.catalogue)
    assert isinstance(checked, Invalid)
    assert checked.problems


@settings(deadline=None)
@given(at=st.integers(0, len(JSON)), noise=st.text('{}[]",:a1 ', max_size=3), length=st.integers(0, 3))
def test_a_damaged_plan_is_a_plan_or_has_problems(at: int, noise: str, length: int) -> None:
    checked = read_plan(JSON[:at] + noise + JSON[at + length :], OFFER.catalogue)
    if isinstance(checked, Invalid):
        assert checked.problems
    else:
        assert 0 < sum(len(queue.tasks) for queue in checked.workflow.workflow) <= 3
