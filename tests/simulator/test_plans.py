"""The simulated master AI's workflows: always valid, about the request, within what the schema offers."""

import json
from dataclasses import replace
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]  # publishes no types
from hypothesis import given
from hypothesis import strategies as st

from services.planner.planning import Offer, opening, read_plan, repair, schema
from shared.contracts.message import ChatMessage
from shared.conversation import user_message
from shared.workflows.substitution import references, substitute
from shared.workflows.validation import Problem, Valid
from simulator.chat_request import ChatRequest, read
from simulator.plans import plan
from tests.simulator.conftest import asking, said

ROLES = {
    "fast_ai": "simple questions",
    "medium_ai": "everyday questions",
    "thinking_ai": "hard tasks",
    "code_ai": "code",
    "imagen_4_ultra": "images",
    "veo_3_1": "video",
}
ADDONS = ("executive_summary", "email_campaigns", "instagram", "headline_optimization")
OFFER = Offer(ROLES, ADDONS)
CAMPAIGN = (
    "Plan a campaign for kites: research the market, write a slogan, three posts and an e-mail, then join it all."
)


def planning(text: str, offer: Offer = OFFER, history: tuple[ChatMessage, ...] = ()) -> dict[str, Any]:
    """Return the body of the request that the planner sends."""
    messages = opening("You are the master.", offer, history, user_message(text))
    return with_schema(messages, offer)


def with_schema(messages: tuple[ChatMessage, ...], offer: Offer) -> dict[str, Any]:
    wanted = {"type": "json_schema", "json_schema": {"name": "segue_workflow", "strict": True, "schema": schema(offer)}}
    return asking(messages=[one.model_dump(mode="json") for one in messages], response_format=wanted, max_tokens=4_000)


def planned(body: dict[str, Any]) -> Any:
    request = read(json.dumps(body).encode())
    assert isinstance(request, ChatRequest)
    return json.loads(plan(request))


@given(st.text(min_size=1, max_size=800))
def test_a_plan_is_valid_whatever_is_asked(text: str) -> None:
    """By the planner's own validator and schema, with braces in the request taken as they are."""
    document = planned(planning(text))
    jsonschema.validate(document, schema(OFFER))
    checked = read_plan(json.dumps(document), OFFER.catalogue)
    assert isinstance(checked, Valid), checked
    assert 2 <= sum(len(queue.tasks) for queue in checked.workflow.workflow) <= 5


@given(st.sets(st.sampled_from(sorted(ROLES)), min_size=1), st.sets(st.sampled_from(ADDONS)))
def test_only_what_is_offered_is_used(roles: set[str], addons: set[str]) -> None:
    offer = Offer({role: ROLES[role] for role in sorted(roles)}, tuple(sorted(addons)))
    document = planned(planning(CAMPAIGN, offer))
    jsonschema.validate(document, schema(offer))
    assert isinstance(read_plan(json.dumps(document), offer.catalogue), Valid)


def test_a_plan_has_what_is_asked_for_and_hands_results_on() -> None:
    """Research first, the deliverables side by side with it, one task that joins them."""
    first, *made, joined = steps_of(planned(planning(CAMPAIGN)))
    assert (first["name"], "needs" in first) == ("research", False)
    assert {step["name"] for step in made} == {"slogan", "social_posts", "emails"}
    assert all(step["needs"] == ["step_1"] for step in made)
    assert set(references(joined["prompt"])) == {"slogan", "social_posts", "emails"}
    assert joined["needs"] == ["step_2", "step_3", "step_4"]
    assert all("kites" in step["prompt"] for step in (first, *made, joined))
    assert "instagram" in next(step for step in made if step["name"] == "social_posts")["addons"]


def test_a_long_request_is_handed_to_the_first_step() -> None:
    """Where the schema lets a step need it: its topic is no more than the beginning."""
    offer = replace(OFFER, given=("request",))
    assert planned(planning(CAMPAIGN, offer))["step_1"]["needs"] == []
    long = planned(planning(f"{CAMPAIGN} The figures: {'kites, ' * 80}", offer))
    assert long["step_1"]["needs"] == ["request"]
    jsonschema.validate(long, schema(offer))


def steps_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for step in document.values() if step is not None]


def test_media_go_to_the_models_that_make_them() -> None:
    steps = steps_of(planned(planning("Write a story, generate an image and produce a video for it.")))
    models = {step["name"]: step["model"] for step in steps}
    assert models["image"] == "imagen_4_ultra"
    assert models["video"] == "veo_3_1"


def test_braces_of_the_request_are_not_references() -> None:
    """What stands in braces reaches the model as it was written."""
    document = planned(planning("Fill {name} into the template {{greeting}} and write an e-mail and a report."))
    prompt = document["step_1"]["prompt"]
    assert references(prompt) == ()
    assert "Fill {name} into the template {{greeting}}" in substitute(prompt, {})


def test_a_plan_handed_back_is_made_for_the_request() -> None:
    """A repair is asked for in the last message; what is to be planned stands before it."""
    asked = opening("You are the master.", OFFER, (), user_message(CAMPAIGN))
    again = repair(asked, '{"workflow": [', [Problem("$", "not_json", "not valid JSON")])
    assert planned(with_schema(again, OFFER)) == planned(planning(CAMPAIGN))


def test_history_is_not_what_is_planned() -> None:
    history = (user_message("Hello there"), ChatMessage(role="assistant", content="Good day."))
    assert planned(planning(CAMPAIGN, history=history)) == planned(planning(CAMPAIGN))


async def test_without_a_schema_roles_come_from_the_prompt(http: httpx.AsyncClient) -> None:
    """Then the plan carries variables, and only roles that the prompt names."""
    system = "You write a workflow as JSON.\n- medium_ai: questions\n- thinking_ai: hard\n- finished_task_ai: the end"
    asked = asking(messages=[{"role": "system", "content": system}, {"role": "user", "content": CAMPAIGN}])
    document = json.loads(said(await http.post("/chat/completions", json=asked)))
    assert document["variables"]["topic"] == CAMPAIGN
    tasks = [task for queue in document["workflow"] for task in queue["tasks"]]
    assert {task["model"] for task in tasks} <= {"medium_ai", "thinking_ai"}
    assert "{topic}" in tasks[0]["prompt"]


async def test_whoever_offers_functions_wants_no_plan(http: httpx.AsyncClient) -> None:
    """Programs that work on code speak of workflows and of JSON too."""
    system = "Keep to the project's workflow. Functions take JSON."
    function = {"type": "function", "function": {"name": "run", "parameters": {"type": "object"}}}
    messages = [{"role": "system", "content": system}, {"role": "user", "content": "What does a.py do?"}]
    asked = asking(messages=messages, tools=[function])
    assert said(await http.post("/chat/completions", json=asked)).startswith("[simulated]")


async def test_the_planners_request_gets_a_plan(http: httpx.AsyncClient) -> None:
    """Over HTTP, as JSON alone, without the mark of prose."""
    text = said(await http.post("/chat/completions", json=planning(CAMPAIGN)))
    assert isinstance(read_plan(text, OFFER.catalogue), Valid)
    assert text.startswith("{")
