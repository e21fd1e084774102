"""Which variables a provider that is written while everything runs may name as its key."""

import pytest

from shared.registry.models import BadModel, read_provider


@pytest.mark.parametrize("name", ["SEGUE_KEY_SECRET", "SEGUE_NATS_URL", "OPENROUTER_API_KEY", "GOOGLE_AI_API_KEY"])
def test_the_systems_own_secrets_are_sent_to_no_server_that_somebody_names(name: str) -> None:
    """Whoever may write providers would else have every secret of the executors' environment sent to him."""
    with pytest.raises(BadModel, match=name):
        read_provider("lab", {"base_url": "http://lab/v1", "api_key_env": ["LAB_KEY", name]})


def test_a_variable_of_its_own_is_kept() -> None:
    assert read_provider("lab", {"base_url": "http://lab/v1", "api_key_env": "LAB_KEY"})["api_key_env"] == ["LAB_KEY"]
