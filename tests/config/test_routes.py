"""Where each role's calls go, by what is set."""

import pytest

from shared.config import ConfigInvalid, Configuration, load
from shared.config.environment import Environment
from shared.config.providers import Route, routes
from shared.contracts.ids import Lane
from tests.config.reference_file import read, reference

MEDIA = {"imagen_4_ultra", "veo_3_1"}


@pytest.fixture(scope="module")
def shipped() -> Configuration:
    return load(env={}).configuration


def made(configuration: Configuration, **env: str) -> dict[str, Route]:
    return dict(routes(configuration, Environment.read(env)))


def test_every_role_has_a_route(shipped: Configuration) -> None:
    found = made(shipped)
    assert found.keys() == shipped.ai_models.keys()
    assert all(route.role == role for role, route in found.items())


def test_without_a_key_everything_says_what_to_set(shipped: Configuration) -> None:
    found = made(shipped)
    for role, route in found.items():
        assert route.unavailable is not None
        assert ("GOOGLE_AI_API_KEY" if role in MEDIA else "OPENROUTER_API_KEY") in route.unavailable
        assert repr(role) in route.unavailable


def test_openrouter_serves_text_with_its_key_and_limits(shipped: Configuration) -> None:
    route = made(shipped, OPENROUTER_API_KEY="sk-or")["medium_ai"]
    assert (route.provider, route.base_url) == ("openrouter", "https://openrouter.ai/api/v1")
    assert route.api_key is not None
    assert route.api_key.get_secret_value() == "sk-or"
    assert route.model == "meta-llama/llama-3.3-70b-instruct"
    assert (route.unavailable, route.simulated, route.limit) == (None, False, "openrouter")
    assert route.parameters.max_tokens == 2000
    assert route.lane is Lane.TEXT
    assert "sk-or" not in repr(route)


def test_looking_at_images_is_text_on_openrouter(shipped: Configuration) -> None:
    found = made(shipped, OPENROUTER_API_KEY="sk-or")
    assert {role for role, route in found.items() if route.unavailable is None} == shipped.ai_models.keys() - MEDIA


def test_an_openai_compatible_server_takes_every_text_role(shipped: Configuration) -> None:
    found = made(
        shipped,
        SEGUE_OPENAI_BASE_URL="http://127.0.0.1:8103/v1",
        SEGUE_OPENAI_MODEL="smollm2",
        SEGUE_OPENAI_API_KEY="sk-oa",
        OPENROUTER_API_KEY="sk-or",
        SEGUE_SIMULATOR_URL="http://127.0.0.1:8200/api/v1",
    )
    for role in shipped.ai_models.keys() - MEDIA:
        route = found[role]
        assert (route.provider, route.base_url) == ("openai_compatible", "http://127.0.0.1:8103/v1")
        assert route.api_key is not None
        assert route.api_key.get_secret_value() == "sk-oa"
        assert (route.model, route.simulated, route.unavailable, route.limit) == ("smollm2", False, None, None)


def test_without_a_model_name_it_is_asked_for_the_configured_ones(shipped: Configuration) -> None:
    found = made(shipped, SEGUE_OPENAI_BASE_URL="http://127.0.0.1:8103/v1")
    assert found["fast_ai"].model == "openai/gpt-oss-safeguard-20b"
    assert found["fast_ai"].api_key is None


def test_a_text_server_makes_no_images_unless_google_does(shipped: Configuration) -> None:
    found = made(shipped, SEGUE_OPENAI_BASE_URL="http://127.0.0.1:8103/v1")
    for role, makes in (("imagen_4_ultra", "images"), ("veo_3_1", "videos")):
        reason = found[role].unavailable
        assert reason is not None
        assert reason.startswith(f"role {role!r} makes {makes} and has no provider: ")
        assert "set GOOGLE_AI_API_KEY" in reason
    found = made(shipped, SEGUE_OPENAI_BASE_URL="http://127.0.0.1:8103/v1", GOOGLE_AI_API_KEY="go")
    assert (found["veo_3_1"].provider, found["veo_3_1"].unavailable) == ("google_ai", None)


def test_the_simulator_speaks_googles_protocol_too(shipped: Configuration) -> None:
    found = made(shipped, SEGUE_SIMULATOR_URL="http://127.0.0.1:8200/api/v1", GOOGLE_AI_API_KEY="go")
    for role in MEDIA:
        route = found[role]
        assert (route.protocol, route.base_url) == ("google_ai", "http://127.0.0.1:8200/v1beta")
        assert (route.simulated, route.unavailable, route.api_key) == (True, None, None)


def test_the_simulator_stands_in_for_openrouter(shipped: Configuration) -> None:
    found = made(shipped, SEGUE_SIMULATOR_URL="http://127.0.0.1:8200/api/v1", OPENROUTER_API_KEY="sk-or")
    for role in shipped.ai_models.keys() - MEDIA:
        route = found[role]
        assert route.simulated
        assert (route.provider, route.base_url, route.limit) == ("openrouter", "http://127.0.0.1:8200/api/v1", None)
        assert route.api_key is None, "a real key must never reach a simulator"
        assert route.model == shipped.ai_models[role].model


