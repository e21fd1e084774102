"""Roles and providers in the registry: what nobody can read is written over, deleted names make room."""

from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg

from shared.bus.buckets import Bucket
from shared.config.loading import load
from shared.contracts.registry import ModelEntry
from shared.registry import models
from shared.registry.following import LiveModels
from shared.registry.models import MODELS, ModelBook, TooManyEntries
from shared.registry.templates import VersionMismatch
from shared.topology import REGISTRY
from tests.bus.ground import Ground
from tests.conftest import eventually

DOCUMENT = {"provider": "openrouter", "model": "maker/model"}
GONE = dict.fromkeys(("document", "fallbacks", "system_prompt", "disabled"))


async def following(ground: Ground) -> LiveModels:
    """Return what a process knows that is beginning to follow the registry on a connection of its own."""
    live = LiveModels(await ground.bus(), load(Path("orchestration_config.json")).configuration)
    await live.start()
    return live


async def test_what_cannot_be_read_counts_as_nothing_and_is_written_over(ground: Ground) -> None:
    """Everybody who follows takes the new entry in, whatever was there before; only `If-Match` of a version fails."""
    bus, role = ground.buses[0], f"{ground.tenant}_ai"
    book, live = ModelBook(bus.registry), await following(ground)
    for number in range(3):
        await book.write_model(role, {"document": DOCUMENT | {"purpose": str(number)}}, expected=None, by="test")
    await bus.jetstream.publish(f"$KV.{REGISTRY}.{MODELS}.{role}", b'{"role": 7}')

    async def left_out() -> bool:
        return live.leaves_out(MODELS, role)

    await eventually(left_out)
    with pytest.raises(VersionMismatch, match="not in the registry"):
        await book.write_model(role, {"document": DOCUMENT}, expected=3, by="test")
    written = await book.write_model(role, {"document": DOCUMENT | {"purpose": "new"}}, expected=0, by="test")
    assert written.version > 3

    async def known() -> bool:
        there = live.configuration.ai_models.get(role)
        return there is not None and there.purpose == "new" and not live.leaves_out(MODELS, role)

    await eventually(known)
    assert (await book.write_model(role, GONE, expected=written.version, by="test")).version == written.version + 1
    await live.stop()


async def test_a_look_that_began_before_a_write_does_not_leave_the_new_entry_out(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read what could not be read, and goes on after the write: that stands nowhere any more."""
    bus, role = ground.buses[0], f"{ground.tenant}_ai"
    live = await following(ground)
    await live.stop()
    await bus.jetstream.publish(f"$KV.{REGISTRY}.{MODELS}.{role}", b'{"role": 7}')
    every = Bucket.every

    async def overtaken(bucket: Bucket, prefix: str, kind: Any, **more: Any) -> Any:
        found = await every(bucket, prefix, kind, **more)
        if prefix == MODELS:
            book = ModelBook(bus.registry)
            live.take(await book.write_model(role, {"document": DOCUMENT}, expected=None, by="test"))
        return found

    monkeypatch.setattr(Bucket, "every", overtaken)
    await live._look()
    assert not live.leaves_out(MODELS, role)
    assert _plays(live, role, "maker/model")


async def test_deleted_names_make_room_for_new_ones(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who remembers a name that was freed forgets it, and takes it in when it comes back, whatever was missed."""
    bus, role = ground.buses[0], f"{ground.tenant}_ai"
    book = ModelBook(bus.registry)

    async def put(name: str, model: str) -> ModelEntry:
        return await book.write_model(name, {"document": DOCUMENT | {"model": model}}, expected=0, by="test")

    async def full(**deleted: bool) -> None:
        """Have every place taken, once the replica that we read from has our names as they are."""
        wanted = {f"{MODELS}.{ground.tenant}_{name}": empty for name, empty in deleted.items()}

        async def up_to_date() -> bool:
            there = await bus.registry.every(MODELS, ModelEntry, unreadable=print)
            monkeypatch.setattr(models, "MOST", len(there))
            ours = {key: entry.empty for key, entry in there.items() if key.startswith(f"{MODELS}.{ground.tenant}_")}
            return ours == wanted

        await eventually(up_to_date)

    await put(role, "maker/first")
    hears = await following(ground)
    monkeypatch.setattr(LiveModels, "_heard", _deaf)
    deaf = await following(ground)
    await put(f"{ground.tenant}_spare", "maker/spare")
    await book.write_model(f"{ground.tenant}_spare", GONE, expected=None, by="test")
    deleted = await book.write_model(role, GONE, expected=None, by="test")
    await full(ai=True, spare=True)
    await put(f"{ground.tenant}_other", "maker/other")
    assert await bus.registry.get(f"{MODELS}.{role}", ModelEntry) == (None, 0)
    await deaf.reconnected()
    await eventually(lambda: role not in deaf.configuration.ai_models)
    assert (await put(role, "maker/back")).version > deleted.version
    for live in (hears, deaf):
        await live.reconnected()
        await eventually(lambda: _plays(live, role, "maker/back"))  # noqa: B023 - awaited in this round
        await live.stop()
    await full(ai=False, other=False)
    with pytest.raises(TooManyEntries):
        await put(f"{ground.tenant}_more", "maker/more")


async def test_a_write_that_was_refused_is_heard_and_not_believed_for_long(ground: Ground) -> None:
    """Of two gateways that write the same version the bucket takes one; whoever heard the other finds out."""
    bus, role = ground.buses[0], f"{ground.tenant}_ai"
    live = await following(ground)
    kept = await ModelBook(bus.registry).write_model(role, {"document": DOCUMENT}, expected=0, by="test")
    live.take(kept.model_copy(update={"version": kept.version + 1, "document": DOCUMENT | {"model": "maker/refused"}}))
    assert _plays(live, role, "maker/refused")
    second = kept.model_copy(update={"version": kept.version + 1, "document": DOCUMENT | {"model": "maker/taken"}})
    _, revision = await bus.registry.get(f"{MODELS}.{role}", ModelEntry)
    assert await bus.registry.put(f"{MODELS}.{role}", second, revision) is not None
    await live.reconnected()
    await eventually(lambda: _plays(live, role, "maker/taken"))
    await live.stop()


async def _deaf(self: LiveModels, msg: Msg) -> None:
    """Hear nothing."""


def _plays(live: LiveModels, role: str, model: str) -> bool:
    there = live.configuration.ai_models.get(role)
    return there is not None and there.model == model
