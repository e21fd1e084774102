"""The call that a task becomes: its values put in once, its role, its settings."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.planner.advance import Bounds, Due
from services.planner.tasks import Cast, Persona, question, task_call
from shared.contracts.commands import ExecuteCall
from shared.contracts.ids import Category, Lane, Priority, Purpose
from shared.contracts.message import ChatMessage, Run
from shared.contracts.workflow import Workflow
from shared.workflows.graph import compiled
from shared.workflows.outputs import Missing, Unfit, Values

NOW = datetime(2026, 11, 1, tzinfo=UTC)
RUN = Run(run_id="r1", tenant="acme", priority=Priority.LOW, born_at=NOW, deadline_at=NOW + timedelta(seconds=300))
WRITER = Persona("You write.", Lane.TEXT)
ADDONS = {"seo": "Write for search.", "story": "Tell a story."}


def call(task: dict[str, Any], persona: Persona = WRITER, **values: Any) -> ExecuteCall:
    """Return the call of a workflow's only task; `values` are its variables."""
    document = {"workflow": [{"type": "linear", "tasks": [task]}], "variables": values}
    graph = compiled(Workflow.model_validate(document))
    cast = Cast({"medium_ai": persona}, ADDONS, Bounds())
    return task_call(RUN, graph, Due(graph.nodes["0-0"]), Values(), cast, Category.H)


def step(**task: Any) -> dict[str, Any]:
    return {"model": "medium_ai", "prompt": "p", **task}


def test_a_task_becomes_a_call_of_its_run() -> None:
    made = call(step(prompt="Write on {topic}"), topic="tides")
    assert (made.run, made.call, made.purpose, made.lane) == (RUN, "0-0", Purpose.TASK, Lane.TEXT)
    assert (made.role, made.category, made.stream) == ("medium_ai", Category.H, True)
    assert made.messages == (
        ChatMessage(role="system", content="You write."),
        ChatMessage(role="user", content="Write on tides"),
    )


def test_values_are_put_in_once() -> None:
    made = call(step(prompt="{a} {n} {{a}}"), a="{n} {a}", n=["{a}", 1])
    assert made.messages[-1].content == '{n} {a} ["{a}", 1] {a}'


def test_addons_stand_below_the_roles_prompt() -> None:
    made = call(step(config={"addons": ["story", "seo"]}))
    assert made.messages[0].content == "You write.\n\nTell a story.\n\nWrite for search."


def test_a_role_without_a_prompt_has_no_system_message() -> None:
    made = call(step(), Persona("", Lane.IMAGE))
    assert made.lane is Lane.IMAGE
    assert [message.role for message in made.messages] == ["user"]
    with_addon = call(step(config={"addons": ["seo"]}), Persona("", Lane.IMAGE))
    assert [message.role for message in with_addon.messages] == ["system", "user"]


def test_settings_of_the_task_come_along() -> None:
    made = call(step(config={"temperature": 0, "max_tokens": 7, "top_p": 0.5}))
    assert (made.temperature, made.max_tokens, made.top_p) == (0, 7, 0.5)
    plain = call(step())
    assert (plain.temperature, plain.max_tokens, plain.top_p) == (None, None, None)


def test_an_image_is_looked_at_beside_the_prompt() -> None:
    made = call(
        step(prompt="Judge {tone}ly", input_image="{picture}"), tone="kind", picture="https://example.org/a.png"
    )
    assert made.messages[-1].content == [
        {"type": "text", "text": "Judge kindly"},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    ]


def test_the_same_plan_and_values_give_the_same_call() -> None:
    """Commands follow from the log: a planner that takes over sends what its predecessor would have sent."""
    one = call(step(prompt="{a}{b}", config={"addons": ["seo"]}), a="1", b={"x": [None]})
    two = call(step(prompt="{a}{b}", config={"addons": ["seo"]}), b={"x": [None]}, a="1")
    assert one.encode() == two.encode()


def test_a_value_that_is_not_there_is_asked_for_by_its_task() -> None:
    document = {"workflow": [{"type": "inline", "tasks": [step(output_variable="a"), step(prompt="{a.b} {x}")]}]}
    graph = compiled(Workflow.model_validate(document))
    values = Values()
    cast = Cast({"medium_ai": WRITER}, ADDONS, Bounds())
    with pytest.raises(Missing, match="0-0"):
        task_call(RUN, graph, Due(graph.nodes["0-1"]), values, cast, None)
    values["0-0"] = '{"b": [1]}'
    made = task_call(RUN, graph, Due(graph.nodes["0-1"]), values, cast, None)
    assert made.messages[-1].content == "[1] {x}"


def test_an_item_knows_itself_and_its_place() -> None:
    document = {
        "workflow": [{"type": "linear", "tasks": [step(prompt="{item.n} at {index} of {all}", for_each="{all}")]}],
        "variables": {"all": [{"n": "one"}, {"n": "two"}]},
    }
    graph = compiled(Workflow.model_validate(document))
    cast = Cast({"medium_ai": WRITER}, ADDONS, Bounds(max_fan_out=2))
    made = task_call(RUN, graph, Due(graph.nodes["0-0"], 1), Values(), cast, None)
    assert made.call == "0-0_1"
    assert str(made.messages[-1].content).startswith("two at 1 of [")
    with pytest.raises(Unfit, match="at most 1"):
        task_call(RUN, graph, Due(graph.nodes["0-0"], 1), Values(), Cast({}, {}, Bounds(max_fan_out=1)), None)


def test_what_cannot_be_done_says_why() -> None:
    for task, code in ((step(when="x > 1"), "bad_condition"), (step(for_each="{x}"), "not_a_list")):
        with pytest.raises(Unfit) as raised:
            call(task, x="text")
        assert raised.value.code == code


def test_an_answer_is_handed_back_with_its_errors() -> None:
    graph = compiled(Workflow.model_validate({"workflow": [{"type": "linear", "tasks": [step(output_schema={})]}]}))
    cast = Cast({"medium_ai": WRITER}, ADDONS, Bounds())
    due = Due(graph.nodes["0-0"], repair=True)
    made = task_call(RUN, graph, due, Values(), cast, None, ("wrong", ["$: is not right"]))
    assert made.call == "0-0_r"
    assert [message.role for message in made.messages] == ["system", "user", "assistant", "user"]
    assert "- $: is not right" in str(made.messages[-1].content)


def test_a_person_is_asked_with_the_values_put_in() -> None:
    document = {
        "workflow": [{"type": "linear", "tasks": [step(approve={"message": "Send {n} letters?"}), step(approve=True)]}],
        "variables": {"n": 3},
    }
    graph = compiled(Workflow.model_validate(document))
    assert question(graph, graph.nodes["0-0"], Values()) == "Send 3 letters?"
    assert "task_1_2" in question(graph, graph.nodes["0-1"], Values())
