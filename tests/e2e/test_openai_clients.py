"""Clients that nobody here wrote, against the running system: OpenAI's own and those of frameworks, and `llm`.

They live in an environment of their own, `.clients`, and in `.npm`, which `.ci/run` installs.
"""

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from tests.system import ROOT, System, eventually

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(240),
]

CLIENTS = ROOT / ".clients" / "bin"
NPM = ROOT / ".npm" / "node_modules"
HERE = Path(__file__).parent / "clients"

needs_python = pytest.mark.skipif(
    not (CLIENTS / "llm").exists(), reason="there is no .clients environment with the clients in it: .ci/run makes it"
)
needs_node = pytest.mark.skipif(
    not all((NPM / one).exists() for one in ("openai", "ai", "@ai-sdk/openai", "zod")) or shutil.which("node") is None,
    reason="there is no node, or no .npm with openai, ai, @ai-sdk/openai and zod in it: .ci/run makes it",
)


async def ran(*command: str | Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a program to its end and return what it said; fail with that when it fails."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": "", "NO_COLOR": "1", **(environment or {})},
    )
    try:
        async with asyncio.timeout(200):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    said = out.decode(errors="replace")
    assert process.returncode == 0, said[-4_000:]
    return said


async def scripted(system: System) -> None:
    """Have some requests go wrong at the provider."""
    for words, fault in (
        ("always refused", {"kind": "status", "status": 400}),
        ("always forbidden", {"kind": "status", "status": 403}),
        ("always filtered", {"kind": "refusal", "message": "I will not say that"}),
        ("answered slowly", {"kind": "delay", "delay_s": 60}),
    ):
        await system.faults({"match": {"contains": words}, "times": "forever", "fault": fault})


@needs_python
async def test_openais_python_client_chats(system: System) -> None:
    """Answers, streams, usage, tools, structured output, images, templates, errors; a final one is asked once only."""
    await scripted(system)
    await ran(CLIENTS / "python", HERE / "openai_chat.py", f"{system.gateway.url}/v1")
    forbidden = [entry for entry in await system.ledger() if "always forbidden" in str(entry["asked"])]
    assert len({entry["run"] for entry in forbidden}) == 1, "the client did not send the failed request again"


@needs_python
async def test_openais_python_client_uses_responses(system: System) -> None:
    """Streams and their resumption, background, cancel, turns, tools, errors."""
    await scripted(system)
    await ran(CLIENTS / "python", HERE / "openai_responses.py", f"{system.gateway.url}/v1")


@needs_python
@pytest.mark.parametrize(
    "script", ["agents_client.py", "langchain_client.py", "pydantic_ai_client.py", "litellm_client.py"]
)
async def test_frameworks(system: System, script: str) -> None:
    await ran(CLIENTS / "python", HERE / script, f"{system.gateway.url}/v1")


@needs_node
@pytest.mark.parametrize("script", ["openai_client.cjs", "ai_sdk.cjs"])
async def test_node_clients(system: System, script: str) -> None:
    """OpenAI's own, and Vercel's AI SDK, which refers to items of earlier responses by their ids."""
    await scripted(system)
    await ran("node", HERE / script, f"{system.gateway.url}/v1", environment={"NODE_PATH": str(NPM)})


