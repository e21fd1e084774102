"""Images that a model is to look at: fetched within bounds, refused before anything is bought."""

import base64
from typing import Any

from shared.contracts.message import ChatMessage
from tests.executor.conftest import Begin, World, call, route, run
from tests.executor.standin import Standin, raw

PNG = b"\x89PNG picture"


def looks_at(*urls: str, **fields: Any) -> Any:
    parts: list[dict[str, object]] = [{"type": "text", "text": "what is it?"}]
    parts += [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return call(messages=(ChatMessage(role="user", content=parts),), **fields)


async def own(begin: Begin, world: World) -> World:
    """An executor whose model is a server of ours: it must not be made to fetch anything."""
    to = route("medium_ai", world.provider.url, protocol="openai_compatible", simulated=False)
    return await begin(roles=(), routes={"medium_ai": to})


def sent(world: World) -> str:
    url: str = world.provider.seen[-1].body["messages"][0]["content"][1]["image_url"]["url"]
    return url


async def test_an_address_becomes_its_bytes(begin: Begin, world: World) -> None:
    await own(begin, world)
    async with Standin(default=raw(200, PNG, {"content-type": "image/png"})) as web:
        fact = await world.do(looks_at(f"{web.url}/cat.png"))
    assert fact.outcome == "answered"
    assert sent(world) == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


async def test_what_is_no_image_is_refused_before_anything_is_asked(begin: Begin, world: World) -> None:
    """A page, a private address, a script in a data URL, plain words, too many: said, and nothing was claimed."""
    await own(begin, world)
    async with Standin(default=raw(200, b"<html>", {"content-type": "text/html"})) as web:
        for urls, said in (
            ([f"{web.url}/page"], "not an image"),
            (["https://169.254.169.254/latest/meta-data"], "is not fetched"),
            (["https://10.0.0.1/x.png"], "is not fetched"),
            (["data:text/html;base64,PGI+"], "a data URL is"),
            (["a red bicycle"], "is no image"),
            (["/artifacts/ "], "is no image"),
            (["data:image/png;base64,AAAA"] * 17, "16 images"),
        ):
            command = looks_at(*urls)
            fact = await world.do(command)
            assert fact.fault is not None
            assert (fact.fault.code, fact.attempts) == ("image_unusable", 0)
            assert said in fact.fault.message
    assert world.provider.seen == []


async def test_artifacts_are_their_tenants_own(begin: Begin, world: World) -> None:
    """Of the same tenant it is shown to the model; of another it is not there, as if it had never been."""
    await own(begin, world)
    name = "a" * 32
    await world.bus.artifacts.store(f"acme/{name}", PNG, {"media_type": "image/png"})
    assert (await world.do(looks_at(f"/artifacts/{name}"))).outcome == "answered"
    assert sent(world).startswith("data:image/png;base64,")
    other = run().model_copy(update={"tenant": "another"})
    fact = await world.do(looks_at(f"/artifacts/{name}", of=other))
    assert fact.fault is not None
    assert fact.fault.code == "artifact_gone"
