"""A wrong file is refused with every problem at once: JSON path, value found, what is expected."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.config import ConfigInvalid, load, parse
from tests.config.reference_file import problems, read, reference

Change = Callable[[dict[str, Any]], object]


def put(*path: Any) -> Change:
    """Return a change that sets the value at a path: its last item is the value."""
    *steps, last, value = path

    def change(document: dict[str, Any]) -> None:
        inner: Any = document
        for step in steps:
            inner = inner[step]
        inner[last] = value

    return change


def drop(*path: Any) -> Change:
    """Return a change that takes a key out."""
    *steps, last = path

    def change(document: dict[str, Any]) -> None:
        inner: Any = document
        for step in steps:
            inner = inner[step]
        del inner[last]

    return change


TASK = ("workflow_templates", "research_report", "workflow", 0, "tasks", 0)
SECOND = ("workflow_templates", "research_report", "workflow", 1, "tasks", 0)

WRONG: list[tuple[Change, str, str, str]] = [
    (put("queuing", "maxQueueDepth", 0), "$.queuing.maxQueueDepth", "0", "greater than or equal to 1"),
    (put("queuing", "maxQueueDepth", "many"), "$.queuing.maxQueueDepth", '"many"', "a whole number"),
    (put("queuing", "maxQueueDepth", True), "$.queuing.maxQueueDepth", "true", "a whole number"),
    (put("queuing", "maxQueueDepth", None), "$.queuing.maxQueueDepth", "null", "a whole number"),
    (put("queuing", "lowPriorityRatio", 0), "$.queuing.lowPriorityRatio", "0", "greater than 0"),
    (put("queuing", "lowPriorityRatio", 0.4), "$.queuing", "an object of 4", "they sum to 1.3"),
    (put("queuing", []), "$.queuing", "a list of 0", "an object"),
    (put("scaling", "maxInstances", 2), "$.scaling", "an object of 4", "minInstances ≤ maxInstances, not 3 and 2"),
    (put("scaling", "scaleDownThreshold", 0.8), "$.scaling", "an object of 4", "scaleDownThreshold < scaleUp"),
    (put("system", "logLevel", "loud"), "$.system.logLevel", '"loud"', "'debug', 'info'"),
    (put("orchestration", "maxRetries", -1), "$.orchestration.maxRetries", "-1", "greater than or equal to 0"),
    (put("orchestration", "defaultTimeoutSeconds", 0), "$.orchestration.defaultTimeoutSeconds", "0", "greater than 0"),
    (put("api_endpoints", "openrouter", "openrouter.ai"), "$.api_endpoints.openrouter", '"openrouter.ai"', "a URL"),
    (
        put("ai_models", "fast_ai", "provider", "acme"),
        "$.ai_models.fast_ai.provider",
        '"acme"',
        "openrouter, google_ai, openai_compatible",
    ),
    (drop("ai_models", "fast_ai", "model"), "$.ai_models.fast_ai.model", "nothing", "which is required"),
    (drop("ai_models"), "$.ai_models", "nothing", "which is required"),
    (put("ai_models", {}), "$.ai_models", "an object of 0", "at least 1"),
    (drop("ai_models", "categorizer_ai"), "$.ai_models.categorizer_ai", "null", "asks for the category"),
    (put("ai_models", "fast_ai", "config", "temperature", 3), "$.ai_models.fast_ai.config.temperature", "3", "than or"),
    (put("ai_models", "fast_ai", "context_tokens", 1), "$.ai_models.fast_ai.context_tokens", "1", "512"),
    (put("base_ai_prompts", "medium_ai", "system_prompt", ""), "$.base_ai_prompts.medium_ai.system_prompt", '""', "1"),
    (put("prompt_addons", "blog_writing", 5), "$.prompt_addons.blog_writing", "5", "a text"),
    (put("request_flow", "warmup", "models", ["fastai"]), "$.request_flow.warmup.models[0]", '"fastai"', "'fast_ai'"),
    (
        put("request_flow", "image_detection", "force_model", "grok"),
        "$.request_flow.image_detection.force_model",
        '"grok"',
        "a role of ai_models",
    ),
    (
        put("request_flow", "context_limits", "deny_request", 150_000),
        "$.request_flow.context_limits",
        "an object of 3",
        "force_thinking_ai < force_gemini_pro < deny_request, not 100000, 200000 and 150000",
    ),
    (
        put("request_flow", "context_limits", "long_context_model", "gemini"),
        "$.request_flow.context_limits.long_context_model",
        '"gemini"',
        "a role of ai_models",
    ),
    (drop("request_flow", "categorization", "H"), "$.request_flow", "an object of 4", "H missing"),
    (
        put("request_flow", "categorization", "X", {"model": "fast_ai"}),
        "$.request_flow.categorization.X",
        '"X"',
        "'L', 'M' or 'H'",
    ),
    (
        put("request_flow", "categorization", "H", "fast_response_model", "fast"),
        "$.request_flow.categorization.H.fast_response_model",
        '"fast"',
        "a role of ai_models",
    ),
    (
        put("model_fallbacks", "fast_ai", ["fast_ai"]),
        "$.model_fallbacks.fast_ai[0]",
        '"fast_ai"',
        "stand in for itself",
    ),
    (put("model_fallbacks", "fast_ai", ["nobody"]), "$.model_fallbacks.fast_ai[0]", '"nobody"', "a role of ai_models"),
    (put("model_fallbacks", "nobody", ["fast_ai"]), "$.model_fallbacks.nobody", '"nobody"', "a role of ai_models"),
    (
        put("model_fallbacks", "fast_ai", ["medium_ai", "medium_ai"]),
        "$.model_fallbacks.fast_ai[1]",
        '"medium_ai"',
        "each role once",
    ),
    (put("model_fallbacks", "fast_ai", "medium_ai"), "$.model_fallbacks.fast_ai", '"medium_ai"', "a list"),
    (
        put("error_handling", "retry_config", "max_delay_ms", 10),
        "$.error_handling.retry_config",
        "an object of 5",
        "base_delay_ms ≤ max_delay_ms, not 1000 and 10",
    ),
    (
        put("error_handling", "retry_config", "retryable_status_codes", [200]),
        "$.error_handling.retry_config.retryable_status_codes[0]",
        "200",
        "greater than or equal to 400",
    ),
    (
        put("error_handling", "error_types", "odd", {}),
        "$.error_handling.error_types.odd",
        '"odd"',
        "'transient', 'persistent'",
    ),
    (
        put("rate_limiting", "openrouter", "requests_per_minute", 0),
        "$.rate_limiting.openrouter.requests_per_minute",
        "0",
        "than or equal to 1",
    ),
    (
        put("monitoring", "alerting", "thresholds", "error_rate", 5),
        "$.monitoring.alerting.thresholds.error_rate",
        "5",
        "1",
    ),
    (
        put("workflow_templates", "research_report", "workflow", 0, "type", "parallel"),
        "$.workflow_templates.research_report.workflow[0].type",
        '"parallel"',
        "'linear', 'inline' or 'graph'",
    ),
    (
        put("workflow_templates", "research_report", "workflow", 0, "tasks", []),
        "$.workflow_templates.research_report.workflow[0].tasks",
        "a list of 0",
        "at least 1",
    ),
    (
        put("workflow_templates", "research_report", "workflow", []),
        "$.workflow_templates.research_report.workflow",
        "a list of 0",
        "at least 1",
    ),
    (
        put(*TASK, "model", "thinkingai"),
        "$.workflow_templates.research_report.workflow[0].tasks[0].model",
        '"thinkingai"',
        "a role of ai_models (did you mean 'thinking_ai'?)",
    ),
    (
        put(*TASK, "prompt", "Use {report}"),
        "$.workflow_templates.research_report.workflow[0].tasks[0].prompt",
        '"Use {report}"',
        "has not run when this task starts",
    ),
    (
        put(*SECOND, "output_variable", "research"),
        "$.workflow_templates.research_report.workflow[1].tasks[0].output_variable",
        '"research"',
        "already a variable or an output",
    ),
    (
        put("workflow_templates", "research_report", "variables", {"topic": {}}),
        "$.workflow_templates.research_report.workflow[0].tasks[0].prompt",
        '"Research {topic} for {audience}"',
        "{audience} is not defined",
    ),
    (
        put("workflow_templates", "research_report", "variables", {"topic": {"type": "text"}, "audience": {}}),
        "$.workflow_templates.research_report.variables.topic.type",
        '"text"',
        "'string', 'number'",
    ),
    (
        put(
            "workflow_templates",
            "research_report",
            "parameters",
            {"topic": {"type": "integer", "default": "x"}, "audience": {}},
        ),
        "$.workflow_templates.research_report.parameters.topic",
        "an object of 2",
        "a default that is of type integer",
    ),
]


@pytest.mark.parametrize(("change", "path", "found", "expected"), WRONG)
def test_a_wrong_value_is_named(change: Change, path: str, found: str, expected: str) -> None:
    document = reference()
    change(document)
    problem = problems(document)[path]
    assert problem.found == found
    assert expected in problem.expected


TYPOS: list[tuple[tuple[Any, ...], str, str]] = [
    (("queuing", "maxQueueDepth"), "maxQueueDept", "$.queuing"),
    (("orchestration", "maxConcurrentWorkflows"), "maxConcurentWorkflows", "$.orchestration"),
    (("ai_models", "fast_ai", "provider"), "providr", "$.ai_models.fast_ai"),
    (("ai_models", "fast_ai", "config", "temperature"), "temprature", "$.ai_models.fast_ai.config"),
    (("request_flow", "context_limits", "deny_request"), "deny_requests", "$.request_flow.context_limits"),
    (("model_fallbacks",), "model_fallback", "$"),
    ((*SECOND, "output_variable"), "output_varible", "$.workflow_templates.research_report.workflow[1].tasks[0]"),
]


@pytest.mark.parametrize(("right", "wrong", "inside"), TYPOS)
def test_a_typo_is_refused_with_the_right_spelling(right: tuple[Any, ...], wrong: str, inside: str) -> None:
    document = reference()
    *steps, key = right
    inner: Any = document
    for step in steps:
        inner = inner[step]
    inner[wrong] = inner.pop(key)
    problem = problems(document)[f"{inside}.{wrong}"]
    assert problem.expected == f"a known key; did you mean {key!r}?"


def test_beside_the_right_key_a_similar_one_is_only_unknown() -> None:
    document = reference()
    document["queuing"]["maxQueueDept"] = 5
    _, warnings = read(document)
    assert "$.queuing.maxQueueDept: unknown key, left out" in warnings


def test_every_problem_is_listed_at_once() -> None:
    """All the wrong values that don't hide each other, in one file, in the order of its sections."""
    document = reference()
    chosen = [
        put("system", "logLevel", "loud"),
        put("queuing", "maxQueueDepth", 0),
        put("queuing", "lowPriorityRatio", 0),
        put("ai_models", "fast_ai", "provider", "acme"),
        put("request_flow", "warmup", "models", ["fastai"]),
        put("request_flow", "context_limits", "deny_request", 150_000),
        put(*TASK, "model", "thinkingai"),
        put(*TASK, "prompt", "Use {report} and {unknown}"),
        put("model_fallbacks", "fast_ai", ["fast_ai", "nobody"]),
        put("monitoring", "alerting", 3),
    ]
    for change in chosen:
        change(document)
    with pytest.raises(ConfigInvalid) as caught:
        read(document)
    assert [problem.path for problem in caught.value.problems] == [
        "$.system.logLevel",
        "$.queuing.lowPriorityRatio",
        "$.queuing.maxQueueDepth",
        "$.ai_models.fast_ai.provider",
        "$.request_flow.warmup.models[0]",
        "$.request_flow.context_limits",
        "$.workflow_templates.research_report.workflow[0].tasks[0].model",
        "$.workflow_templates.research_report.workflow[0].tasks[0].prompt",
        "$.model_fallbacks.fast_ai[0]",
        "$.model_fallbacks.fast_ai[1]",
        "$.monitoring.alerting",
    ]
    text = str(caught.value)
    assert text.startswith(
        "orchestration_config.json: 11 problems\n  $.system.logLevel: found \"loud\"; expected 'debug'"
    )


