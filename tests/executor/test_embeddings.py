"""Embeddings: what is asked and what comes back, packed; nobody stands in for the role that was asked."""

import base64
import json
import struct
from typing import Any

import pytest

from services.executor.caching import key_of
from services.executor.pricing import most_tokens
from services.executor.providers import Answered, Asked, Failed
from services.executor.providers.embedding_wire import embedding_fields, read_embeddings
from services.executor.providers.google import Google
from shared.contracts.conversation import Parameters
from shared.outward import Outward
from tests.executor.conftest import Begin, call, route
from tests.executor.standin import json_reply, refuse

TEXTS = ("one", "two")


def packed(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def said(*vectors: Any, **more: Any) -> bytes:
    data = [{"index": place, "embedding": vector} for place, vector in enumerate(vectors)]
    return json.dumps({"data": data, "model": "m-1", "usage": {"prompt_tokens": 5}, **more}).encode()


def test_what_is_sent() -> None:
    asked = call(messages=(), embed=("one", (1, 2)), parameters=Parameters(extra={"dimensions": 8}))
    body = embedding_fields(Asked(asked, 1), "m")
    assert body == {"model": "m", "input": ["one", (1, 2)], "encoding_format": "float", "dimensions": 8}
    assert most_tokens(asked, route("m", "http://x")) == (1 + 2, 0)
    assert key_of(asked, ("p",), {}) != key_of(call(messages=(), embed=("one",)), ("p",), {})


def test_vectors_come_back_in_their_order() -> None:
    """As numbers or packed, by their index wherever they stand."""
    found = read_embeddings(said([0.5, 1.0], packed(2.0, 3.0)), 2, 0.0)
    assert isinstance(found, Answered)
    assert found.embeddings == (packed(0.5, 1.0), packed(2.0, 3.0))
    assert (found.model, found.usage.prompt_tokens, found.text) == ("m-1", 5, "")
    turned = [{"index": 1, "embedding": [1.0]}, {"index": 0, "embedding": [0.0]}]
    again = read_embeddings(json.dumps({"data": turned}).encode(), 2, 0.0)
    assert isinstance(again, Answered)
    assert again.embeddings == (packed(0.0), packed(1.0))


@pytest.mark.parametrize(
    "body",
    [
        b"no",
        b"[]",
        b"{}",
        said(),
        said([1.0]),
        said([1.0], []),
        said([1.0], ["x"]),
        said([1.0], "no base64!"),
        said([1.0], [2.0], [3.0]),
    ],
)
def test_what_is_no_answer(body: bytes) -> None:
    found = read_embeddings(body, 2, 0.0)
    assert isinstance(found, Failed)
    assert found.verdict.code == "malformed_answer"


async def test_a_role_answers_alone(begin: Begin) -> None:
    """Another model's vectors would lie in another space: its fallback is not asked."""
    world = await begin(fallbacks={"medium_ai": ["fast_ai"]})
    world.provider.then(refuse(400, "no embeddings here"))
    failed = await world.do(call(messages=(), embed=TEXTS))
    assert failed.outcome == "failed"
    world.provider.then(json_reply(200, json.loads(said([0.5], [1.0]))))
    settled = await world.do(call(messages=(), embed=TEXTS))
    assert settled.embeddings == (packed(0.5), packed(1.0))
    assert settled.usage.prompt_tokens == 5
    assert [one.path for one in world.provider.seen] == ["/v1/embeddings"] * 2


async def test_google_says_that_it_is_not_asked() -> None:
    provider = Google(Outward(()))
    asked = Asked(call(messages=(), embed=TEXTS), 1)
    found = await provider.ask(asked, route("m", "http://x", protocol="google_ai"), budget_s=1, on_delta=None)
    assert isinstance(found, Failed)
    assert "OpenAI-compatible" in found.message
    await provider.close()
