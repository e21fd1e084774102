"""Large bodies travel by reference, whole or not at all."""

import asyncio
import base64
import hashlib
import json
import os
import time
from datetime import UTC, datetime, timedelta

import pytest

from shared import subjects
from shared.bus.connection import Bus
from shared.bus.objects import CHUNK_BYTES
from shared.bus.payloads import HEADER, REFRESHED_AFTER, PayloadCorrupt, PayloadMissing, Payloads
from shared.contracts.commands import SubmitRequest
from shared.contracts.events import RunAccepted, Session, Turn
from shared.contracts.message import ChatMessage
from shared.topology import MAX_MESSAGE_BYTES, PAYLOADS, REQUESTS
from tests.bus.ground import Ground, accepted, facts_of, request

LARGE = 3_600_000
STREAM = f"OBJ_{PAYLOADS}"
NOW = datetime(2026, 11, 1, tzinfo=UTC)


def body(size: int = LARGE) -> bytes:
    return os.urandom(size)


def named(content: bytes) -> dict[str, str]:
    return {HEADER: hashlib.sha256(content).hexdigest()}


async def meta_of(bus: Bus, content: bytes) -> tuple[str, dict[str, object]]:
    """Return where a payload's description is, and the description."""
    name = base64.urlsafe_b64encode(named(content)[HEADER].encode()).decode()
    stored = await bus.jetstream.last(STREAM, f"$O.{PAYLOADS}.M.{name}")
    assert stored is not None
    return stored.subject, json.loads(stored.data)


# What travels


async def test_a_large_fact_comes_back(ground: Ground) -> None:
    run, reader = ground.run(), await ground.bus()
    fact = accepted(run, "x" * LARGE)
    began = time.perf_counter()
    written = await ground.buses[0].log.write(facts_of(run).accepted, fact)
    wrote = time.perf_counter()
    assert await reader.log.read(facts_of(run).accepted, RunAccepted) == fact
    read = time.perf_counter()
    print(
        f"{LARGE / 1e6} MB on {ground.replicas} server(s): "
        f"written {(wrote - began) * 1e3:.0f} ms, read {(read - wrote) * 1e3:.0f} ms"
    )
    assert (written.mine, written.fact) == (True, fact)
    assert (await reader.log.write(facts_of(run).accepted, accepted(run))).fact == fact
    stored = await reader.jetstream.last("EVENTS", facts_of(run).accepted)
    assert stored is not None
    assert len(stored.data) < 2_000
    sketch = await reader.log.sketch(stored, RunAccepted)
    assert sketch.run == fact.run
    assert len(str(sketch.request)) < 2_000 < len(str(fact.request))


async def test_a_large_command_comes_back(ground: Ground) -> None:
    run, reader = ground.run(), await ground.bus()
    command = request(run, "x" * LARGE)
    await ground.buses[0].log.submit(command)
    subject = subjects.request(run.tenant, run.priority)
    stored = await reader.jetstream.last(REQUESTS, subject)
    assert stored is not None
    assert await reader.log.decode(stored, SubmitRequest) == command
    await reader.jetstream.purge(REQUESTS, subject)


async def test_a_large_value_of_a_bucket_comes_back(ground: Ground) -> None:
    reader = await ground.bus()
    said = ChatMessage(role="user", content="x" * LARGE)
    session = Session(created_at=NOW, turns=(Turn(run_id="r", user=said, asked_at=NOW, answered_at=NOW),))
    key = f"{ground.tenant}.s"
    assert await ground.buses[0].sessions.put(key, session, 0)
    assert (await reader.sessions.get(key, Session))[0] == session
    assert await reader.sessions.update(key, Session, lambda there: there and Session(created_at=NOW))
    assert (await ground.buses[0].sessions.get(key, Session))[0] == Session(created_at=NOW)


@pytest.mark.parametrize(
    ("size", "by_reference"), [(0, False), (1, False), (MAX_MESSAGE_BYTES, False), (MAX_MESSAGE_BYTES + 1, True)]
)
async def test_only_what_is_over_the_bound_goes_by_reference(ground: Ground, size: int, by_reference: bool) -> None:
    content = body(size)
    data, headers = await ground.buses[0].payloads.pack(content)
    assert (data, headers) == ((b"", named(content)) if by_reference else (content, None))
    assert await (await ground.bus()).payloads.unpack(data, headers) == content


@pytest.mark.parametrize("size", [CHUNK_BYTES * 3, CHUNK_BYTES * 3 + 1, CHUNK_BYTES * 3 - 1])
async def test_chunks_of_any_last_size_come_back(ground: Ground, size: int) -> None:
    content = body(size)
    packed = await ground.buses[0].payloads.pack(content)
    assert await (await ground.bus()).payloads.unpack(*packed) == content


async def test_any_nats_client_can_read_the_store(ground: Ground) -> None:
    """The layout is ADR-20's: an outside reader of live events fetches what they name with its own library."""
    content = body(600_000)
    _, headers = await ground.buses[0].payloads.pack(content)
    assert headers is not None
    store = await ground.js().object_store(PAYLOADS)
    got = await store.get(headers[HEADER])
    assert (got.data, got.info.size, got.info.chunks) == (content, 600_000, 5)


async def test_any_nats_client_can_write_the_store(ground: Ground) -> None:
    content = body(600_000)
    store = await ground.js().object_store(PAYLOADS)
    await store.put(named(content)[HEADER], content)
    assert await ground.buses[0].payloads.unpack(b"", named(content)) == content


# Written once, for as long as it is named


