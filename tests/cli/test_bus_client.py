"""Commands that go straight to the bus: `segue keys … --bus` and `segue history rebuild`."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import bus_users
from cli.main import app
from shared.bus.accounts import OPERATOR
from shared.bus.server import NatsServer, free_port
from shared.config.environment import Environment


@pytest.mark.parametrize("command", [["keys", "create", "root", "--bus"], ["history", "rebuild"]])
def test_a_server_that_is_not_there_is_one_line_and_leaves_nothing_behind(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No traceback, the address that was tried, what to do; and no secret for a Segue that is elsewhere."""
    monkeypatch.chdir(tmp_path)
    port = str(free_port())
    said = CliRunner().invoke(app, command, env={"SEGUE_NATS_PORT": port, "SEGUE_NATS_URL": "", "SEGUE_DATA_DIR": ""})
    assert said.exit_code == 3, said.output
    assert f"no NATS server answers at 127.0.0.1:{port}" in said.output
    assert len(said.output.splitlines()) == 1
    assert not (tmp_path / ".segue" / "key-secret").exists()


def test_the_operator_is_known_by_the_passwords_in_the_data_folder(tmp_path: Path) -> None:
    """The terminal of a command need not name the tenants that Segue was started with."""
    elsewhere = Environment.read({"SEGUE_DATA_DIR": str(tmp_path)})
    assert "@" not in bus_users.url_of(elsewhere)
    password = bus_users.passwords(tmp_path)[OPERATOR]
    assert f"operator:{password}@" in bus_users.url_of(elsewhere)
    named = Environment.read({"SEGUE_DATA_DIR": str(tmp_path), "SEGUE_NATS_URL": "nats://other:4222"})
    assert bus_users.url_of(named) == "nats://other:4222"


def test_a_key_is_not_made_under_a_secret_that_the_gateway_has_not(
    nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segue was started with another data folder: the command says so, and leaves nothing behind."""
    monkeypatch.chdir(tmp_path)
    port = nats_server.url.rpartition(":")[2]
    empty = dict.fromkeys(("SEGUE_NATS_URL", "SEGUE_DATA_DIR", "SEGUE_KEY_SECRET"), "")
    said = CliRunner().invoke(app, ["keys", "create", "root", "--bus"], env={**empty, "SEGUE_NATS_PORT": port})
    assert said.exit_code == 1, said.output
    assert "no Segue has its data in" in said.output
    assert not (tmp_path / ".segue" / "key-secret").exists()
