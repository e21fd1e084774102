"""Outside systems let in by `segue up`, and accounts made for a server of one's own."""

import asyncio
import base64
import binascii
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import nats
import nats.errors
import pytest
from nats.aio.msg import Msg
from typer.testing import CliRunner

from cli.main import app
from shared.bus.accounts import USERS, BadPublisher, Publisher, Variable, rendered, settings, variable_of
from shared.bus.server import NatsServer, find_binary
from shared.topology import Limits
from tests.cli.test_up import Running
from tests.conftest import eventually

PASSWORD = "$2a$11$" + "k" * 53
_RAW = bytes([20 << 3]) + bytes(range(32))
NKEY = base64.b32encode(_RAW + binascii.crc_hqx(_RAW, 0).to_bytes(2, "little")).decode()
LISTED = [
    {"tenant": "acme", "user": "acme-app", "password": PASSWORD},
    {"tenant": "acme", "user": "acme-other", "password": "in-clear-text"},
    {"tenant": "umbrella", "nkey": NKEY},
]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_up_lets_outside_systems_in_and_out_again(tmp_path: Path) -> None:
    """What was there before is there with accounts and without; services have passwords that nobody else can read."""

    async def reads(running: Running, run_id: str) -> str:
        port = running.said().partition("nats://127.0.0.1:")[2].partition(",")[0]
        client = await nats.connect(f"nats://127.0.0.1:{port}", user="default", password="let-me-in")
        answer = await client.request(f"segue.read.{run_id}", b"{}", timeout=30)
        await client.close()
        return str(json.loads(answer.data)["answer"]["response"])

    before = Running(tmp_path).ready()
    first = before.ask().json()
    before.stop()
    running = Running(tmp_path, SEGUE_BUS_TENANTS="default=let-me-in").ready()
    assert "outside systems: default" in running.said()
    assert "let-me-in" not in running.said()
    users = tmp_path / "data" / "nats" / "users.json"
    assert set(json.loads(users.read_text())) == set(USERS)
    assert not any(password in running.said() for password in json.loads(users.read_text()).values())
    for path in (users, tmp_path / "data" / "nats" / "nats-server.conf"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 in {0, 0o044}
    assert asyncio.run(reads(running, first["run_id"])) == first["response"]
    second = running.ask("What is the capital of Spain?").json()
    assert asyncio.run(reads(running, second["run_id"])) == second["response"]
    running.stop()
    after = Running(tmp_path).ready()
    for run in (first, second):
        assert (
            httpx.get(f"{after.url}/runs/{run['run_id']}", timeout=30, trust_env=False).json()["state"] == "completed"
        )
    after.stop()


def test_accounts_are_made_for_a_server_of_ones_own(tmp_path: Path) -> None:
    """The server itself takes them, with passwords from its environment."""
    listed = tmp_path / "outside.json"
    listed.write_text(json.dumps(LISTED))
    done = CliRunner().invoke(app, ["bus", "accounts", str(listed)])
    assert done.exit_code == 0, done.output
    (tmp_path / "accounts.conf").write_text(done.output)
    (tmp_path / "nats.conf").write_text(f'include accounts.conf\njetstream {{ store_dir: "{tmp_path}/js" }}\n')
    passwords = {variable_of(user): f"{user}-password" for user in USERS}
    checked = subprocess.run(
        [find_binary(), "-t", "-c", str(tmp_path / "nats.conf")],
        env={**os.environ, **passwords},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    assert "segue.door.acme.chat" in done.output
    assert PASSWORD in done.output


async def test_a_server_that_is_told_twice_lets_a_new_account_in(tmp_path: Path) -> None:
    """As docs/bus.md says: reloaded once it takes the new user, reloaded again what it asks is heard. Others go on."""
    passwords = dict.fromkeys(USERS, "own-password")
    first = [Publisher("acme", "acme-app", "long-enough")]
    both = [*first, Publisher("other", "other-app", "long-enough")]
    server = NatsServer(tmp_path, settings=settings(first, passwords, Limits()))
    await server.start()
    gateway = await nats.connect(server.url, user="operator", password="own-password")

    async def answer(msg: Msg) -> None:
        await msg.respond(msg.subject.encode())

    await gateway.subscribe("segue.door.*.>", queue="door", cb=answer)
    await gateway.flush()  # the server knows of it before another connection asks
    acme = await nats.connect(server.url, user="acme-app", password="long-enough")
    path = tmp_path / "nats-server.conf"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings(both, passwords, Limits())}))

    async def heard() -> bool:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGHUP)
        assert (await acme.request("segue.read.r", b"", timeout=20)).data == b"segue.door.acme.read.r"
        try:
            other = await nats.connect(server.url, user="other-app", password="long-enough", allow_reconnect=False)
            answered = await other.request("segue.read.r", b"", timeout=1)
            await other.close()
        except (nats.errors.Error, OSError):
            return False
        return bool(answered.data == b"segue.door.other.read.r")

    await eventually(heard)
    await acme.close()
    await gateway.close()
    server.kill()


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ([{"tenant": "a b", "user": "x", "password": "long-enough"}], "is no tenant"),
        ([{"tenant": "acme", "user": "x", "password": "short"}], "a password of 8 to 200"),
        ([{"tenant": "acme", "user": "gateway", "password": "long-enough"}], "is Segue's own"),
        ([{"tenant": "acme", "nkey": "SUSECRET"}], "a user's public key"),
        ([{"tenant": "acme", "nkey": "U" + "A" * 55}], "a user's public key"),
        ([{"tenant": "acme", "user": "x", "password": "long-enough"}] * 2, "there are several x"),
        ([{"tenants": "acme"}], "is no list of outside systems"),
        ({"acme": 1}, "is no list of outside systems"),
    ],
)
def test_what_cannot_be_let_in_is_said(tmp_path: Path, listed: object, said: str) -> None:
    file = tmp_path / "outside.json"
    file.write_text(json.dumps(listed))
    done = CliRunner().invoke(app, ["bus", "accounts", str(file)])
    assert done.exit_code == 1
    assert said in done.output


def test_nobody_gets_another_tenants_subjects() -> None:
    """Every export names one account, and that account imports it under a name without the tenant."""
    made = settings(
        [Publisher("acme", "a", "long-enough"), Publisher("other", "b", "long-enough")],
        dict.fromkeys(USERS, "own-password"),
        Limits(),
    )["accounts"]
    for export in made["SEGUE"]["exports"]:
        subject = export.get("service") or export["stream"]
        assert export["accounts"] == [f"SEGUE-{subject.split('.')[2]}"]
    for tenant in ("acme", "other"):
        for one in made[f"SEGUE-{tenant}"]["imports"]:
            source = one.get("service") or one["stream"]
            assert source["subject"].split(".")[2] == tenant
            assert tenant not in one["to"]


def test_a_file_is_written_as_the_server_reads_it() -> None:
    assert rendered({"a": ['say "x"', 1], "b-c": Variable("PASS"), "d": {}}) == (
        '{\n  a: [\n    "say \\"x\\""\n    1\n  ]\n  "b-c": $PASS\n  d: {}\n}'
    )
    with pytest.raises(BadPublisher):
        Publisher("acme").check()
