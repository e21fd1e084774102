"""What every request meets first: the cap on bodies, the form, ids, the places for waiting."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from services.gateway.bounds import Bounds
from services.gateway.http import bodies, body_cap
from shared.config.errors import ConfigInvalid
from tests.conftest import eventually
from tests.gateway.conftest import Stage
from tests.gateway.test_chat import queued

CAP = 100_000
JSON = {"Content-Type": "application/json"}


def message(characters: int) -> bytes:
    return json.dumps({"message": "x" * characters}).encode()


async def in_pieces(body: bytes, size: int = 10_000) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def test_a_body_over_the_cap_is_refused_by_its_length(stage: Stage) -> None:
    """413 with the bound, before any of it is parsed; the connection is not used again."""
    async with stage(takes=False, body_bytes=CAP) as (http, backstage):
        for path in ("/chat", "/workflow", "/template/report", "/nowhere"):
            answer = await http.post(path, content=message(2 * CAP), headers=JSON)
            assert answer.status_code == 413
            assert "100,000 bytes" in answer.json()["detail"]
            assert answer.headers["connection"] == "close"
            assert answer.headers["x-request-id"]
        assert await queued(backstage, 0)


async def test_a_body_over_the_cap_is_refused_as_it_comes_in(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a length in its head the bytes are counted; who still sends is let finish, and reads the answer."""
    monkeypatch.setattr(body_cap, "LINGER_S", 20.0)
    async with stage(takes=False, body_bytes=CAP) as (http, backstage):
        answer = await http.post("/chat", content=in_pieces(message(20 * CAP)), headers=JSON)
        assert answer.status_code == 413
        assert "100,000 bytes" in answer.json()["detail"]
        assert answer.headers["connection"] == "close"
        assert await queued(backstage, 0)


async def test_a_body_that_lies_about_its_length_is_cut_by_the_server(stage: Stage) -> None:
    """A caller that waits for a word before it sends is answered without one."""
    async with stage(takes=False, body_bytes=CAP) as (http, _):
        host, port = http.base_url.host, http.base_url.port
        reader, writer = await asyncio.open_connection(host, port)
        head = f"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {CAP + 1}\r\n"
        writer.write(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 413")
        rest = await reader.read()  # until the connection is closed
        assert b"SEGUE_MAX_BODY_BYTES" in rest
        writer.close()


async def test_a_body_up_to_the_cap_is_taken(stage: Stage) -> None:
    exactly = message(CAP - len(message(0)))
    assert len(exactly) == CAP
    async with stage(body_bytes=CAP) as (http, _):
        assert (await http.post("/chat", content=exactly, headers=JSON)).status_code == 200
        assert (await http.post("/chat", content=in_pieces(exactly), headers=JSON)).status_code == 200


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_body"),
        (b"  \n", "empty_body"),
        (b'{"message": "x"', "json_invalid"),
        (b'{"message": "x"} {}', "json_invalid"),
        (b"\xff\xfe", "json_invalid"),
        (b'{"message": "\\ud800"}', "json_invalid"),
        (b"[" * 100_000, "json_invalid"),
    ],
)
@pytest.mark.parametrize("path", ["/chat", "/workflow", "/template/report"])
async def test_a_body_that_is_no_json_is_refused(stage: Stage, path: str, content: bytes, code: str) -> None:
    async with stage(takes=False) as (http, _):
        answer = await http.post(path, content=content, headers=JSON)
        assert answer.status_code == 422
        assert [(one["path"], one["code"]) for one in answer.json()["detail"]] == [("$", code)]


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_a_body_has_to_say_that_it_is_json(stage: Stage, kind: str | None) -> None:
    """A web page of somebody else can send the other kinds without being asked first."""
    async with stage(takes=False) as (http, _):
        headers = {} if kind is None else {"Content-Type": kind}
        answer = await http.post("/chat", content=message(1), headers=headers)
        assert answer.status_code == 415
        assert "application/json" in answer.json()["detail"]


async def test_other_ways_to_say_json_are_understood(stage: Stage) -> None:
    async with stage() as (http, _):
        for kind in ("application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"):
            answer = await http.post("/chat", content=message(1), headers={"Content-Type": kind})
            assert answer.status_code == 200


async def test_a_body_that_never_comes_is_not_waited_for(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_WITHIN_S", 0.1)
    async with stage(takes=False) as (http, _):
        reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
        head = b"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
        writer.write(head + b'{"message"')
        answer = await asyncio.wait_for(reader.read(), 20)  # until the connection is closed
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"did not come" in answer
        writer.close()


async def test_what_is_not_there_is_said_with_a_detail(stage: Stage) -> None:
    async with stage(takes=False) as (http, _):
        unknown = await http.get("/nowhere")
        assert (unknown.status_code, "/docs" in unknown.json()["detail"]) == (404, True)
        wrong = await http.get("/chat")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
        assert "POST" in wrong.json()["detail"]
        assert (await http.delete("/models")).status_code == 405


async def test_a_request_has_an_id(stage: Stage) -> None:
    """The caller's own where it is fit to be logged, else one of ours, in every answer."""
    async with stage() as (http, _):
        for path, headers in (("/health", {}), ("/nowhere", {}), ("/health", {"X-Request-Id": "no spaces please"})):
            answer = await http.get(path, headers=headers)
            assert 8 <= len(answer.headers["x-request-id"]) <= 40
            assert " " not in answer.headers["x-request-id"]
        mine = await http.post("/chat", json={"message": "x"}, headers={"X-Request-Id": "mine-1"})
        assert mine.headers.get_list("x-request-id") == ["mine-1"]


async def test_only_so_many_requests_wait(stage: Stage) -> None:
    """The third is told to come back at once, and gets in when one has been answered."""
    async with stage(waiting=2, takes=False) as (http, backstage):
        waiting = [asyncio.create_task(http.post("/chat", json={"message": "x"})) for _ in range(2)]
        await eventually(lambda: queued(backstage, 2))
        refused = await http.post("/chat", json={"message": "x"})
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert "run_id" not in refused.json()
        await eventually(lambda: healthy(http))
        await backstage.begin()
        await asyncio.gather(*waiting)
        assert (await http.post("/chat", json={"message": "x"})).status_code == 200


async def healthy(http: httpx.AsyncClient) -> bool:
    return (await http.get("/health")).status_code == 200


def test_bounds_are_read_from_the_environment() -> None:
    assert Bounds.read({}) == Bounds(body_bytes=16 * 1024 * 1024, waiting=4_000)
    assert Bounds.read({"SEGUE_MAX_BODY_BYTES": "1000", "SEGUE_MAX_WAITING": " 7 "}) == Bounds(1_000, 7)
    with pytest.raises(ConfigInvalid) as refused:
        Bounds.read({"SEGUE_MAX_BODY_BYTES": "16M", "SEGUE_MAX_WAITING": "0"})
    assert [problem.path for problem in refused.value.problems] == ["SEGUE_MAX_BODY_BYTES", "SEGUE_MAX_WAITING"]
