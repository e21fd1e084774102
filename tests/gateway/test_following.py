"""`GET /runs/{id}/events`: whoever comes late, or was cut off, gets each call's text so far and then the rest."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from services.gateway.following import following
from services.gateway.pages import Pages
from shared.contracts.ids import Category
from shared.contracts.message import Run
from shared.transcript import Piece
from tests.conftest import eventually
from tests.gateway.backstage import Backstage, ended, silence
from tests.gateway.conftest import Stage
from tests.gateway.test_stream import QUESTION, Event, events

WHOLE = "Night trains save a hotel night 🛤, and more."


async def begun(http: httpx.AsyncClient, backstage: Backstage) -> Run:
    """Begin a run that nobody goes on with but the test."""
    backstage.script = silence
    before = len(backstage.taken)
    answer = await http.post("/chat", json={"message": "Why by night?", "async": True})
    assert answer.status_code == 202
    await eventually(lambda: accepted(http, answer.json()["run_id"]))
    assert len(backstage.taken) == before + 1
    return backstage.taken[-1].run


async def accepted(http: httpx.AsyncClient, run_id: str) -> bool:
    """Whether a run was taken up: before, it is shown as queued."""
    return bool((await http.get(f"/runs/{run_id}")).json().get("state") == "accepted")


@asynccontextmanager
async def reading(http: httpx.AsyncClient, run: Run, after: int = 0) -> AsyncIterator[AsyncIterator[Event]]:
    async with http.stream("GET", f"/runs/{run.run_id}/events?after={after}") as response:
        assert response.status_code == 200
        yield events(response)


async def until(reader: AsyncIterator[Event], name: str) -> list[Event]:
    """Read up to and with the next event of a name."""
    seen: list[Event] = []
    async with asyncio.timeout(20):
        async for event in reader:
            seen.append(event)
            if event[0] == name:
                return seen
    raise AssertionError(f"the stream ended without {name}: {seen}")


def text_of(seen: list[Event]) -> str:
    """Put the text together as docs say: a restart, and offset 0, begin it anew; all else goes on."""
    text = ""
    for name, data in seen:
        if name == "restart":
            text = ""
        elif name == "token":
            assert data["offset"] in (0, len(text))
            text = text[: data["offset"]] + data["text"]
    return text


async def test_who_comes_in_the_middle_gets_the_text_so_far_and_then_the_rest(stage: Stage) -> None:
    async with stage() as (http, backstage):
        run = await begun(http, backstage)
        await backstage.attempt(run, "0-0")
        asked = await backstage.knows(run, "0-0", 1, WHOLE[:20], most=8)
        async with reading(http, run) as reader:
            seen = await until(reader, "token")
            while text_of(seen) != WHOLE[:20]:
                seen += await until(reader, "token")
            assert [name for name, _ in seen if name not in ("", "token")] == ["accepted", "attempt"]
            assert list(dict.fromkeys(one.offset for one in asked)) == [0, 8, 16], "again only where no answer came"
            await backstage.token(run, "0-0", attempt=1, offset=20, text=WHOLE[20:])
            seen += await until(reader, "token")
            assert text_of(seen) == WHOLE
            await backstage.settle(run, "0-0", WHOLE)
            await backstage.end(ended(run, text=WHOLE))
            rest = [name for name, _ in await until(reader, "done") if name]
            assert rest == ["settled", "ended", "done"], "nothing of the text is told twice"


async def test_who_was_cut_off_gets_the_text_so_far_first_though_its_facts_lie_behind(stage: Stage) -> None:
    async with stage() as (http, backstage):
        run = await begun(http, backstage)
        await backstage.attempt(run, "0-0")
        await backstage.attempt(run, "0-1")
        await backstage.settle(run, "0-1", "over already")
        async with reading(http, run) as reader:
            last = (await until(reader, "settled"))[-1][1]["seq"]
        await backstage.knows(run, "0-0", 1, WHOLE)
        over = await backstage.knows(run, "0-1", 1, "over already")
        async with reading(http, run, after=last) as reader:
            seen = await until(reader, "token")
            assert [event for event in seen if event[0]] == [
                ("token", {"call": "0-0", "attempt": 1, "offset": 0, "text": WHOLE})
            ]
        assert over == [], "what is settled is asked of nobody"


async def test_a_piece_that_is_lost_is_asked_for(stage: Stage) -> None:
    async with stage() as (http, backstage):
        run = await begun(http, backstage)
        async with reading(http, run) as reader:
            await until(reader, "accepted")
            await backstage.attempt(run, "0-0")
            seen = await until(reader, "attempt")
            await backstage.token(run, "0-0", attempt=1, offset=0, text=WHOLE[:5])
            seen += await until(reader, "token")
            asked = await backstage.knows(run, "0-0", 1, WHOLE)
            await backstage.client.flush()
            await backstage.token(run, "0-0", attempt=1, offset=9, text=WHOLE[9:])
            seen += await until(reader, "token")
            assert text_of(seen) == WHOLE
            assert {(one.attempt, one.offset) for one in asked} == {(1, 5)}


async def test_where_nobody_answers_the_log_does(stage: Stage) -> None:
    """The executor died after a lost piece and the text is settled by another: what is missing comes before it."""
    async with stage() as (http, backstage):
        run = await begun(http, backstage)
        async with reading(http, run) as reader:
            await until(reader, "accepted")
            await backstage.attempt(run, "0-0")
            await backstage.attempt(run, "0-1")
            seen = await until(reader, "attempt") + await until(reader, "attempt")
            await backstage.token(run, "0-0", attempt=1, offset=0, text=WHOLE[:5])
            await backstage.token(run, "0-0", attempt=1, offset=9, text=WHOLE[9:])
            await backstage.token(run, "0-1", attempt=1, offset=0, text="half of an ans")
            for _ in range(2):
                seen += await until(reader, "token")
            await backstage.settle(run, "0-0", WHOLE)
            ending = await until(reader, "settled")
            assert [name for name, _ in ending if name] == ["token", "settled"]
            mine = [event for event in [*seen, *ending] if event[1] and event[1].get("call") == "0-0"]
            assert text_of(mine) == WHOLE
            await backstage.settle(run, "0-1", "all of it", attempts=2)
            ending = await until(reader, "settled")
            assert [(name, data) for name, data in ending if name != "settled"] == [
                ("restart", {"call": "0-1", "attempt": 2, "restart": True}),
                ("token", {"call": "0-1", "attempt": 2, "offset": 0, "text": "all of it"}),
            ]


async def test_what_is_large_is_made_whole_from_where_it_lies(stage: Stage) -> None:
    """A text over the bus's size is settled by reference: a reader that lacks a part of it gets it all the same."""
    large = "0123456789" * 40_000
    async with stage() as (http, backstage):
        run = await begun(http, backstage)
        async with reading(http, run) as reader:
            await until(reader, "accepted")
            await backstage.attempt(run, "0-0")
            await until(reader, "attempt")
            await backstage.token(run, "0-0", attempt=1, offset=0, text=large[:100])
            seen = await until(reader, "token")
            await backstage.settle(run, "0-0", large)
            seen += await until(reader, "settled")
            assert text_of(seen) == large
            assert seen[-1][1]["data"]["text_chars"] == len(large)


