"""The configuration that Segue ships with."""

import json
import time
from collections.abc import Mapping
from itertools import combinations, pairwise
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # it has no types, and nothing else of it is used
import pytest

from services.categorizer.routing import read_letter
from services.planner.planning import Offer, opening, read_plan
from shared.config import Configuration, load
from shared.config.providers import lane
from shared.contracts.ids import Category, Lane
from shared.contracts.workflow import Workflow
from shared.conversation import estimated_tokens, user_message
from shared.workflows.substitution import references
from shared.workflows.validation import Catalogue, Valid, validate

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "orchestration_config.json"

ROLES = {
    "categorizer_ai": (0.3, 10, 0.9),
    "fast_ai": (0.7, 500, 0.95),
    "medium_ai": (0.7, 2000, 0.95),
    "thinking_ai": (0.8, 8000, 0.95),
    "thinking_fast_response_ai": (0.7, 300, 0.9),
    "finished_task_ai": (0.7, 500, 0.9),
    "ai_workers_failed_ai": (0.7, 500, 0.9),
    "code_ai": (0.6, 8000, 0.95),
    "sub_master_ai": (0.7, 8000, 0.95),
    "image_analysis_ai": (0.5, 2000, 0.9),
    "image_model": (0.8, 1000, None),
    "imagen_4_ultra": (None, None, None),
    "veo_3_1": (None, None, None),
}
ADDONS = """
    blog_writing headline_optimization newsletter product_descriptions case_study storytelling repurposing
    youtube_scripts email_campaigns value_proposition seo_optimization ad_copy landing_page brand_messaging
    campaign_planning unique_selling_points instagram linkedin tiktok twitter facebook social_calendar hashtag_strategy
    community_management business_proposal swot_analysis customer_persona competitor_analysis okr_development
    standard_operating_procedure project_brief decision_matrix executive_summary executive_presentation meeting_agenda
    sales_script customer_journey aida_framework problem_solution_framework trend_adaptation email_response
    resume_enhancement cover_letter networking_message personal_bio time_management goal_setting learning_summary
    interview_prep feedback_framework
""".split()  # noqa: SIM905 - fifty names read better as a text


@pytest.fixture(scope="module")
def shipped() -> Configuration:
    return load(FILE).configuration


def test_it_loads_without_a_warning() -> None:
    loaded = load(FILE)
    assert loaded.warnings == ()
    assert loaded.path == FILE


def test_it_loads_fast() -> None:
    load(FILE)
    best_s = min(_timed() for _ in range(5))
    assert best_s < 0.15


def _timed() -> float:
    """Return the processor's time: others' on a busy machine does not count."""
    began = time.process_time()
    load(FILE)
    return time.process_time() - began


