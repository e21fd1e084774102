"""Models are data: roles, providers and variants that change while everything runs."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from typer.testing import CliRunner

from cli.main import app
from tests.system import System, eventually

WIDE = {"COLUMNS": "300"}
"""So that no line of a table is folded."""


async def written(system: System, role: str, **changes: Any) -> dict[str, Any]:
    """Change a role by what `GET` says of it."""
    body = (await system.http.get(f"{system.gateway.url}/models/{role}")).json()
    answer = await system.http.put(f"{system.gateway.url}/models/{role}", json={**body, **changes})
    assert answer.status_code in (200, 201), answer.text
    found: dict[str, Any] = answer.json()
    return found


async def models_asked(system: System, questions: int = 8) -> set[str]:
    """Ask several things and return the models that answered."""
    answers = await asyncio.gather(*(system.chat(f"What is {number} plus one?") for number in range(questions)))
    return {answer["model_used"] for answer in answers}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A system with two executors."""
    async with System(tmp_path_factory.mktemp("models"), copies={"executor": 2, "gateway": 2}) as system:
        yield system


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_another_model_plays_a_role_everywhere(two: System) -> None:
    """Every executor and gateway follows (how soon: `bench.models`); versions guard it, and the file's returns."""
    before = (await two.http.get(f"{two.gateway.url}/models/medium_ai")).json()
    assert (before["source"], before["version"]) == ("file", None)
    now = await written(two, "medium_ai", model="maker/another")
    assert (now["source"], now["version"], now["model"]) == ("registry", 1, "maker/another")
    await eventually(lambda: _everywhere(two, "maker/another"))
    stale = await two.http.put(
        f"{two.gateway.url}/models/medium_ai", json=before | {"model": "x/y"}, headers={"If-Match": '"file"'}
    )
    assert stale.status_code == 412
    gone = await two.http.delete(f"{two.gateway.url}/models/medium_ai")
    assert gone.json() == {"status": "deleted", "name": "medium_ai", "now": "file"}
    await eventually(lambda: _everywhere(two, before["model"]))


async def _everywhere(system: System, model: str) -> bool:
    """Whether all gateways list a model for medium_ai, and whoever is asked answers with it."""
    for gateway in system.running("gateway"):
        listed = (await system.http.get(f"{gateway.url}/models")).json()["models"]
        if next(one["model"] for one in listed if one["name"] == "medium_ai") != model:
            return False
    return await models_asked(system) == {model}


async def test_a_new_role_can_be_used_at_once_and_goes_again(two: System) -> None:
    """A workflow names it; while others rely on it it stays; and its name is unknown afterwards."""
    body = {"provider": "openrouter", "model": "maker/poet", "purpose": "rhymes", "system_prompt": "You rhyme."}
    made = await two.http.put(f"{two.gateway.url}/models/poet_ai", json=body)
    assert (made.status_code, made.json()["available"]) == (201, True), made.text
    task = {"model": "poet_ai", "prompt": "Rhyme on bees", "output_variable": "rhyme"}
    workflow = {"workflow": [{"type": "inline", "tasks": [task]}]}

    async def runs() -> bool:
        return bool((await two.post("/workflow", workflow)).status_code == 200)

    await eventually(runs)
    await written(two, "fast_ai", fallbacks=["poet_ai"])
    kept = await two.http.delete(f"{two.gateway.url}/models/poet_ai")
    assert (kept.status_code, "fast_ai" in kept.json()["detail"]) == (409, True)
    assert (await two.http.delete(f"{two.gateway.url}/models/fast_ai")).status_code == 200
    assert (await two.http.delete(f"{two.gateway.url}/models/poet_ai")).json()["now"] is None
    unknown = await two.post("/workflow", workflow)
    assert (unknown.status_code, "unknown model 'poet_ai'" in unknown.text) == (422, True)
    assert (await two.http.get(f"{two.gateway.url}/models/poet_ai")).status_code == 404


async def test_a_disabled_role_is_stood_in_for_and_asked_again_when_enabled(two: System) -> None:
    """From the command line; nobody asks its model in between, and the reason is seen."""
    own = (await two.http.get(f"{two.gateway.url}/models/medium_ai")).json()["model"]

    def said(*arguments: str) -> str:
        done = CliRunner(env=WIDE).invoke(app, [*arguments, "--url", two.gateway.url])
        assert done.exit_code == 0, done.output
        return done.output

    await asyncio.to_thread(said, "models", "disable", "medium_ai", "--reason", "too dear")

    async def avoided() -> bool:
        return own not in await models_asked(two, 4)

    await eventually(avoided)
    assert "disabled: too dear" in await asyncio.to_thread(said, "models", "ls")
    await asyncio.to_thread(said, "models", "enable", "medium_ai")
    await eventually(lambda: _everywhere(two, own))


