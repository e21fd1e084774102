"""The adapters against a simulator that nobody here wrote: npm `@copilotkit/aimock`, which speaks all the protocols."""

import asyncio
import ipaddress
import json
import shutil
import time
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from services.executor.app import Providers
from services.executor.providers import Answered, Asked, Failed, JobProvider, Pending, Submitted
from shared.bus.server import free_port
from shared.config.providers import Route
from shared.contracts.ids import Lane
from shared.contracts.message import ChatMessage
from shared.outward import Outward
from tests.executor.conftest import call, route
from tests.executor.standin import Standin, raw

PROGRAM = Path(__file__).resolve().parents[2] / ".npm/node_modules/.bin/llmock"
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
CLIP = b"\x00\x00\x00\x18ftypmp42"

pytestmark = pytest.mark.skipif(
    not PROGRAM.exists() or shutil.which("node") is None,
    reason="npm install --prefix .npm --ignore-scripts @copilotkit/aimock@1.43.0 is not done, or there is no node",
)


@dataclass
class Mock:
    """aimock, running."""

    url: str
    providers: Providers

    def route(self, protocol: str, lane: Lane, model: str) -> Route:
        base = f"{self.url}/v1beta" if protocol == "google_ai" else f"{self.url}/api/v1"
        return route("medium_ai", base, protocol=protocol, provider=protocol, lane=lane, model=model, simulated=False)

    async def ask(self, to: Route, text: str, heard: list[str] | None = None) -> Answered | Failed:
        async def hear(piece: str) -> None:
            assert heard is not None
            heard.append(piece)

        provider = self.providers.answering(to)
        return await provider.ask(asked(text), to, budget_s=10, on_delta=hear if heard is not None else None)


def asked(text: str) -> Asked:
    return Asked(call(messages=(ChatMessage(role="user", content=text),)), 1)


@pytest.fixture
async def mock(tmp_path: Path) -> AsyncIterator[Mock]:
    async with Standin(default=raw(200, CLIP, {"content-type": "video/mp4"})) as files:
        busy = {"error": {"message": "busy", "type": "server_error"}, "status": 503}
        video = {"id": "v1", "status": "completed", "url": f"{files.url}/clip.mp4", "b64": "AAAAGGZ0eXA="}
        fixtures = [
            {"match": {"userMessage": "capital"}, "response": {"content": "Paris it is, on the Seine."}},
            {"match": {"userMessage": "fail"}, "response": busy},
            {"match": {"userMessage": "a red bicycle"}, "response": {"image": {"b64Json": "iVBORw0KGgo="}}},
            {"match": {"userMessage": "a bee"}, "response": {"video": video}},
        ]
        (tmp_path / "fixtures.json").write_text(json.dumps({"fixtures": fixtures}))
        port = free_port()
        node = shutil.which("node") or "node"
        running = await asyncio.create_subprocess_exec(
            node, str(PROGRAM), "-p", str(port), "-f", str(tmp_path), stdout=DEVNULL, stderr=DEVNULL
        )
        providers = Providers(Outward(LOOPBACK))
        url = f"http://127.0.0.1:{port}"
        try:
            until = time.monotonic() + 20
            async with httpx.AsyncClient(trust_env=False) as http:
                while True:
                    try:
                        await http.get(f"{url}/health")
                        break
                    except httpx.TransportError:
                        assert time.monotonic() < until, "aimock does not listen"
                        await asyncio.sleep(0.05)
            yield Mock(url, providers)
        finally:
            await providers.close()
            running.kill()
            await running.wait()


@pytest.mark.parametrize("protocol", ["openrouter", "google_ai"])
async def test_texts_whole_and_streamed_and_an_error(mock: Mock, protocol: str) -> None:
    to = mock.route(protocol, Lane.TEXT, "gemini-x" if protocol == "google_ai" else "maker/model")
    whole = await mock.ask(to, "the capital of France?")
    assert isinstance(whole, Answered), whole
    assert (whole.text, whole.finish_reason) == ("Paris it is, on the Seine.", "stop")
    heard: list[str] = []
    streamed = await mock.ask(to, "the capital of France?", heard)
    assert isinstance(streamed, Answered), streamed
    assert "".join(heard) == streamed.text == whole.text
    assert len(heard) >= 1
    failed = await mock.ask(to, "please fail")
    assert isinstance(failed, Failed)
    assert (failed.status, failed.verdict.type) == (503, "transient")


async def test_imagen_predicts(mock: Mock) -> None:
    made = await mock.ask(mock.route("google_ai", Lane.IMAGE, "imagen-4-ultra"), "a red bicycle")
    assert isinstance(made, Answered), made
    assert [(one.media_type, one.data[:4]) for one in made.media] == [("image/png", b"\x89PNG")]


@pytest.mark.parametrize(("protocol", "model"), [("google_ai", "veo-3.1"), ("openrouter", "google/veo-3.1")])
async def test_a_video_by_way_of_its_job(mock: Mock, protocol: str, model: str) -> None:
    to = mock.route(protocol, Lane.VIDEO, model)
    provider: JobProvider = mock.providers.taking_jobs(to)
    given = await provider.submit(asked("a bee"), to, budget_s=10)
    assert isinstance(given, Submitted), given
    for _ in range(20):
        found = await provider.poll(asked("a bee"), to, given.operation, budget_s=10)
        if not isinstance(found, Pending):
            break
        assert found.trouble is None, found.trouble
    assert isinstance(found, Answered), found
    assert found.media[0].media_type == "video/mp4"
    assert b"ftyp" in found.media[0].data
