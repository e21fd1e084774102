"""What can be asked for by `model`: no more than a caller may ask."""

from dataclasses import replace

from services.gateway.http.openai.offer import AUTO, listed, roles_behind
from services.gateway.listings import OfferedModel
from services.gateway.principal import EVERYBODY, Account
from shared.config.templates import Template
from shared.contracts.access import Allowance
from shared.contracts.ids import Lane
from shared.contracts.workflow import Queue, Task
from tests.gateway.serving import listings


def template(*tasks: Task) -> Template:
    return Template(description="A test's.", workflow=(Queue(type="linear", tasks=tasks),), variables={})


def role(name: str) -> Task:
    return Task(model=name, prompt="Say", output_variable=f"by_{name}")


def inner(name: str) -> Task:
    return Task(template=name, output_variable=f"in_{name}")


def test_the_roles_behind_a_template_are_those_of_the_templates_in_it_too() -> None:
    """However deep they stand, and if they stand in each other; one that is gone has none."""
    there = {
        "outer": template(role("medium_ai"), inner("middle")),
        "middle": template(inner("innermost"), inner("outer"), inner("gone")),
        "innermost": template(role("code_ai")),
    }
    assert roles_behind("outer", there) == {"medium_ai", "code_ai"}
    assert roles_behind("innermost", there) == {"code_ai"}
    assert roles_behind("gone", there) == set()


def test_the_whole_system_is_offered_to_whoever_may_ask_a_role_that_writes() -> None:
    """With nothing but images allowed nobody could answer."""
    draws = OfferedModel("image_ai", "google", "maker/draws", "to draw", lane=Lane.IMAGE)
    offered = replace(listings(), models=(*listings().models, draws))

    def names(*models: str) -> list[str]:
        asks = replace(EVERYBODY, accounts=(Account("key.k", Allowance(models=models)),))
        return [one["id"] for one in listed(offered, {}, asks)]

    assert names("image_ai") == ["image_ai"]
    assert names("image_ai", "code_ai") == [AUTO, "code_ai", "image_ai"]
    assert [one["id"] for one in listed(offered, {}, EVERYBODY)][-1] == "image_ai"
