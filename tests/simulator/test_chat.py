"""Chat completions that are not streamed: shape, usage, cost, ids, seeds, bad requests."""

import asyncio
from datetime import UTC, date, datetime

import httpx
import pytest

from simulator.prices import TABLE, UNLISTED, cost_usd, price_of
from simulator.testing import Simulator, simulator
from tests.simulator.conftest import MODEL, asking, said


async def test_an_answer_has_openrouters_shape(http: httpx.AsyncClient) -> None:
    """Every field that a client of OpenRouter reads is there, and the id is also a header."""
    answer = await http.post("/chat/completions", json=asking())
    body = answer.json()
    assert answer.headers["x-generation-id"] == body["id"]
    assert body["object"] == "chat.completion"
    assert body["model"] == MODEL
    assert abs(body["created"] - datetime.now(UTC).timestamp()) < 60
    (choice,) = body["choices"]
    assert choice["index"] == 0
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["role"] == "assistant"
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"] == {
        "cached_tokens": 0,
        "cache_write_tokens": 0,
        "audio_tokens": 0,
        "video_tokens": 0,
    }
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 0, "image_tokens": 0}
    assert usage["cost_details"]["upstream_inference_cost"] == usage["cost"]


async def test_it_says_that_it_is_simulated_and_restates_the_question(http: httpx.AsyncClient) -> None:
    text = said(await http.post("/chat/completions", json=asking("Why is the sky over Bergen grey?")))
    assert text.startswith("[simulated] ")
    assert "Why is the sky over Bergen grey?" in text
    assert 12 <= len(text.split()) <= 120


async def test_history_is_quoted(http: httpx.AsyncClient) -> None:
    """Both sides of the turn before show that a session's history arrived."""
    body = asking()
    body["messages"] = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "My dog is called Wilhelmina."},
        {"role": "assistant", "content": "A fine name for a dachshund."},
        {"role": "user", "content": "What did I tell you?"},
    ]
    text = said(await http.post("/chat/completions", json=body))
    assert 'Earlier you said: "My dog is called Wilhelmina."' in text
    assert "A fine name for a dachshund." in text


async def test_outputs_of_earlier_tasks_flow_on(http: httpx.AsyncClient) -> None:
    """Of a message of many lines, every result's beginning is in the answer, and marks do not pile up."""
    first = said(await http.post("/chat/completions", json=asking("Describe the zeppelin briefly.")))
    second = said(await http.post("/chat/completions", json=asking("List the colours of a kingfisher.")))
    joined = f"The results:\n<result name='a'>\n{first}\n</result>\n<result name='b'>\n{second}\n</result>\nJoin them."
    text = said(await http.post("/chat/completions", json=asking(joined)))
    assert "zeppelin" in text
    assert "kingfisher" in text
    assert text.count("[simulated]") == 1


async def test_images_are_seen_and_counted(http: httpx.AsyncClient) -> None:
    body = asking()
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    body["messages"] = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, image, image]}]
    answer = await http.post("/chat/completions", json=body)
    assert "I see 2 images." in said(answer)
    assert answer.json()["usage"]["prompt_tokens"] > 2_000


@pytest.mark.parametrize("model", [*TABLE, "somebody/new-model"])
async def test_cost_is_exactly_the_price_tables(http: httpx.AsyncClient, model: str) -> None:
    """`usage.cost` is the dated price of every token, reasoning included."""
    usage = (await http.post("/chat/completions", json=asking(model=model))).json()["usage"]
    price = price_of(model, datetime.now(UTC).date())
    assert usage["cost"] == pytest.approx(sum(cost_usd(price, usage["prompt_tokens"], usage["completion_tokens"])))
    reasoning = usage["completion_tokens_details"]["reasoning_tokens"]
    assert (reasoning > 0) == price.reasons
    assert usage["completion_tokens"] > reasoning


def test_prices_have_dates() -> None:
    """The price of a day is the last one that holds by then; long prompts cost more where the provider says so."""
    llama = "meta-llama/llama-3.3-70b-instruct"
    assert price_of(llama, date(2026, 11, 8)).prompt == 0.10
    assert price_of(llama, date(2026, 11, 9)).prompt == 0.59
    assert price_of(f"{llama}:nitro", date(2026, 11, 9)).prompt == 0.59
    assert price_of("nobody/knows", date(2026, 11, 9)) == UNLISTED
    gemini = price_of("google/gemini-2.5-pro", date(2026, 11, 9))
    assert cost_usd(gemini, 200_000, 1_000) == pytest.approx((0.25, 0.01))
    assert cost_usd(gemini, 200_001, 1_000) == pytest.approx((0.5000025, 0.015))


async def test_max_tokens_cuts(http: httpx.AsyncClient) -> None:
    answer = (await http.post("/chat/completions", json=asking(max_tokens=5))).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert len(answer["choices"][0]["message"]["content"]) == 20
    assert answer["usage"]["completion_tokens"] == 5


