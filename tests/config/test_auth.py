"""Who may use the API is chosen where it matters, and the refusal to start says how."""

import os
import stat
from pathlib import Path

import pytest

from services.gateway.identification import Identification
from shared.access.settings import auth_of, is_loopback, secrets_of
from shared.config.environment import Environment
from shared.config.errors import ConfigInvalid


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "[::1]"])
def test_on_a_loopback_address_nobody_is_asked(host: str) -> None:
    assert is_loopback(host)
    assert auth_of(Environment.read({"SEGUE_HOST": host})) == "off"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "gateway.example.com"])
def test_anywhere_else_it_does_not_start_until_somebody_chooses(host: str) -> None:
    """The lines to copy are in the message."""
    with pytest.raises(ConfigInvalid) as refused:
        Identification.read(Environment.read({"SEGUE_HOST": host}))
    for line in ("SEGUE_AUTH=keys", "SEGUE_AUTH=jwt", "SEGUE_AUTH=off"):
        assert f"\n    {line} " in str(refused.value)
    assert auth_of(Environment.read({"SEGUE_HOST": host, "SEGUE_AUTH": "OFF"})) == "off"


def test_jwt_wants_all_that_belongs_to_it() -> None:
    with pytest.raises(ConfigInvalid) as refused:
        auth_of(Environment.read({"SEGUE_AUTH": "jwt", "SEGUE_JWT_ISSUER": "https://id"}))
    assert [problem.path for problem in refused.value.problems] == ["SEGUE_JWT_JWKS", "SEGUE_JWT_AUDIENCE"]


@pytest.mark.parametrize("algorithms", ["none", "HS256", "RS256,HS512", ""])
def test_a_token_that_its_reader_could_make_is_never_taken(algorithms: str) -> None:
    """`none`, and everything with a shared secret."""
    environment = {"SEGUE_JWT_ALGORITHMS": algorithms}
    if algorithms:
        with pytest.raises(ConfigInvalid, match="SEGUE_JWT_ALGORITHMS"):
            Environment.read(environment)
    else:
        assert Environment.read(environment).jwt_algorithms == ("RS256", "ES256")


def test_several_secrets_stand_with_commas_and_none_is_short_or_shown() -> None:
    first, second = "a" * 32, "b" * 40
    environment = Environment.read({"SEGUE_KEY_SECRET": f"{first}, {second}"})
    assert secrets_of(environment) == [first.encode(), second.encode()]
    assert first not in repr(environment)
    with pytest.raises(ConfigInvalid) as refused:
        Environment.read({"SEGUE_KEY_SECRET": f"{first},too-short"})
    assert "too-short" not in str(refused.value)


def test_beside_a_server_of_this_machine_the_secret_makes_itself(tmp_path: Path) -> None:
    """Once, for its owner alone; whoever comes later finds the same."""
    environment = Environment.read({"SEGUE_DATA_DIR": str(tmp_path / "data")})
    made = secrets_of(environment)
    assert len(made[0]) == 64
    assert secrets_of(environment) == made
    assert os.listdir(tmp_path / "data") == ["key-secret"]
    assert stat.S_IMODE((tmp_path / "data" / "key-secret").stat().st_mode) == 0o600


def test_with_a_server_elsewhere_it_has_to_be_given() -> None:
    """A secret of its own for every gateway would be none: the message has a fresh one to copy."""
    with pytest.raises(ConfigInvalid) as refused:
        secrets_of(Environment.read({"SEGUE_NATS_URL": "nats://127.0.0.1:4222,nats://bus.example.com:4222"}))
    line = next(line for line in str(refused.value).splitlines() if "SEGUE_KEY_SECRET=" in line)
    assert len(line.partition("=")[2]) == 64
