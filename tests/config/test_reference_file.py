"""A file written for the reference implementation loads unchanged, with exactly the warnings that it deserves."""

from pathlib import Path

import pytest

from shared.config import load
from shared.config.environment import Environment
from shared.config.providers import routes
from shared.contracts.ids import Category
from tests.config.reference_file import problems, read, reference


def test_it_loads_with_exactly_these_warnings() -> None:
    configuration, warnings = read(reference())
    assert warnings == (
        "$.api_keys.openrouter: keys do not belong in a file; move it to OPENROUTER_API_KEY in the environment",
        "$.api_keys.google_ai: a placeholder, not a key; set GOOGLE_AI_API_KEY in the environment",
        "$.rate_limiting.openrouter.algorithm: 'token_bucket' is not used: requests are counted in sliding windows",
        "$.workflow_templates.research_report.workflow[0].tasks[0].config.addons[0]: "
        "unknown addon 'research_assistant', left out",
    )
    assert configuration.request_flow.categorization[Category.H].orchestration
    assert configuration.system.log_level == "info"
    assert configuration.monitoring.metrics.collect == ("requests", "errors")
    assert configuration.monitoring.alerting.channels == ("email", "webhook")
    assert configuration.error_handling.error_types["transient"].max_retries == 5
    assert configuration.error_handling.retry_config.factor == 2
    assert configuration.error_handling.circuit_breaker.half_open_requests == 3


def test_the_unknown_addon_is_left_out_and_the_known_one_stays() -> None:
    configuration, _ = read(reference())
    task = configuration.workflow_templates["research_report"].workflow[0].tasks[0]
    assert task.config.addons == ("executive_summary",)


def test_names_that_no_task_puts_out_are_required_parameters() -> None:
    configuration, _ = read(reference())
    variables = configuration.workflow_templates["research_report"].variables
    assert {name: one.required for name, one in variables.items()} == {"topic": True, "audience": True}


def test_its_key_is_used_and_never_shown() -> None:
    configuration, warnings = read(reference())
    route = routes(configuration, Environment.read({}))["medium_ai"]
    assert route.api_key is not None
    assert route.api_key.get_secret_value() == "sk-or-v1-0123456789abcdef"
    assert route.base_url == "https://openrouter.ai/api/v1"
    assert "0123456789" not in repr(configuration) + repr(route) + "".join(warnings)


def test_a_key_in_the_environment_wins() -> None:
    configuration, _ = read(reference())
    route = routes(configuration, Environment.read({"OPENROUTER_API_KEY": "sk-or-environment"}))["medium_ai"]
    assert route.api_key is not None
    assert route.api_key.get_secret_value() == "sk-or-environment"


def test_examples_of_other_shapes_are_read() -> None:
    shapes: list[object] = [
        [{"user": "a", "assistant": "L"}, {"user": "b", "assistant": "M"}],
        [{"input": "a", "output": "L"}, {"question": "b", "answer": "M"}],
        [["a", "L"], ["b", "M"]],
        [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "L"},
            {"role": "user", "content": "b"},
            {"role": "assistant", "content": "M"},
        ],
        {"L": ["a"], "M": ["b"]},
    ]
    for shape in shapes:
        document = reference()
        document["base_ai_prompts"]["categorizer_ai"]["examples"] = shape
        configuration, _ = read(document)
        examples = configuration.base_ai_prompts["categorizer_ai"].examples
        assert [(one.user, one.assistant) for one in examples] == [("a", "L"), ("b", "M")], shape


def test_an_example_that_nobody_can_read_is_named() -> None:
    document = reference()
    document["base_ai_prompts"]["categorizer_ai"]["examples"][1] = "Plan a campaign: H"
    assert "$.base_ai_prompts.categorizer_ai.examples[1]" in problems(document)


def test_a_bare_text_is_a_prompt() -> None:
    document = reference()
    document["base_ai_prompts"]["medium_ai"] = "You are helpful."
    configuration, _ = read(document)
    assert configuration.base_ai_prompts["medium_ai"].system_prompt == "You are helpful."


def test_a_template_may_hold_a_whole_workflow_document() -> None:
    document = reference()
    template = document["workflow_templates"]["research_report"]
    template["workflow"] = {"workflow": template["workflow"], "variables": {"audience": "managers"}}
    configuration, _ = read(document)
    variables = configuration.workflow_templates["research_report"].variables
    assert variables["audience"].default == "managers"
    assert {name: one.required for name, one in variables.items()} == {"topic": True, "audience": False}


def test_parameters_are_another_name_for_variables() -> None:
    document = reference()
    document["workflow_templates"]["research_report"]["parameters"] = {
        "topic": {"type": "string", "description": "what about"},
        "audience": {"required": False},
    }
    configuration, _ = read(document)
    template = configuration.workflow_templates["research_report"]
    assert template.bound({"topic": "tea"}) == {"topic": "tea", "audience": ""}


def test_unknown_keys_are_left_out_with_their_path() -> None:
    document = reference()
    document["plugins"] = {"x": 1}
    document["scaling"]["cooldown_seconds"] = 30
    document["ai_models"]["medium_ai"]["tags"] = ["a"]
    document["ai_models"]["medium_ai"]["config"]["top_k"] = 40
    configuration, warnings = read(document)
    assert {warning.partition(":")[0] for warning in warnings if "unknown key" in warning} == {
        "$.plugins",
        "$.scaling.cooldown_seconds",
        "$.ai_models.medium_ai.tags",
    }
    assert configuration.ai_models["medium_ai"].config.extra == {"top_k": 40}


def test_another_spelling_of_a_key_is_read() -> None:
    document = reference()
    document["queuing"]["max_queue_depth"] = document["queuing"].pop("maxQueueDepth")
    document["queuing"]["max_queue_depth"] = 77
    configuration, warnings = read(document)
    assert configuration.queuing.max_queue_depth == 77
    assert "$.queuing.max_queue_depth: read as 'maxQueueDepth', which is how it is written" in warnings


def test_comments_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    import json

    document = {"$schema": "x", "_comment": "ours", **reference()}
    for section in ("queuing", "ai_models", "prompt_addons", "model_fallbacks", "rate_limiting", "workflow_templates"):
        document[section] = {"_comment": "ours", "// why": ["because"], **document[section]}
    path = tmp_path / "file.json"
    path.write_text("\ufeff" + json.dumps(document), encoding="utf-8")
    loaded = load(path)
    assert loaded.warnings == read(reference())[1]
    assert loaded.configuration == read(reference())[0]


def test_models_alone_are_enough() -> None:
    configuration, warnings = read({"ai_models": reference()["ai_models"]})
    assert warnings == ()
    assert configuration.request_flow.categorization[Category.M].model == "medium_ai"
    assert configuration.rate_limiting["openrouter"].requests_per_minute == 60


@pytest.mark.parametrize("where", ["variable", "working_directory"])
def test_where_the_file_is_looked_for(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    path = tmp_path / ("mine.json" if where == "variable" else "orchestration_config.json")
    path.write_text(json.dumps(reference()), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    loaded = load(env={"SEGUE_CONFIG": str(path)} if where == "variable" else {})
    assert loaded.path.resolve() == path
    assert loaded.configuration.system.name == "AI Orchestration System"


def test_else_it_is_the_one_beside_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load(env={})
    assert loaded.path == Path(__file__).resolve().parents[2] / "orchestration_config.json"
