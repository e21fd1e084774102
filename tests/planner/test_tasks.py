"""The call that a task becomes: its values put in once, its role, its settings."""

from datetime import UTC, datetime, timedelta

import pytest

from services.planner.advance import Step
from services.planner.tasks import Persona, names_needed, task_call
from shared.contracts.commands import ExecuteCall
from shared.contracts.ids import Category, Lane, Priority, Purpose
from shared.contracts.message import ChatMessage, Run
from shared.contracts.workflow import Task

NOW = datetime(2026, 11, 1, tzinfo=UTC)
RUN = Run(run_id="r1", tenant="acme", priority=Priority.LOW, born_at=NOW, deadline_at=NOW + timedelta(seconds=300))
WRITER = Persona("You write.", Lane.TEXT)
ADDONS = {"seo": "Write for search.", "story": "Tell a story."}


def step(**task: object) -> Step:
    return Step(4, 2, 1, Task.model_validate({"model": "medium_ai", "prompt": "p", **task}))


def call(of: Step, persona: Persona = WRITER, **values: object) -> ExecuteCall:
    return task_call(RUN, of, values, persona, ADDONS, Category.H)  # type: ignore[arg-type]  # JSON values by name


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ({"prompt": "nothing"}, ()),
        ({"prompt": "{b} {a} {b} {{c}}"}, ("b", "a")),
        ({"prompt": "{a}", "input_image": "{picture}"}, ("a", "picture")),
        ({"prompt": "{a}", "input_image": "{a}"}, ("a",)),
        ({"prompt": "x", "input_image": "https://example.org/a.png"}, ()),
    ],
)
def test_the_names_that_a_task_needs(task: dict[str, object], names: tuple[str, ...]) -> None:
    assert names_needed(step(**task)) == names


def test_a_task_becomes_a_call_of_its_run() -> None:
    made = call(step(prompt="Write on {topic}"), topic="tides")
    assert (made.run, made.call, made.purpose, made.lane) == (RUN, "2-1", Purpose.TASK, Lane.TEXT)
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