async def test_a_provider_is_added_disabled_and_removed(two: System) -> None:
    """A server that the file knows nothing of answers for a role; disabled, the role's fallbacks do."""
    server = {"protocol": "openai_compatible", "base_url": f"{two.simulator.url}/api/v1"}
    assert (await two.http.put(f"{two.gateway.url}/providers/lab", json=server)).status_code == 201
    built_in = await two.http.put(f"{two.gateway.url}/providers/openrouter", json=server)
    assert built_in.status_code == 422
    await written(two, "medium_ai", provider="lab", model="lab/model")
    await eventually(lambda: _everywhere(two, "lab/model"))
    used = await two.http.delete(f"{two.gateway.url}/providers/lab")
    assert (used.status_code, "medium_ai" in used.json()["detail"]) == (409, True)
    off = await two.http.post(f"{two.gateway.url}/providers/lab/disable", json={"reason": "maintenance"})
    assert off.json()["disabled"] == "maintenance"

    async def avoided() -> bool:
        return "lab/model" not in await models_asked(two, 4)

    await eventually(avoided)
    assert (await two.http.delete(f"{two.gateway.url}/models/medium_ai")).status_code == 200
    assert (await two.http.delete(f"{two.gateway.url}/providers/lab")).json()["now"] is None


async def test_variants_share_a_roles_runs_and_have_their_own_figures(two: System) -> None:
    """Each conversation stays with one model; usage by variant adds up to what was asked."""
    variants = {"b": {"weight": 50, "model": "maker/variant-b", "config": {"temperature": 0.1}}}
    now = await written(two, "medium_ai", weight=50, variants=variants)
    own = now["model"]
    await eventually(lambda: _both(two, {own, "maker/variant-b"}))
    await eventually(lambda: _answered_by_b(two))
    session = (await two.post("/chat", {"message": "What is 1 plus 1?", "session_id": "same"})).json()["model_used"]
    for number in range(3):
        turn = await two.post("/chat", {"message": f"What is {number} plus 1?", "session_id": "same"})
        assert turn.json()["model_used"] == session

    async def figures() -> bool:
        answer = await two.http.get(f"{two.gateway.url}/usage?by=role,variant")
        rows = {(row["by"]["role"], row["by"]["variant"]): row for row in answer.json()["rows"]}
        return all(rows.get(("medium_ai", one), {}).get("calls", 0) > 0 for one in ("default", "b"))

    await eventually(figures)
    assert (await two.http.delete(f"{two.gateway.url}/models/medium_ai")).status_code == 200


async def test_an_entry_that_nobody_can_read_is_replaced_and_taken_away(two: System) -> None:
    """A hand, or a later version, wrote it: it is left out, and writing or deleting it needs no hand again."""
    url = f"{two.gateway.url}/models/medium_ai"
    before = (await two.http.get(url)).json()
    spoilt = b'{"role": "medium_ai", "version": "new"}'

    async def spoil(key: str) -> None:
        await two.client.jetstream().publish(f"$KV.registry.{key}", spoilt)

    async def status(method: str, path: str, wanted: int) -> bool:
        return (await two.http.request(method, f"{two.gateway.url}/{path}")).status_code == wanted

    await spoil("model.medium_ai")
    stale = await two.http.put(url, json=before, headers={"If-Match": '"1"'})
    assert stale.status_code == 412
    written = await two.http.put(url, json=before | {"model": "maker/anew"}, headers={"If-Match": '"file"'})
    assert (written.status_code, written.json()["model"]) == (200, "maker/anew")
    await eventually(lambda: _everywhere(two, "maker/anew"))
    assert (await two.http.delete(url)).json()["now"] == "file"
    await eventually(lambda: _everywhere(two, before["model"]))
    for key, path in (("model.nobody_ai", "models/nobody_ai"), ("provider.nowhere", "providers/nowhere")):
        await spoil(key)
        await eventually(lambda: status("DELETE", path, 200))  # noqa: B023 - awaited in this round
        assert await status("DELETE", path, 404)


async def test_the_list_says_what_each_role_says(two: System) -> None:
    """One request is enough for versions, variants and those that stand in; the command line shows them."""
    await written(
        two, "medium_ai", weight=60, variants={"b": {"weight": 40, "model": "maker/b"}}, fallbacks=["code_ai"]
    )
    listed = (await two.http.get(f"{two.gateway.url}/models")).json()["models"]
    for one in listed:
        whole = (await two.http.get(f"{two.gateway.url}/models/{one['name']}")).json()
        assert one == {key: whole[key] for key in one}
    shown = await asyncio.to_thread(CliRunner(env=WIDE).invoke, app, ["models", "ls", "--url", two.gateway.url])
    assert "default 60, b 40" in shown.output
    assert (await two.http.delete(f"{two.gateway.url}/models/medium_ai")).status_code == 200