@needs_python
async def test_the_llm_command(system: System, tmp_path: Path) -> None:
    """With its models in a file, as its users give them; a conversation goes on with `-c`."""
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: segue\n  model_name: segue-auto\n  api_base: {system.gateway.url}/v1\n"
    )
    home = {"LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "unused"}
    assert "capital of France" in await ran(CLIENTS / "llm", "-m", "segue", "The capital of France?", environment=home)
    again = await ran(CLIENTS / "llm", "-c", "--no-stream", "What did I ask?", environment=home)
    assert "capital of France" in again


@needs_python
@pytest.mark.parametrize("example", ["openai_sdk.py", "langchain_chat.py"])
async def test_the_examples_run(system: System, example: str) -> None:
    said = await ran(CLIENTS / "python", ROOT / "examples" / example, environment={"SEGUE_URL": system.gateway.url})
    assert "[simulated]" in said


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
async def test_the_curl_example_runs(system: System) -> None:
    said = await ran("bash", ROOT / "examples" / "openai_curl.sh", environment={"SEGUE_URL": system.gateway.url})
    assert "data: [DONE]" in said
    assert said.rstrip().endswith('"status":"completed"')


async def test_a_stream_survives_its_gateway(system: System) -> None:
    """Killed in the middle, another gateway goes on behind the last event; the answer is made and paid once."""
    await system.faults(
        {"match": {"contains": "take your time"}, "fault": {"kind": "delay", "delay_s": 1.5}, "times": "forever"}
    )
    other = system.start("gateway")
    await system.ready(other)
    body = {"model": "medium_ai", "input": "Hello, take your time", "stream": True}
    told: list[dict[str, object]] = []
    async with system.http.stream("POST", f"{other.url}/v1/responses", json=body) as answer:
        run_id = answer.headers["x-segue-run-id"]
        with contextlib.suppress(httpx.TransportError):
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    told.append(json.loads(line.removeprefix("data: ")))
                if len(told) == 2:  # whatever else has come by now is not read: it was lost on the way
                    other.kill()
                    break
    assert [one["type"] for one in told] == ["response.created", "response.in_progress"]
    after = {"stream": "true", "starting_after": str(told[-1]["sequence_number"])}
    rest = await system.http.get(f"{system.gateway.url}/v1/responses/resp_{run_id}", params=after)
    lines = [json.loads(line[6:]) for line in rest.text.splitlines() if line.startswith("data: ")]
    assert [one["type"] for one in lines[:2]] == ["response.output_item.added", "response.content_part.added"]
    assert lines[-1]["type"] == "response.completed"
    text = "".join(one["delta"] for one in lines if one["type"] == "response.output_text.delta")
    assert text == lines[-1]["response"]["output"][0]["content"][0]["text"]
    assert len([entry for entry in await system.ledger() if entry["run"] == run_id]) == 1


async def test_a_role_is_asked_without_the_categorizer_and_the_log_says_so(system: System) -> None:
    """A durable run like any other, one model call and one decision less."""
    body = {"model": "code_ai", "messages": [{"role": "user", "content": "Hello"}]}
    answer = await system.post("/v1/chat/completions", body)
    facts = await system.facts(answer.headers["x-segue-run-id"])
    assert facts["category"]["reason"] == "the caller chose code_ai"
    assert facts["ended"]["spent"]["calls"] == 1
    assert {name.split(".")[0] for name in facts} == {"accepted", "category", "call", "ended"}
    assert not any("categorize" in name for name in facts)


async def test_embeddings_are_a_run_whose_answer_is_vectors(system: System) -> None:
    """As numbers or packed, under a key once; near each other where the texts are alike."""
    asked = {"model": "fast_ai", "input": ["night trains to Oslo", "trains to Oslo at night", "a recipe for bread"]}
    answer = await system.post("/v1/embeddings", asked, **{"Idempotency-Key": "vectors"})
    body = answer.json()
    assert answer.status_code == 200, body
    first, near, far = (one["embedding"] for one in body["data"])
    assert sum(a * b for a, b in zip(first, near, strict=True)) > 0.7
    assert abs(sum(a * b for a, b in zip(first, far, strict=True))) < 0.5
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 0
    again = await system.post("/v1/embeddings", asked, **{"Idempotency-Key": "vectors"})
    assert again.json() == body
    facts = await system.facts(answer.headers["x-segue-run-id"])
    assert facts["ended"]["spent"]["calls"] == 1
    assert "embeddings" not in facts["ended"], "the vectors are on the log once"
    view = await system.http.get(f"{system.gateway.url}/runs/{answer.headers['x-segue-run-id']}")
    assert view.json()["state"] == "completed"
    for model in ("segue-auto", "imagen_4_ultra"):
        refused = await system.post("/v1/embeddings", {**asked, "model": model})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "model")
    unstored = await system.http.get(f"{system.gateway.url}/v1/responses/resp_{answer.headers['x-segue-run-id']}")
    assert unstored.status_code == 404


async def test_a_direct_request_takes_at_most_eight_durable_writes(system: System) -> None:
    """Timer, request, accepted, category, call, attempt, settled, ended; no session's turn. By the server's count."""

    told = [{"role": "user", "content": "Hello"}]
    body = {"model": "code_ai", "messages": told}
    assert (await system.post("/v1/chat/completions", body)).status_code == 200
    requests = 20

    async def asked() -> None:
        for _ in range(requests):
            assert (await system.post("/v1/chat/completions", body)).status_code == 200

    async def at_most_eight() -> bool:
        return await system.stored_by(asked) / requests <= 8

    await eventually(at_most_eight)  # what was delivered again, as a process stood still, may be written once more
