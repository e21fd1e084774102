"""Google's Gemini API: what an answer, a stream, a prediction or an operation means; and what is sent."""

import base64
import ipaddress
import json
from typing import Any

import pytest
from pydantic import SecretStr

from services.executor.providers import Answered, Asked, Failed, Media, Pending, Submitted
from services.executor.providers.google import Google
from services.executor.providers.google_wire import (
    ContentReader,
    content_fields,
    imagen_fields,
    read_operation,
    read_operation_name,
    read_predictions,
    veo_fields,
)
from shared.config.providers import Route
from shared.config.roles import ModelParameters
from shared.contracts.ids import Lane
from shared.contracts.message import ChatMessage, Usage
from shared.outward import Outward
from tests.executor.conftest import call, route
from tests.executor.standin import Standin, event, json_reply, streamed

PNG = base64.b64encode(b"\x89PNG picture").decode()
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


def piece(*parts: dict[str, Any], finish: str | None = None, **body: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "modelVersion": "gemini-x-001", **body}


def read(*bodies: Any) -> Answered | Failed:
    reader = ContentReader()
    for body in bodies:
        reader.take(body if isinstance(body, bytes) else json.dumps(body).encode(), 0.0)
    return reader.conclude()


USED = {"promptTokenCount": 12, "candidatesTokenCount": 5, "thoughtsTokenCount": 30, "cachedContentTokenCount": 4}


def test_an_answer_is_its_text_without_thoughts_and_everything_is_counted() -> None:
    found = read(piece({"text": "hm", "thought": True}, {"text": "yes"}, finish="STOP", usageMetadata=USED))
    assert isinstance(found, Answered)
    assert (found.text, found.finish_reason, found.model) == ("yes", "stop", "gemini-x-001")
    used = found.usage
    assert (used.prompt_tokens, used.completion_tokens, used.reasoning_tokens, used.cached_tokens) == (12, 35, 30, 4)
    assert found.cost_usd is None, "Google says no cost"