async def _answered_by_b(system: System) -> bool:
    """Whether every executor knows of the variant: it has answered with it, and counted that."""
    await models_asked(system)
    pages = [(await system.http.get(f"{one.url}/metrics")).text for one in system.running("executor")]
    counted = 'segue_variant_calls_total{outcome="answered",role="medium_ai",variant="b"}'
    return all(counted in page for page in pages)


async def _both(system: System, models: set[str]) -> bool:
    return await models_asked(system, 16) == models


async def test_what_cannot_be_a_model_is_refused_with_every_reason(two: System) -> None:
    """Unknown keys, providers and fallbacks, weights of nothing: said at once, and nothing is written."""
    for body, said in (
        ({"provider": "nobody", "model": "x"}, "unknown provider 'nobody'"),
        ({"provider": "openrouter", "model": "x", "fallbacks": ["nobody_ai"]}, "unknown role 'nobody_ai'"),
        ({"provider": "openrouter", "model": "x", "fallbacks": ["odd_ai"]}, "does not stand in for itself"),
        ({"provider": "openrouter", "model": "x", "config": {"temperatur": 1}}, "temperature"),
        ({"provider": "openrouter", "model": "x", "config": {"temperature": 9}}, "$.config.temperature"),
        ({"provider": "openrouter", "model": "x", "weight": 0}, "every weight is 0"),
        ({"provider": "openrouter", "model": "x", "variants": {"default": {"weight": 1}}}, "the role's own model"),
        ({"provider": "openrouter", "model": "x", "purpose": "y" * 70_000}, "at most 64,000"),
        ({"model": "x"}, "$.provider"),
    ):
        answer = await two.http.put(f"{two.gateway.url}/models/odd_ai", json=body)
        assert (answer.status_code, said in answer.text) == (422, True), (body, answer.text)
    assert (await two.http.put(f"{two.gateway.url}/models/a.b", json={})).status_code == 422
    assert (await two.http.get(f"{two.gateway.url}/models/odd_ai")).status_code == 404


async def test_a_model_that_its_provider_has_no_more_is_not_asked_again(tmp_path: Path) -> None:
    """One 404 is enough: the fallback answers, all executors know, a metric says it, another id is asked at once."""
    async with System(tmp_path, copies={"executor": 2}) as system:
        own = (await system.http.get(f"{system.gateway.url}/models/medium_ai")).json()["model"]
        fault = {"kind": "status", "status": 404}
        await system.faults({"match": {"model": own}, "times": "forever", "fault": fault})
        assert own not in await models_asked(system, 1)

        async def told() -> bool:
            pages = [(await system.http.get(f"{one.url}/metrics")).text for one in system.running("executor")]
            return all(_gone(page, own) == 1.0 for page in pages)

        await eventually(told)
        asked = len([one for one in await system.ledger() if one.get("model") == own])
        assert own not in await models_asked(system, 6)
        assert len([one for one in await system.ledger() if one.get("model") == own]) == asked
        listed = (await system.http.get(f"{system.gateway.url}/breakers")).json()["breakers"]
        assert [(one["model"], one["state"]) for one in listed] == [(own, "open")]
        await written(system, "medium_ai", model="maker/successor")

        async def succeeded() -> bool:
            return await models_asked(system, 2) == {"maker/successor"}

        await eventually(succeeded)


def _gone(page: str, model: str) -> float | None:
    line = next((one for one in page.splitlines() if one.startswith("segue_model_gone{") and model in one), None)
    return float(line.rsplit(" ", 1)[1]) if line is not None else None


async def test_models_and_providers_from_the_command_line(two: System, tmp_path: Path) -> None:
    """Shown as JSON that can be written back."""

    def said(*arguments: str, given: str | None = None) -> str:
        done = CliRunner(env=WIDE).invoke(app, [*arguments, "--url", two.gateway.url], input=given)
        assert done.exit_code == 0, done.output
        return done.output

    shown = await asyncio.to_thread(said, "models", "show", "code_ai")
    changed = json.dumps({**json.loads(shown), "model": "maker/coder"})
    assert "version" in await asyncio.to_thread(lambda: said("models", "put", "code_ai", "-", given=changed))
    assert json.loads(await asyncio.to_thread(said, "models", "show", "code_ai"))["model"] == "maker/coder"
    assert "as the configuration file has it" in await asyncio.to_thread(said, "models", "rm", "code_ai")
    file = tmp_path / "lab.json"
    file.write_text(json.dumps({"base_url": ["http://127.0.0.1:9/v1"], "api_key_env": "LAB_KEY"}))
    await asyncio.to_thread(said, "providers", "put", "bench", str(file))
    assert "LAB_KEY" in await asyncio.to_thread(said, "providers", "ls")
    await asyncio.to_thread(said, "providers", "disable", "bench", "--reason", "moving")
    assert "disabled: moving" in await asyncio.to_thread(said, "providers", "ls")
    await asyncio.to_thread(said, "providers", "enable", "bench")
    assert "gone" in await asyncio.to_thread(said, "providers", "rm", "bench")