async def chunks_stored(ground: Ground, content: bytes) -> int:
    _, info = await meta_of(ground.buses[0], content)
    return await ground.stored(STREAM, f"$O.{PAYLOADS}.C.{info['nuid']}")


async def test_the_same_body_is_stored_once(ground: Ground) -> None:
    content, bus = body(400_000), ground.buses[0]
    before = bus.jetstream.publishes
    await bus.payloads.pack(content)
    assert bus.jetstream.publishes == before + 4 + 1
    await bus.payloads.pack(content)
    assert bus.jetstream.publishes == before + 5  # remembered
    other = await ground.bus()
    await other.payloads.pack(content)
    assert other.jetstream.publishes == 0  # looked up


async def test_an_answer_lost_while_storing_damages_nothing(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    content, bus = body(400_000), await ground.bus()
    ask = bus.jetstream.request
    asked = 0

    async def forgetful(*args: object, **more: object) -> object:
        nonlocal asked
        answer = await ask(*args, **more)  # type: ignore[arg-type]  # handed on as it came
        asked += 1
        if asked % 2:
            raise TimeoutError
        return answer

    monkeypatch.setattr(bus.jetstream, "request", forgetful)
    packed = await bus.payloads.pack(content)
    assert await ground.buses[0].payloads.unpack(*packed) == content
    assert await chunks_stored(ground, content) == 4


async def test_ten_writers_of_one_body_leave_it_whole(ground: Ground) -> None:
    content = body(400_000)
    buses = [*ground.buses, *[await ground.bus() for _ in range(3)]]
    packed = await asyncio.gather(*(buses[n % 4].payloads.pack(content) for n in range(10)))
    assert all(one == packed[0] for one in packed)
    assert await (await ground.bus()).payloads.unpack(*packed[0]) == content


async def test_an_old_object_is_stored_anew_for_a_new_message(ground: Ground) -> None:
    """It would age away before the message that names it."""
    content, bus = body(300_000), ground.buses[0]
    await bus.payloads.pack(content)
    where, info = await meta_of(bus, content)
    old = (datetime.now(UTC) - REFRESHED_AFTER - timedelta(seconds=1)).isoformat()
    aged = json.dumps({**info, "mtime": old}).encode()
    await bus.jetstream.publish(where, aged, headers={"Nats-Rollup": "sub"})
    other = await ground.bus()
    packed = await other.payloads.pack(content)
    assert other.jetstream.publishes == 3 + 1
    _, renewed = await meta_of(bus, content)
    assert renewed["nuid"] != info["nuid"]
    assert await (await ground.bus()).payloads.unpack(*packed) == content


# What is not there


async def test_a_payload_that_is_not_there_is_said_by_name(ground: Ground) -> None:
    with pytest.raises(PayloadMissing, match="payload abc is not in the object store 'payloads': it is older than"):
        await ground.buses[0].payloads.unpack(b"", {HEADER: "abc"})


async def test_a_payload_that_was_deleted_is_missing(ground: Ground) -> None:
    content = body(300_000)
    await ground.buses[0].payloads.pack(content)
    await (await ground.js().object_store(PAYLOADS)).delete(named(content)[HEADER])
    with pytest.raises(PayloadMissing):
        await (await ground.bus()).payloads.unpack(b"", named(content))


@pytest.mark.parametrize("lost", ["all", "some"])
async def test_a_payload_that_lost_chunks_is_missing_and_said_soon(ground: Ground, lost: str) -> None:
    """Chunks are a moment older than the word that they are there, so they age away first."""
    content, bus = body(500_000), ground.buses[0]
    await bus.payloads.pack(content)
    _, info = await meta_of(bus, content)
    chunks = f"$O.{PAYLOADS}.C.{info['nuid']}"
    last = await bus.jetstream.last(STREAM, chunks)
    assert last is not None
    await bus.jetstream.purge(STREAM, chunks, below=None if lost == "all" else last.seq)
    began = time.monotonic()
    with pytest.raises(PayloadMissing):
        await (await ground.bus()).payloads.unpack(b"", named(content))
    assert time.monotonic() - began < 15, "and not when patience is over"


async def test_a_payload_with_other_content_is_refused(ground: Ground) -> None:
    """Also when whoever changed it changed its description with it: the message says the digest."""
    content, other, bus = body(300_000), body(300_000), ground.buses[0]
    await bus.payloads.pack(content)
    await bus.payloads.pack(other)
    where, _ = await meta_of(bus, content)
    _, forged = await meta_of(bus, other)
    await bus.jetstream.publish(where, json.dumps(forged).encode(), headers={"Nats-Rollup": "sub"})
    with pytest.raises(PayloadCorrupt, match="has another digest"):
        await (await ground.bus()).payloads.unpack(b"", named(content))
    assert issubclass(PayloadCorrupt, PayloadMissing)  # whoever deals with the one deals with the other


async def test_what_is_remembered_is_bounded(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = 2_400_000
    monkeypatch.setattr("shared.bus.payloads.CACHE_BYTES", bound)
    payloads = Payloads(ground.buses[0].jetstream)
    bodies = [body(bound // 8 + 1) for _ in range(9)]
    for content in bodies:
        await payloads.pack(content)
    assert payloads._cached_bytes <= bound
    assert len(payloads._cache) == 7
    assert await payloads.unpack(b"", named(bodies[0])) == bodies[0]  # read again
    assert payloads._cached_bytes <= bound
    huge = body(bound // 2 + 1)
    assert await payloads.unpack(*await payloads.pack(huge)) == huge  # not worth all the others
    assert len(payloads._cache) == 7
