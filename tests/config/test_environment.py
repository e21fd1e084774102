"""The environment's variables: defaults, what is refused, and that every one is written down."""

import ast
import inspect
from pathlib import Path

import pytest

from shared.config import ConfigInvalid
from shared.config import environment as module
from shared.config.environment import Environment
from shared.contracts.ids import Lane

ROOT = Path(__file__).resolve().parents[2]


def test_nothing_has_to_be_set() -> None:
    environment = Environment.read({})
    assert environment == Environment()
    assert environment.nats_url == "nats://127.0.0.1:4222"
    assert not environment.nats_url_given
    assert (environment.port, environment.nats_port, environment.simulator_port) == (8000, 4222, 8200)
    assert (environment.host, environment.data_dir) == ("127.0.0.1", Path(".segue"))
    assert environment.health_port is None
    assert environment.openrouter_api_key is None


def test_every_variable_is_read() -> None:
    environment = Environment.read(
        {
            "SEGUE_CONFIG": "/etc/segue.json",
            "SEGUE_NATS_URL": "nats://a:1,tls://b:2",
            "SEGUE_NATS_PORT": "4333",
            "SEGUE_DATA_DIR": "/var/lib/segue",
            "PORT": "80",
            "SEGUE_HOST": "0.0.0.0",
            "SEGUE_HEALTH_PORT": "9999",
            "SEGUE_LOG_LEVEL": "WARN",
            "SEGUE_REPLICAS": "3",
            "OPENROUTER_API_KEY": "or",
            "GOOGLE_AI_API_KEY": "go",
            "SEGUE_OPENAI_BASE_URL": "http://127.0.0.1:8103/v1/",
            "SEGUE_OPENAI_API_KEY": "oa",
            "SEGUE_OPENAI_MODEL": "smollm2",
            "SEGUE_SIMULATOR_URL": "http://127.0.0.1:8200/api/v1",
            "SEGUE_SIMULATOR_PORT": "8201",
        }
    )
    assert environment.config == Path("/etc/segue.json")
    assert (environment.nats_url, environment.nats_url_given) == ("nats://a:1,tls://b:2", True)
    assert (environment.port, environment.health_port, environment.replicas) == (80, 9999, 3)
    assert environment.log_level == "warning"
    assert environment.openai_base_url == "http://127.0.0.1:8103/v1"
    assert environment.openai_model == "smollm2"
    assert environment.openai_api_key is not None
    assert environment.openai_api_key.get_secret_value() == "oa"


def test_empty_is_not_set() -> None:
    names = [name for name, _ in written_down()]
    assert Environment.read(dict.fromkeys(names, "  ")) == Environment()


def test_the_embedded_servers_port_is_in_the_default_url() -> None:
    assert Environment.read({"SEGUE_NATS_PORT": "5000"}).nats_url == "nats://127.0.0.1:5000"


def test_the_log_level_of_the_file_counts_until_the_variable_is_set() -> None:
    assert Environment.read({}).level("error") == "error"
    assert Environment.read({"SEGUE_LOG_LEVEL": "debug"}).level("error") == "debug"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "80a"),
        ("PORT", "-1"),
        ("PORT", "٣٣"),
        ("PORT", "9" * 5_000),
        ("SEGUE_NATS_PORT", "nats"),
        ("SEGUE_HEALTH_PORT", "1.5"),
        ("SEGUE_SIMULATOR_PORT", "x"),
        ("SEGUE_REPLICAS", "0"),
        ("SEGUE_REPLICAS", "6"),
        ("SEGUE_LOG_LEVEL", "loud"),
        ("SEGUE_NATS_URL", "http://a:1"),
        ("SEGUE_NATS_URL", "nats://a:1,,nats://b:2"),
        ("SEGUE_NATS_URL", "nats://"),
        ("SEGUE_HOST", "http://0.0.0.0"),
        ("SEGUE_OPENAI_BASE_URL", "127.0.0.1:8103/v1"),
        ("SEGUE_OPENAI_BASE_URL", "ftp://a"),
        ("SEGUE_OPENAI_BASE_URL", "http://"),
        ("SEGUE_SIMULATOR_URL", "http://a b"),
        ("OPENROUTER_API_KEY", "two words"),
        ("GOOGLE_AI_API_KEY", "schlüssel"),
        ("SEGUE_AUTH", "maybe"),
        ("SEGUE_KEY_SECRET", "short"),
        ("SEGUE_JWT_ALGORITHMS", "HS256"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        Environment.read({name: value})
    assert [problem.path for problem in caught.value.problems] == [name]


def test_all_wrong_values_are_named_at_once_and_keys_never_shown() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        Environment.read({"PORT": "x", "SEGUE_REPLICAS": "9", "OPENROUTER_API_KEY": "sk 12345678"})
    assert {problem.path for problem in caught.value.problems} == {"PORT", "SEGUE_REPLICAS", "OPENROUTER_API_KEY"}
    assert "12345678" not in str(caught.value)


def test_keys_do_not_show_in_a_repr() -> None:
    environment = Environment.read({"OPENROUTER_API_KEY": "sk-12345678", "SEGUE_OPENAI_API_KEY": "sk-12345678"})
    assert "12345678" not in repr(environment) + str(environment)


def written_down() -> list[tuple[str, str]]:
    """Return every variable of `.env.example` with its value."""
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return [(name, value) for name, value in pairs]


READ_BY_ONE_SERVICE = {
    "SEGUE_MAX_BODY_BYTES",
    "SEGUE_MAX_WAITING",
    "SEGUE_MAX_CONNECTIONS",
    "SEGUE_API_KEY",
    "SEGUE_CORS_ORIGINS",
    *(f"SEGUE_EXECUTOR_PLACES_{lane.name}" for lane in Lane),
}
"""Sizes of a single service, read in its own `app.py`; and the key that the command line sends."""


def test_the_example_has_every_variable_with_its_default() -> None:
    read = {
        str(node.args[0].value)
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "take"
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }
    assert {name for name, _ in written_down()} == read | READ_BY_ONE_SERVICE
    page = (ROOT / "docs/reference/configuration.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in read)
    assert Environment.read(dict(written_down())) == Environment()
