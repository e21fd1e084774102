"""What the executor makes of the configuration and the environment."""

import json

import pytest

from services.executor.app import PLACES, Providers, places, policy
from services.executor.attempts import RULES, Rule
from shared.config import ConfigInvalid, Configuration, load, parse
from shared.contracts.ids import Lane
from tests.executor.conftest import route
from tests.executor.test_crashes import CONFIGURATION


def configuration(**sections: object) -> Configuration:
    return parse(json.dumps({**CONFIGURATION, **sections}), "test")[0]


def test_the_shipped_configuration_retries_as_the_table_says() -> None:
    """5, 1, 2, 3, 0 retries; 1 s doubled up to 30 s, with jitter; alternatives first for logical errors."""
    shipped = policy(load().configuration)
    assert {kind: rule.retries for kind, rule in shipped.rules.items()} == {
        kind: rule.retries for kind, rule in RULES.items()
    }
    assert (shipped.base_s, shipped.factor, shipped.max_s, shipped.jitter) == (1.0, 2.0, 30.0, True)
    assert [kind for kind, rule in shipped.rules.items() if rule.alternative_first] == ["logical"]
    assert shipped.rules["persistent"].alert


def test_a_configuration_that_names_one_type_keeps_the_others() -> None:
    given = {
        "error_types": {"transient": {"strategy": "fallback", "max_retries": 9}},
        "retry_config": {"base_delay_ms": 10, "factor": 3, "max_delay_ms": 100, "jitter": False,
                         "retryable_statuses": [409]},
    }  # fmt: skip
    found = policy(configuration(error_handling=given))
    assert found.rules["transient"] == Rule(9, alternative_first=True)
    assert found.rules["resource"] == RULES["resource"]
    assert (found.base_s, found.factor, found.max_s, found.jitter) == (0.01, 3, 0.1, False)
    assert found.retryable == {409}


def test_places_by_lane() -> None:
    """As shipped, or as the environment says; nonsense is named, all of it."""
    assert places({}) == PLACES
    assert places({"SEGUE_EXECUTOR_PLACES_TEXT": " 7 "})[Lane.TEXT] == 7
    with pytest.raises(ConfigInvalid) as invalid:
        places({"SEGUE_EXECUTOR_PLACES_TEXT": "0", "SEGUE_EXECUTOR_PLACES_IMAGE": "many"})
    assert "SEGUE_EXECUTOR_PLACES_TEXT" in str(invalid.value)
    assert "SEGUE_EXECUTOR_PLACES_IMAGE" in str(invalid.value)


def test_one_adapter_a_server() -> None:
    """Roles of one server share its connections."""
    providers = Providers()
    one = providers.answering(route("medium_ai", "http://one/v1"))
    assert providers.answering(route("fast_ai", "http://one/v1")) is one
    assert providers.answering(route("fast_ai", "http://two/v1")) is not one