@pytest.mark.parametrize(
    ("bodies", "code"),
    [
        ([piece({"text": "half"})], "stream_cut"),
        ([piece({"text": ""}, finish="STOP")], "empty_answer"),
        ([piece(finish="SAFETY")], "safety_filter"),
        ([piece(finish="PROHIBITED_CONTENT")], "safety_filter"),
        ([piece(finish="IMAGE_SAFETY")], "safety_filter"),
        ([{"promptFeedback": {"blockReason": "SAFETY"}}], "safety_filter"),
        ([piece(finish="MALFORMED_FUNCTION_CALL")], "provider_error"),
        ([piece({"text": ""}, finish="MAX_TOKENS")], "nothing_said"),
        ([b"<html>"], "malformed_answer"),
        ([b"[1, 2]"], "malformed_answer"),
        ([piece({"inlineData": {"mimeType": "image/png", "data": "%%%"}}, finish="STOP")], "malformed_answer"),
        ([{"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}], "provider_unavailable"),
        ([[{"error": {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED"}}]], "rate_limited"),
        ([{}], "stream_cut"),
    ],
)
def test_what_is_no_answer(bodies: list[Any], code: str) -> None:
    found = read(*bodies)
    assert isinstance(found, Failed)
    assert found.verdict.code == code
    if code == "malformed_answer":
        assert found.cost_usd is None, "what cannot be read may have been charged for"


def test_what_a_stream_counted_before_it_broke_off_is_not_what_it_costs() -> None:
    """Google counts in every piece, first of all the prompt alone: by that a cut answer would seem nearly free."""
    first = piece({"text": "half"}, usageMetadata={"promptTokenCount": 90})
    for rest in ([], [{"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}]):
        found = read(first, *rest)
        assert isinstance(found, Failed)
        assert (found.usage, found.cost_usd) == (Usage(), None)
    whole = read(piece({"text": ""}, finish="SAFETY", usageMetadata={"promptTokenCount": 90}))
    assert isinstance(whole, Failed)
    assert whole.usage.prompt_tokens == 90


def test_an_image_comes_with_its_tokens() -> None:
    details = [{"modality": "IMAGE", "tokenCount": 1120}]
    used = {"promptTokenCount": 9, "candidatesTokenCount": 1120, "candidatesTokensDetails": details}
    image = {"inlineData": {"mimeType": "image/png", "data": PNG}}
    found = read(piece({"text": "here"}, image, finish="STOP", usageMetadata=used))
    assert isinstance(found, Answered)
    assert found.media == (Media(b"\x89PNG picture", "image/png"),)
    assert (found.usage.images, found.usage.image_tokens) == (1, 1120)


def test_predictions_are_images_or_the_filters_word() -> None:
    made = read_predictions(
        json.dumps({"predictions": [{"bytesBase64Encoded": PNG, "mimeType": "image/png"}]}).encode(), 0
    )
    assert isinstance(made, Answered)
    assert made.usage.images == 1
    for body, code in (
        ({"predictions": [{"raiFilteredReason": "people"}]}, "safety_filter"),
        ({}, "empty_answer"),
        ({"predictions": [{"bytesBase64Encoded": "%", "mimeType": "image/png"}]}, "malformed_answer"),
    ):
        found = read_predictions(json.dumps(body).encode(), 0)
        assert isinstance(found, Failed)
        assert found.verdict.code == code


@pytest.mark.parametrize("name", ["", "../../x", "models/a/../b", "https://evil/x", "a?b", "/x", None, 7])
def test_an_operation_has_a_name_that_can_stand_in_a_path(name: object) -> None:
    assert isinstance(read_operation_name(json.dumps({"name": name}).encode()), Failed)


def test_operations() -> None:
    assert read_operation_name(b'{"name": "models/veo-3.1/operations/abc-1"}') == "models/veo-3.1/operations/abc-1"
    assert read_operation(b'{"name": "x"}', 0) is None

    def done(**fields: Any) -> Any:
        return read_operation(json.dumps({"done": True, **fields}).encode(), 0)

    sample = {"generatedSamples": [{"video": {"uri": "https://g/files/1"}}]}
    assert done(response={"generateVideoResponse": sample}) == "https://g/files/1"
    filtered = done(response={"generateVideoResponse": {"raiMediaFilteredCount": 1, "raiMediaFilteredReasons": ["no"]}})
    assert filtered.verdict.code == "safety_filter"
    assert done(error={"code": 13, "message": "broke", "status": "INTERNAL"}).verdict.code == "provider_error"
    assert done(response={}).verdict.code == "empty_answer"
    assert done().verdict.code == "malformed_answer"


def test_what_is_sent() -> None:
    """System prompts apart, roles renamed, images inline, settings in Google's words, the call's first."""
    look = [
        {"type": "text", "text": "what?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
    ]
    command = call(
        messages=(
            ChatMessage(role="system", content="be brief"),
            ChatMessage(role="assistant", content="before"),
            ChatMessage(role="user", content=look),
        ),
        max_tokens=9,
        settings={"aspect_ratio": "16:9", "duration": 4},
    )
    asked = Asked(command, 1)
    role = {"temperature": 0.5, "max_tokens": 100, "aspect_ratio": "1:1", "safety_filter": "block_medium_and_above"}
    fields = content_fields(asked, role, images=True)
    assert fields["systemInstruction"] == {"parts": [{"text": "be brief"}]}
    assert [one["role"] for one in fields["contents"]] == ["model", "user"]
    assert fields["contents"][1]["parts"][1] == {"inlineData": {"mimeType": "image/png", "data": PNG}}
    config = fields["generationConfig"]
    assert (config["maxOutputTokens"], config["temperature"]) == (9, 0.5)
    assert config["imageConfig"] == {"aspectRatio": "16:9"}
    assert {one["threshold"] for one in fields["safetySettings"]} == {"BLOCK_MEDIUM_AND_ABOVE"}
    assert imagen_fields(asked, role)["parameters"] == {"aspectRatio": "16:9", "sampleCount": 1}
    video = veo_fields(asked, {"resolution": "1080p", "generate_audio": True})
    assert video["parameters"] == {"aspectRatio": "16:9", "resolution": "1080p", "durationSeconds": 4}
    assert video["instances"][0]["image"]["bytesBase64Encoded"] == PNG


def google(url: str, lane: Lane = Lane.TEXT, model: str = "gemini-x") -> Route:
    return route(
        "medium_ai", url, protocol="google_ai", lane=lane, model=model, api_key=SecretStr("AIza-secret"),
        parameters=ModelParameters(max_tokens=50), simulated=False,
    )  # fmt: skip


async def test_a_stream_is_forwarded_and_a_cut_one_is_no_answer() -> None:
    async with Standin() as server:
        heard: list[str] = []

        async def hear(text: str) -> None:
            heard.append(text)

        adapter = Google(Outward(LOOPBACK))
        to = google(server.url)
        server.script.append(streamed(event(piece({"text": "one "})), event(piece({"text": "two"}, finish="STOP"))))
        found = await adapter.ask(Asked(call(), 1), to, budget_s=5, on_delta=hear)
        assert isinstance(found, Answered)
        assert ("".join(heard), found.text) == ("one two", "one two")
        assert server.seen[0].path == "/v1/models/gemini-x:streamGenerateContent?alt=sse"
        assert server.seen[0].headers["x-goog-api-key"] == "AIza-secret"
        assert "x-segue-run" not in server.seen[0].headers
        for end in (True, False):
            server.script.append(streamed(event(piece({"text": "half"})), end=end))
            cut = await adapter.ask(Asked(call(), 1), to, budget_s=5, on_delta=hear)
            assert isinstance(cut, Failed)
            assert (cut.verdict.code, cut.text_sent, cut.cost_usd) == ("stream_cut", True, None)
        await adapter.close()


async def test_an_error_says_when_to_come_back_and_never_the_key() -> None:
    async with Standin() as server:
        info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7.5s"}
        said = {"code": 429, "message": "AIza-secret is busy", "status": "RESOURCE_EXHAUSTED", "details": [info]}
        server.script.append(json_reply(429, [{"error": said}]))
        adapter = Google(Outward(LOOPBACK))
        found = await adapter.ask(Asked(call(), 1), google(server.url), budget_s=5, on_delta=None)
        assert isinstance(found, Failed)
        assert (found.verdict.code, found.retry_after_s) == ("rate_limited", 7.5)
        assert "AIza-secret" not in found.message
        await adapter.close()


async def test_a_video_is_asked_after_until_it_is_there_and_the_key_stays_at_home() -> None:
    async with Standin() as server, Standin() as elsewhere:
        adapter = Google(Outward(LOOPBACK))
        to = google(server.url, Lane.VIDEO, "veo-3.1")
        asked = Asked(call(settings={"duration": 4}), 1)
        server.script.append(json_reply(200, {"name": "models/veo-3.1/operations/1"}))
        given = await adapter.submit(asked, to, budget_s=5)
        assert given == Submitted("models/veo-3.1/operations/1")
        server.script.append(json_reply(200, {"name": given.operation}))
        assert isinstance(await adapter.poll(asked, to, given.operation, budget_s=5), Pending)
        server.script.append(json_reply(503, {"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}))
        trouble = await adapter.poll(asked, to, given.operation, budget_s=5)
        assert isinstance(trouble, Pending)
        assert trouble.trouble is not None
        server.script.append(json_reply(404, {"error": {"code": 404, "message": "gone", "status": "NOT_FOUND"}}))
        lost = await adapter.poll(asked, to, given.operation, budget_s=5)
        assert isinstance(lost, Failed)
        assert lost.verdict.code == "job_lost"
        sample = {"generatedSamples": [{"video": {"uri": f"{elsewhere.url}/clip"}}]}
        done = {"done": True, "response": {"generateVideoResponse": sample}}
        server.script.append(json_reply(200, done))
        found = await adapter.poll(asked, to, given.operation, budget_s=5)
        assert isinstance(found, Answered)
        assert found.usage.video_s == 4
        assert len(found.media) == 1
        assert "x-goog-api-key" not in elsewhere.seen[0].headers
        own = {"generatedSamples": [{"video": {"uri": f"{server.url}/files/1"}}]}
        server.script.append(json_reply(200, {"done": True, "response": {"generateVideoResponse": own}}))
        assert isinstance(await adapter.poll(asked, to, given.operation, budget_s=5), Answered)
        assert server.seen[-1].headers["x-goog-api-key"] == "AIza-secret"
        inwards = {"generatedSamples": [{"video": {"uri": "https://169.254.169.254/latest"}}]}
        server.script.append(json_reply(200, {"done": True, "response": {"generateVideoResponse": inwards}}))
        refused = await adapter.poll(asked, to, given.operation, budget_s=5)
        assert isinstance(refused, Failed)
        assert refused.verdict.code == "malformed_answer"
        await adapter.close()