def test_its_schema_accepts_it() -> None:
    schema = json.loads((ROOT / "docs/reference/configuration.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(json.loads(FILE.read_text()))


def test_it_has_every_section(shipped: Configuration) -> None:
    raw = json.loads(FILE.read_text())
    sections = {one.alias or name for name, one in Configuration.model_fields.items()}
    assert sections <= raw.keys()


def test_it_holds_the_figures_that_were_asked_for(shipped: Configuration) -> None:
    orchestration, queuing, scaling = shipped.orchestration, shipped.queuing, shipped.scaling
    assert orchestration.max_concurrent_workflows == 1000
    assert orchestration.default_timeout_s == 300
    assert orchestration.max_retries == 3
    assert orchestration.checkpoint_interval == 5
    assert orchestration.state_retention_days == 30
    assert queuing.shares == {"high": 0.6, "medium": 0.3, "low": 0.1}
    assert queuing.max_queue_depth == 10_000
    assert (scaling.min_instances, scaling.max_instances) == (3, 20)
    assert (scaling.scale_up_threshold, scaling.scale_down_threshold) == (0.75, 0.25)
    limits = shipped.request_flow.context_limits
    assert (limits.force_thinking_ai, limits.force_gemini_pro, limits.deny_request) == (100_000, 200_000, 900_000)
    assert shipped.request_flow.warmup.models == ("categorizer_ai", "fast_ai")
    errors = shipped.error_handling
    assert {kind: rule.max_retries for kind, rule in errors.error_types.items()} == {
        "transient": 5,
        "persistent": 1,
        "resource": 2,
        "logical": 3,
        "fatal": 0,
    }
    retry = errors.retry_config
    assert (retry.base_delay_ms, retry.factor, retry.max_delay_ms, retry.jitter) == (1000, 2, 30_000, True)
    assert {429, 500, 503, 504} <= set(retry.retryable_statuses)
    breaker = errors.circuit_breaker
    assert (breaker.failure_threshold, breaker.open_s, breaker.half_open_requests) == (5, 60, 3)
    openrouter, google = shipped.rate_limiting["openrouter"], shipped.rate_limiting["google_ai"]
    assert (openrouter.requests_per_minute, openrouter.tokens_per_minute, openrouter.burst_allowance) == (
        60,
        500_000,
        10,
    )
    assert (google.requests_per_minute, google.requests_per_day) == (60, 1500)
    thresholds = shipped.monitoring.alerting.thresholds
    assert (thresholds.error_rate, thresholds.response_time_p95_ms, thresholds.queue_depth) == (0.05, 5000, 5000)
    assert shipped.monitoring.alerting.channels == ("email", "webhook")


def test_the_thirteen_roles_have_their_settings(shipped: Configuration) -> None:
    found = {
        role: (model.config.temperature, model.config.max_tokens, model.config.top_p)
        for role, model in shipped.ai_models.items()
    }
    assert found == ROLES
    assert shipped.ai_models["imagen_4_ultra"].config.extra == {
        "aspect_ratio": "1:1",
        "enhance_prompt": True,
        "safety_filter": "block_medium_and_above",
        "num_images": 1,
    }
    assert shipped.ai_models["veo_3_1"].config.extra["duration"] == 8


def test_models_that_are_gone_are_replaced_and_recorded(shipped: Configuration) -> None:
    replaced = {role: model.original_model for role, model in shipped.ai_models.items() if model.original_model}
    assert replaced == {
        "image_analysis_ai": "google/gemini-2.5-pro",
        "image_model": "x-ai/grok-4-fast",
        "imagen_4_ultra": "imagen-4-ultra",
        "veo_3_1": "veo-3.1",
    }
    assert not {model.model for model in shipped.ai_models.values()} & set(replaced.values())


def test_the_log_level_of_monitoring_wins_over_the_systems(shipped: Configuration) -> None:
    assert shipped.log_level == "info"
    logging = shipped.monitoring.logging.model_copy(update={"level": "error"})
    monitoring = shipped.monitoring.model_copy(update={"logging": logging})
    assert shipped.model_copy(update={"monitoring": monitoring}).log_level == "error"
    silent = monitoring.model_copy(update={"logging": logging.model_copy(update={"level": None})})
    assert shipped.model_copy(update={"monitoring": silent}).log_level == "info"


def test_lanes_follow_from_the_settings(shipped: Configuration) -> None:
    others = {role: lane(shipped, role) for role in shipped.ai_models if lane(shipped, role) is not Lane.TEXT}
    assert others == {"imagen_4_ultra": Lane.IMAGE, "veo_3_1": Lane.VIDEO}


def test_fallbacks(shipped: Configuration) -> None:
    assert shipped.model_fallbacks["thinking_ai"] == ("sub_master_ai", "medium_ai")
    assert shipped.model_fallbacks["medium_ai"] == ("fast_ai",)
    assert shipped.model_fallbacks["code_ai"] == ("thinking_ai",)
    assert shipped.model_fallbacks["imagen_4_ultra"] == ("image_model",)
    assert shipped.model_fallbacks["image_model"][0] == "imagen_4_ultra"


def test_the_long_context_model_can_read_what_is_sent_to_it(shipped: Configuration) -> None:
    limits = shipped.request_flow.context_limits
    assert shipped.ai_models[limits.long_context_model].context_tokens >= limits.deny_request
    thinking = shipped.request_flow.categorization[Category.L].model
    assert shipped.ai_models[thinking].context_tokens >= limits.force_gemini_pro


def test_every_role_and_the_planner_has_a_prompt(shipped: Configuration) -> None:
    assert shipped.base_ai_prompts.keys() == {*ROLES, "master_ai"}
    texts = [prompt.system_prompt for prompt in shipped.base_ai_prompts.values()]
    assert all(len(text.split()) >= 50 for text in texts)
    assert not _near_duplicates(dict(zip(shipped.base_ai_prompts, texts, strict=True)))


def test_the_categorizer_is_shown_every_letter(shipped: Configuration) -> None:
    prompt = shipped.base_ai_prompts["categorizer_ai"]
    assert "exactly one letter: L, M or H" in prompt.system_prompt
    letters = [read_letter(example.assistant) for example in prompt.examples]
    assert len(letters) >= 8
    assert {letter: letters.count(letter) >= 2 for letter in Category} == dict.fromkeys(Category, True)
    assert all(example.assistant in {"L", "M", "H"} for example in prompt.examples)


def test_the_plans_that_the_master_is_shown_can_run(shipped: Configuration) -> None:
    """With the shipped roles and addons: both examples pass the validator, and the whole opening is short."""
    text = shipped.base_ai_prompts["master_ai"].system_prompt
    offer = Offer({role: model.purpose for role, model in shipped.ai_models.items()}, tuple(shipped.prompt_addons))
    system = str(opening(text, offer, (), user_message("x"))[0].content)
    plans = [line for line in system.splitlines() if line.startswith('{"step_1"')]
    assert len(plans) == 2
    for plan in plans:
        checked = read_plan(plan, offer.catalogue)
        assert isinstance(checked, Valid), str(checked)
    assert "{" not in text, "the form is explained where it is defined"
    assert estimated_tokens(system) < 3_000


def test_the_fifty_addons_are_there(shipped: Configuration) -> None:
    assert len(ADDONS) == 50
    assert list(shipped.prompt_addons) == ADDONS


def test_addons_are_instructions_of_sixty_to_two_hundred_words(shipped: Configuration) -> None:
    counts = {name: len(text.split()) for name, text in shipped.prompt_addons.items()}
    assert {name: count for name, count in counts.items() if not 60 <= count <= 200} == {}


def test_no_two_addons_are_nearly_the_same(shipped: Configuration) -> None:
    assert _near_duplicates(shipped.prompt_addons) == []


def _near_duplicates(texts: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the texts that share more than a tenth of their pairs of neighbouring words."""
    shingles = {name: set(pairwise(text.lower().split())) for name, text in texts.items()}
    return [
        (one, other)
        for one, other in combinations(texts, 2)
        if len(shingles[one] & shingles[other]) / len(shingles[one] | shingles[other]) > 0.1
    ]


def test_templates_have_their_parts(shipped: Configuration) -> None:
    templates = shipped.workflow_templates
    assert templates.keys() == {"research_report", "marketing_campaign", "code_project"}
    shapes = {
        name: [(queue.type, [task.model for task in queue.tasks]) for queue in template.workflow]
        for name, template in templates.items()
    }
    assert shapes["research_report"] == [
        ("linear", ["thinking_ai", "thinking_ai"]),
        ("inline", ["thinking_ai", "finished_task_ai"]),
    ]
    assert shapes["marketing_campaign"] == [
        ("inline", ["thinking_ai"]),
        ("linear", ["medium_ai", "medium_ai", "medium_ai", "imagen_4_ultra", "medium_ai", "veo_3_1"]),
        ("inline", ["image_analysis_ai", "finished_task_ai"]),
    ]
    assert [name for name, _ in shapes["code_project"]] == ["inline"]
    evaluation = templates["marketing_campaign"].workflow[2].tasks[0]
    assert evaluation.input_image == "{product_image}"
    required = {name: {k for k, v in one.variables.items() if v.required} for name, one in templates.items()}
    assert required == {
        "research_report": {"topic"},
        "marketing_campaign": {"product"},
        "code_project": {"project_description"},
    }


@pytest.mark.parametrize("name", ["research_report", "marketing_campaign", "code_project"])
def test_templates_can_run_with_what_is_required(shipped: Configuration, name: str) -> None:
    template = shipped.workflow_templates[name]
    given = {key: "x" for key, one in template.variables.items() if one.required}
    assert list(template.problems(given)) == []
    workflow = Workflow(workflow=template.workflow, variables=template.bound(given))
    catalogue = Catalogue(frozenset(shipped.ai_models), frozenset(shipped.prompt_addons))
    checked = validate(workflow.model_dump(mode="json", exclude_none=True), catalogue)
    assert isinstance(checked, Valid), str(checked)


def test_every_parameter_of_a_template_is_used_and_described(shipped: Configuration) -> None:
    for template in shipped.workflow_templates.values():
        used = {name for queue in template.workflow for task in queue.tasks for name in references(task.prompt)}
        assert template.variables.keys() <= used
        assert all(one.description for one in template.variables.values())
        assert template.steps == sum(len(queue.tasks) for queue in template.workflow)