def test_limits_hold_for_a_server_only_when_they_are_configured_for_it() -> None:
    document = reference()
    document["rate_limiting"]["openai_compatible"] = {"requests_per_minute": 5}
    document["rate_limiting"]["simulator"] = {"requests_per_minute": 5}
    configuration, _ = read(document)
    assert made(configuration, SEGUE_OPENAI_BASE_URL="http://a/v1")["fast_ai"].limit == "openai_compatible"
    assert made(configuration, SEGUE_SIMULATOR_URL="http://a/v1")["fast_ai"].limit == "simulator"


def test_google_makes_images_and_videos(shipped: Configuration) -> None:
    found = made(shipped, GOOGLE_AI_API_KEY="go")
    for role in MEDIA:
        route = found[role]
        assert (route.provider, route.protocol, route.unavailable) == ("google_ai", "google_ai", None)
        assert route.base_url == "https://generativelanguage.googleapis.com/v1beta"
        assert route.api_key is not None


def test_several_keys_take_turns(shipped: Configuration) -> None:
    route = made(shipped, OPENROUTER_API_KEY="one,two,three")["medium_ai"]
    keys = [found.api_key.get_secret_value() for turn in range(4) if (found := route.at(turn)).api_key is not None]
    assert keys == ["one", "two", "three", "one"]
    assert "two" not in repr(route)


def test_a_server_of_ones_own_is_added_by_configuration() -> None:
    """By name, with several addresses and keys, a protocol, a limit; a key that is missing is named."""
    document = reference()
    document["providers"] = {
        "farm": {"base_url": ["http://a/v1/", "http://b/v1"], "api_key_env": ["FARM_A", "FARM_B"]},
        "gemini_eu": {"protocol": "google_ai", "base_url": "https://eu/v1beta", "api_key_env": "GEMINI_EU"},
    }
    document["ai_models"]["fast_ai"]["provider"] = "farm"
    document["ai_models"]["veo_3_1"]["provider"] = "gemini_eu"
    document["rate_limiting"]["farm"] = {"requests_per_minute": 5}
    configuration, warnings = read(document)
    assert not [one for one in warnings if "farm" in one]
    found = made(configuration, FARM_A="ka", FARM_B="kb", SEGUE_SIMULATOR_URL="http://s/api/v1")
    farm = found["fast_ai"]
    assert (farm.provider, farm.protocol, farm.limit) == ("farm", "openai_compatible", "farm")
    assert not farm.simulated
    places = {(one.base_url, one.api_key.get_secret_value()) for one in map(farm.at, range(8)) if one.api_key}
    assert places == {(url, key) for url in ("http://a/v1", "http://b/v1") for key in ("ka", "kb")}
    assert "set GEMINI_EU" in (found["veo_3_1"].unavailable or "")
    document["providers"]["openrouter"] = {"base_url": "http://x/v1"}
    with pytest.raises(ConfigInvalid, match="another name"):
        read(document)


def test_a_key_that_cannot_be_used_takes_its_own_provider_away_and_no_other() -> None:
    """A provider can be added while everything runs: its variable is nobody else's trouble."""
    document = reference()
    document["providers"] = {"lab": {"base_url": "http://lab/v1", "api_key_env": "LAB_KEY"}}
    document["ai_models"]["fast_ai"]["provider"] = "lab"
    found = made(read(document)[0], LAB_KEY="two words", OPENROUTER_API_KEY="sk-or-1")
    assert found["medium_ai"].unavailable is None
    assert "LAB_KEY" in (found["fast_ai"].unavailable or "")
    assert "two words" not in (found["fast_ai"].unavailable or "")


def test_endings_of_the_references_endpoints_are_understood() -> None:
    configuration, _ = read(reference())
    found = made(configuration, OPENROUTER_API_KEY="a", GOOGLE_AI_API_KEY="b")
    assert found["fast_ai"].base_url == "https://openrouter.ai/api/v1"
    assert found["imagen_4_ultra"].base_url == "https://generativelanguage.googleapis.com/v1beta"
    assert found["veo_3_1"].base_url == "https://generativelanguage.googleapis.com/v1beta"


def test_a_role_of_an_openai_compatible_provider_needs_its_address() -> None:
    document = reference()
    document["ai_models"]["fast_ai"]["provider"] = "openai_compatible"
    configuration, _ = read(document)
    assert "SEGUE_OPENAI_BASE_URL" in (made(configuration, OPENROUTER_API_KEY="a")["fast_ai"].unavailable or "")


def test_a_lane_can_be_said_outright() -> None:
    document = reference()
    document["ai_models"]["image_model"]["lane"] = "image"
    configuration, _ = read(document)
    route = made(configuration, OPENROUTER_API_KEY="a")["image_model"]
    assert route.lane is Lane.IMAGE
    assert (route.protocol, route.unavailable) == ("openrouter", None)