async def test_same_request_and_seed_give_the_same_answer(http: httpx.AsyncClient) -> None:
    """Within a process, in another process, and different with another seed; ids are never the same."""
    requests = [asking(f"Tell me something about the number {number}.") for number in range(12)]

    async def texts(client: httpx.AsyncClient) -> tuple[list[str], list[str]]:
        answers = [await client.post("/chat/completions", json=request) for request in requests]
        return [said(answer) for answer in answers], [answer.json()["id"] for answer in answers]

    here, ids = await texts(http)
    again, more_ids = await texts(http)
    assert here == again
    assert len({*ids, *more_ids}) == 24
    async with simulator(seed=1) as same, httpx.AsyncClient(base_url=same.url) as client:
        there, there_ids = await texts(client)
        assert there == here
        assert not {*there_ids} & {*ids}
    async with simulator(seed=2) as other, httpx.AsyncClient(base_url=other.url) as client:
        assert (await texts(client))[0] != here


async def test_large_context(http: httpx.AsyncClient, sim: Simulator) -> None:
    """3.6 MB of context are read and answered; what is over a model's window is refused as the provider does."""
    big = asking("x" * 3_600_000, model="x-ai/grok-4-fast")
    answer = await http.post("/chat/completions", json=big)
    assert answer.json()["usage"]["prompt_tokens"] == 900_004
    assert len(said(answer)) < 2_000
    refused = await http.post("/chat/completions", json=asking("x" * 600_000))
    assert refused.status_code == 400
    assert refused.json()["error"]["metadata"]["error_type"] == "context_length_exceeded"
    assert [entry["outcome"] for entry in await sim.ledger()] == ["answered", "error"]


async def test_a_body_over_32_mb_is_refused(sim: Simulator) -> None:
    """Whether its length is declared or not."""
    piece = b"x" * 1_000_000

    async def pieces(count: int) -> object:
        for _ in range(count):
            yield piece

    async with httpx.AsyncClient(timeout=30) as client:
        for content in (piece * 34, pieces(34)):
            try:
                answer = await client.post(f"{sim.url}/chat/completions", content=content)  # type: ignore[arg-type]  # both are
            except httpx.TransportError:
                continue  # refused while it was still being sent
            assert answer.status_code == 413
    assert await sim.ledger() == []
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{sim.address}/healthz")).json() == {"status": "ok", "simulated": True}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "not valid JSON"),
        (b"\xff\xfe{}", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"messages": [{"role": "user", "content": "x"}]}', "'model'"),
        (b'{"model": "m"}', "'messages'"),
        (b'{"model": "m", "messages": []}', "'messages'"),
        (b'{"model": "m", "messages": ["x"]}', "messages[0]"),
        (b'{"model": "m", "messages": [{"role": "user", "content": 5}]}', "messages[0].content"),
        (b'{"model": "m", "messages": [{"role": "wizard", "content": "x"}]}', "wizard"),
        (b'{"model": "m", "max_tokens": 0, "messages": [{"role": "user", "content": "x"}]}', "max_tokens"),
    ],
)
async def test_bad_requests_are_400_and_say_why(
    http: httpx.AsyncClient, sim: Simulator, content: bytes, told: str
) -> None:
    answer = await http.post("/chat/completions", content=content)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == 400
    assert told in error["message"]
    assert error["metadata"]["error_type"] == "invalid_request"
    assert await sim.ledger() == []


async def test_other_paths_and_methods(http: httpx.AsyncClient, sim: Simulator) -> None:
    assert (await http.get("/chat/completions")).status_code == 405
    assert (await http.post("/models")).headers["allow"] == "GET"
    assert (await http.get("/nothing")).status_code == 404
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{sim.address}/")).status_code == 404
        assert (await client.head(f"{sim.address}/healthz")).status_code == 200


async def test_models_have_prices_as_strings(http: httpx.AsyncClient) -> None:
    models = {model["id"]: model for model in (await http.get("/models")).json()["data"]}
    assert models.keys() == TABLE.keys()
    llama = models["meta-llama/llama-3.1-8b-instruct"]
    assert llama["pricing"]["prompt"] == "0.00000005"
    assert llama["context_length"] == 131_072
    overrides = models["google/gemini-2.5-pro"]["pricing"]["overrides"]
    assert overrides == [{"min_prompt_tokens": 200_000, "prompt": "0.0000025", "completion": "0.000015"}]


async def test_a_generation_can_be_asked_about(http: httpx.AsyncClient) -> None:
    """Its cost and tokens are those of the answer, under the id of the header."""
    answer = await http.post("/chat/completions", json=asking())
    found = (await http.get("/generation", params={"id": answer.headers["x-generation-id"]})).json()["data"]
    usage = answer.json()["usage"]
    assert found["total_cost"] == usage["cost"]
    assert found["tokens_prompt"] == usage["prompt_tokens"]
    assert found["tokens_completion"] == usage["completion_tokens"]
    assert found["finish_reason"] == "stop"
    assert found["cancelled"] is False
    assert (await http.get("/generation", params={"id": "gen-none"})).status_code == 404


async def test_the_key_adds_up(http: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(http.post("/chat/completions", json=asking(str(number))) for number in range(8)))
    spent = sum(answer.json()["usage"]["cost"] for answer in answers)
    assert (await http.get("/key")).json()["data"]["usage"] == pytest.approx(spent)