async def test_a_reader_that_does_not_read_keeps_little_and_catches_up(stage: Stage) -> None:
    """Four megabytes of pieces and 300 facts pass by: it keeps a bounded part, then asks, and has everything once."""
    piece, count = "x" * 4_000, 1_000
    async with stage() as (_, backstage):
        run = Run.model_validate({"run_id": "r1", "tenant": "default", **times()})
        await backstage.attempt(run, "0-0")
        await backstage.knows(run, "0-0", 1, piece * count, most=100_000)
        async with following(Pages(backstage.bus), "default", "r1", tokens=True) as there:
            batches = there.batches()
            seen = [one for one in await anext(batches)]
            await anext(batches)
            for number in range(count):
                await backstage.token(run, "0-0", attempt=1, offset=number * len(piece), text=piece)
                if number % 10 == 0:
                    await backstage.attempt(run, f"1-{number}")
            await backstage.client.flush()
            assert there.ear._bytes <= 512 * 1024
            told, facts = 0, len(seen)
            async with asyncio.timeout(20):
                async for batch in batches:
                    for one in batch:
                        if hasattr(one, "told"):
                            assert isinstance(one.told, Piece)
                            assert one.told.offset == told
                            told += len(one.told.text)
                        else:
                            facts += 1
                    if told == len(piece) * count and facts == 1 + count // 10:
                        break
            await batches.aclose()  # type: ignore[attr-defined]


def times() -> dict[str, Any]:
    return {"born_at": "2026-11-01T12:00:00Z", "deadline_at": "2036-11-01T12:00:00Z"}


async def test_a_repeated_streaming_request_joins_in_the_middle(stage: Stage) -> None:
    """`POST /chat` with the same Idempotency-Key while it is answered: what is there so far, then the rest."""
    async with stage() as (http, backstage):
        backstage.script = silence
        key = {"Idempotency-Key": "twice"}
        async with http.stream("POST", "/chat", json=QUESTION, headers=key) as first:
            assert (await anext(events(first)))[0] == "accepted"
        await eventually(lambda: accepted(http, first.headers["x-segue-run-id"]))
        run = backstage.taken[0].run
        await backstage.categorize(run, Category.M)
        await backstage.attempt(run, "answer")
        await backstage.knows(run, "answer", 1, WHOLE[:12])
        async with http.stream("POST", "/chat", json=QUESTION, headers=key) as second:
            reader = events(second)
            seen = await until(reader, "token")
            assert [name for name, _ in seen] == ["accepted", "category", "token"]
            await backstage.token(run, "answer", attempt=1, offset=12, text=WHOLE[12:])
            seen += await until(reader, "token")
            assert text_of(seen) == WHOLE
            await backstage.end(ended(run, text=WHOLE))
            assert [name for name, _ in await until(reader, "done") if name] == ["answer", "done"]
