"""The first key comes by the bus, all others through the gateway: `segue keys` and `segue tenants`, for real."""

import asyncio
import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from shared.access import letters
from tests.conftest import eventually
from tests.system import System


async def said(*arguments: str, **environment: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, list(arguments), env=environment)


async def test_keys_from_the_first_to_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is set but SEGUE_AUTH: the secret is made in the data directory, for its owner alone."""
    monkeypatch.chdir(tmp_path)
    async with System(tmp_path, copies={"executor": 1}, environment={"SEGUE_AUTH": "keys"}) as system:
        url, bus = system.gateway.url, {"SEGUE_NATS_URL": system.nats_url or "", "SEGUE_DATA_DIR": str(tmp_path)}
        kept = tmp_path / "key-secret"
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        without = await said("keys", "ls", "--url", url)
        assert (without.exit_code, "API key is missing" in without.output) == (1, True), without.output

        first = await said("keys", "create", "root", "--scope", "admin", "--bus", "--json", **bus)
        assert first.exit_code == 0, first.output
        admin = {"SEGUE_API_KEY": json.loads(first.stdout)["api_key"]}
        refused = await said("ask", "hello", "--url", url, **admin)
        assert (refused.exit_code, "scope 'chat'" in refused.output) == (1, True)

        made = await said("keys", "create", "ci", "--tenant", "acme", "--usd-per-day", "2", "--url", url, **admin)
        assert made.exit_code == 0, made.output
        text = made.stdout.splitlines()[0]
        assert letters.id_of(text) is not None
        assert "acme" in made.stderr
        asked = await said("ask", "How are you?", "--url", url, SEGUE_API_KEY=text)
        assert asked.exit_code == 0, asked.output
        listed = await said("keys", "ls", "--url", url, **admin)
        assert "root" in listed.output
        assert "$2/day" in listed.output
        assert text not in listed.output
        shown = json.loads((await said("keys", "show", text, "--url", url, **admin)).stdout)
        assert shown["used"]["usd_today"] > 0
        assert shown["used"]["held_usd"] == 0

        rotated = await said("keys", "rotate", text, "--grace", "0s", "--url", url, **admin)
        new = rotated.stdout.splitlines()[0]
        assert letters.id_of(new) == letters.id_of(text)

        async def refuses(key: str = text) -> bool:
            return (await said("templates", "ls", "--url", url, SEGUE_API_KEY=key)).exit_code == 1

        await eventually(refuses)
        assert (await said("templates", "ls", "--url", url, SEGUE_API_KEY=new)).exit_code == 0

        limited = await said("tenants", "set", "acme", "--requests-per-minute", "0", "--url", url, **admin)
        assert (limited.exit_code, "0 requests/min" in limited.output) == (0, True), limited.output

        async def stopped() -> bool:
            return (await said("ask", "again?", "--url", url, SEGUE_API_KEY=new)).exit_code == 1

        await eventually(stopped)
        assert "acme" in (await said("tenants", "ls", "--url", url, **admin)).output
        assert (await said("tenants", "rm", "acme", "--url", url, **admin)).exit_code == 0
        assert (await said("keys", "limit", new, "--model", "fast_ai", "--url", url, **admin)).exit_code == 0
        assert "revoked" in (await said("keys", "revoke", new, "--bus", **bus)).output

        async def revoked() -> bool:
            return await refuses(new)

        await eventually(revoked)
        assert (await said("keys", "rm", new, "--url", url, **admin)).exit_code == 0
        assert (await said("keys", "show", new, "--url", url, **admin)).exit_code == 1