def test_an_expectation_says_what_the_key_means() -> None:
    document = reference()
    document["queuing"]["maxQueueDepth"] = 0
    expected = problems(document)["$.queuing.maxQueueDepth"].expected
    assert expected.endswith(
        "(Requests that may wait. One more is answered 503 with Retry-After; 429 when a tenant has half.)"
    )


@pytest.mark.parametrize(
    "change",
    [
        put("api_keys", "openrouter", 12345678),
        put("api_keys", "openruter", "sk-or-v1-secret-12345678"),
        put("api_key", {"openrouter": "sk-or-v1-secret-12345678"}),
        put("api_keys", "sk-or-v1-secret-12345678"),
        put("api_keys", ["sk-or-v1-secret-12345678"]),
    ],
)
def test_a_key_is_never_shown(change: Change) -> None:
    document = reference()
    del document["api_keys"]["openrouter"]
    change(document)
    if "api_key" in document:
        del document["api_keys"]
    with pytest.raises(ConfigInvalid) as caught:
        read(document)
    assert "12345678" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "Expecting value at line 1, column 1"),
        ("{", "at line 1, column 2"),
        ('{\n  "system": {"name": "x",}\n}', "line 2, column"),
        ('{"queuing": {"maxQueueDepth": NaN}}', "NaN is not JSON"),
        ('{"queuing": {"maxQueueDepth": -Infinity}}', "-Infinity is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"queuing": {"maxQueueDepth": 1' + "0" * 5_000 + "}}", ""),
    ],
)
def test_what_is_no_json_is_refused(text: str, found: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse(text)
    assert caught.value.problems[0].path == "$"
    assert found in caught.value.problems[0].found


@pytest.mark.parametrize("text", ["null", "[]", '"text"', "5", "true"])
def test_a_document_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse(text)
    assert [(problem.path, problem.expected) for problem in caught.value.problems] == [("$", "an object")]


def test_a_key_that_is_there_twice_is_refused() -> None:
    text = json.dumps(reference()).replace('"maxQueueDepth": 10000', '"maxQueueDepth": 10000, "maxQueueDepth": 5')
    with pytest.raises(ConfigInvalid) as caught:
        parse(text)
    assert [str(problem) for problem in caught.value.problems] == [
        "$..maxQueueDepth: found the key 2 times in one object; expected it once"
    ]


@pytest.mark.parametrize("levels", [150, 400, 800, 900, 950, 980, 5_000, 100_000])
def test_values_nested_deeply_are_read_or_refused(levels: int) -> None:
    text = json.dumps(reference()).replace('"top_p": 0.9', '"top_p": 0.9, "deep": ' + "[" * levels + "]" * levels)
    try:
        configuration, _ = parse(text)
    except ConfigInvalid as invalid:
        refused = invalid.problems
    else:
        assert "deep" in configuration.ai_models["fast_ai"].config.extra
        return
    assert levels > 100
    assert [problem.path for problem in refused] == ["$"]


def test_a_number_too_large_for_anything_is_refused() -> None:
    text = json.dumps(reference()).replace('"maxQueueDepth": 10000', '"maxQueueDepth": 1e999')
    with pytest.raises(ConfigInvalid) as caught:
        parse(text)
    assert caught.value.problems[0].path == "$.queuing.maxQueueDepth"


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"no such file.*SEGUE_CONFIG"):
        load(tmp_path / "nowhere.json")
    with pytest.raises(ConfigInvalid, match="a file that can be read"):
        load(tmp_path)
    latin = tmp_path / "latin.json"
    latin.write_bytes('{"system": {"name": "Überblick"}}'.encode("latin-1"))
    with pytest.raises(ConfigInvalid, match="UTF-8 text"):
        load(latin)
    huge = tmp_path / "huge.json"
    with huge.open("wb") as file:
        file.truncate(17 * 1024 * 1024)
    with pytest.raises(ConfigInvalid, match="at most"):
        load(huge)
