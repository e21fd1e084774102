"""The adapter for OpenAI-compatible servers, over real sockets: whatever the wire does becomes a value."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.executor.providers import Answered, Asked, Failed, wire
from services.executor.providers.openai_chat import OpenAiChat
from shared.bus.server import free_port
from tests.conftest import eventually
from tests.executor.conftest import call, route
from tests.executor.standin import (
    DONE,
    Reply,
    Standin,
    answer,
    delta,
    hang,
    hang_up,
    raw,
    refuse,
    streamed,
    text_stream,
)


@pytest.fixture
async def provider() -> AsyncIterator[Standin]:
    async with Standin() as standin:
        yield standin


@pytest.fixture
async def chat() -> AsyncIterator[OpenAiChat]:
    adapter = OpenAiChat()
    yield adapter
    await adapter.close()


async def ask(
    chat: OpenAiChat,
    provider: Standin,
    *,
    stream: bool = False,
    budget_s: float = 10.0,
    heard: list[str] | None = None,
    url: str | None = None,
    **fields: Any,
) -> Answered | Failed:
    texts = heard if heard is not None else []

    async def on_delta(text: str) -> None:
        texts.append(text)

    to = route("medium_ai", url or provider.url)
    return await chat.ask(
        Asked(call(**fields), 1), to, budget_s=budget_s, on_delta=on_delta if stream or heard is not None else None
    )


async def failure(chat: OpenAiChat, provider: Standin, reply: Reply, **fields: Any) -> Failed:
    provider.then(reply)
    outcome = await ask(chat, provider, **fields)
    assert isinstance(outcome, Failed), outcome
    return outcome


@pytest.mark.parametrize("stream", [False, True])
async def test_silence_is_cut_off_when_the_budget_is_used_up(chat: OpenAiChat, provider: Standin, stream: bool) -> None:
    """The connection is closed, so that the provider can stop too."""
    failed = await failure(chat, provider, hang, budget_s=0.5, stream=stream)
    assert (failed.verdict.code, failed.cost_usd) == ("timeout", None)
    assert failed.message == "no complete answer within 0.5 s"
    await eventually(lambda: provider.aborted == 1)


async def test_a_slow_drip_does_not_outlive_the_budget(chat: OpenAiChat, provider: Standin) -> None:
    """Each piece is in time, all together are not."""
    reply = streamed(*(delta(str(i)) for i in range(1000)), pause_s=0.02)
    heard: list[str] = []
    failed = await failure(chat, provider, reply, budget_s=4.0, heard=heard)
    assert failed.verdict.code == "timeout"
    assert 3 < len(heard) < 250


async def test_a_stream_that_falls_silent_is_given_up(
    chat: OpenAiChat, provider: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before its budget is used up."""
    monkeypatch.setattr("services.executor.providers.openai_chat.STREAM_SILENCE_S", 3.5)
    failed = await failure(chat, provider, streamed(delta("a"), then=hang), stream=True, budget_s=60.0)
    assert (failed.verdict.code, failed.text_sent, failed.cost_usd) == ("silence", True, None)


async def test_connections_that_break(chat: OpenAiChat, provider: Standin) -> None:
    """Before the answer, in the middle of it, in the middle of a stream: three different things."""
    failed = await failure(chat, provider, hang_up)
    assert (failed.verdict.code, failed.cost_usd) == ("connection_lost", None)

    async def half(writer: asyncio.StreamWriter) -> None:
        await raw(200, b'{"choi', {"content-length": "1000"})(writer)
        await writer.drain()
        writer.close()

    failed = await failure(chat, provider, half)
    assert (failed.verdict.code, failed.cost_usd) == ("connection_lost", None)
    failed = await failure(chat, provider, streamed(delta("a"), end=False), stream=True)
    assert (failed.verdict.code, failed.text_sent) == ("stream_cut", True)
    failed = await failure(chat, provider, streamed(delta("a")), stream=True)
    assert (failed.verdict.code, failed.text_sent) == ("stream_cut", True)


async def test_nobody_there(chat: OpenAiChat, provider: Standin) -> None:
    """Refused connections and unknown hosts cost nothing."""
    for url in (f"http://127.0.0.1:{free_port()}/v1", "http://no-such-host.invalid/v1"):
        outcome = await ask(chat, provider, url=url)
        assert isinstance(outcome, Failed)
        assert (outcome.verdict.code, outcome.cost_usd) == ("unreachable", 0.0)


async def test_no_secure_connection(chat: OpenAiChat, provider: Standin) -> None:
    """A server that does not speak TLS: a person has to act."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)  # what is left unread when it closes could reset the connection before its answer is read
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        outcome = await ask(chat, provider, url=f"https://127.0.0.1:{port}/v1")
    assert isinstance(outcome, Failed)
    assert (outcome.verdict.type, outcome.verdict.code) == ("persistent", "tls_failed")


async def test_what_is_not_http(chat: OpenAiChat, provider: Standin) -> None:
    async def garbage(writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00\x01\x02 hello\r\n\r\n")
        writer.close()

    failed = await failure(chat, provider, garbage)
    assert failed.verdict.code == "malformed_answer"


async def test_a_redirect_is_not_followed(chat: OpenAiChat, provider: Standin) -> None:
    """A key is never carried to where a server points."""
    failed = await failure(chat, provider, raw(307, b"", {"location": f"{provider.url}/elsewhere"}))
    assert (failed.verdict.code, len(provider.seen)) == ("unexpected_redirect", 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_huge_bodies_are_not_read(chat: OpenAiChat, provider: Standin, stream: bool) -> None:
    """Announced: nothing is read. Not announced: no more than the bound."""
    failed = await failure(chat, provider, raw(200, b"{", {"content-length": str(1 << 40)}), stream=stream)
    assert failed.verdict.code == "oversized_answer"
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        kind = b"text/event-stream" if stream else b"application/json"
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: " + kind + b"\r\nconnection: close\r\n\r\n")
        while True:
            writer.write(b"data: {}\n\n" * 10_000)
            sent += 100_000
            await writer.drain()

    failed = await failure(chat, provider, endless, stream=stream, budget_s=60.0)
    assert failed.verdict.code == "oversized_answer"
    assert sent < 2 * wire.MAX_BODY_BYTES
    await eventually(lambda: provider.aborted >= 1)


async def test_a_compressed_answer_is_not_unpacked(chat: OpenAiChat, provider: Standin) -> None:
    """It was asked for plain; what unpacks to gigabytes stays packed."""
    failed = await failure(chat, provider, raw(200, b"\x1f\x8b", {"content-encoding": "gzip"}))
    assert failed.verdict.code == "malformed_answer"
    assert provider.seen[0].headers["accept-encoding"] == "identity"


async def test_cancelling_aborts_the_request(chat: OpenAiChat, provider: Standin) -> None:
    provider.then(streamed(delta("a"), then=hang))
    task = asyncio.create_task(ask(chat, provider, stream=True))
    await provider.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: provider.aborted == 1)


async def test_one_connection_serves_many_answers(
    chat: OpenAiChat, provider: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole ones, streamed ones and errors, one after the other; no cookie is ever kept."""
    monkeypatch.setattr("services.executor.providers.openai_chat.READ_OFF_WITHIN_S", 30.0)  # else it is a new one
    provider.then(
        answer(), text_stream("a", "b"), refuse(500), text_stream("c"), raw(200, b"x", {"set-cookie": "a=1"}), answer()
    )
    for stream in (False, True, False, True, False, False):
        await ask(chat, provider, stream=stream)
    assert provider.connections == 1
    assert all("cookie" not in seen.headers for seen in provider.seen)


async def test_no_proxy_from_the_environment(
    chat: OpenAiChat, provider: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    assert isinstance(await ask(chat, provider), Answered)


async def test_text_goes_out_as_it_comes_in(chat: OpenAiChat, provider: Standin) -> None:
    """Each piece is handed on before the next is sent."""
    heard: list[str] = []

    async def step_by_step(writer: asyncio.StreamWriter) -> None:
        for number in range(3):
            piece = delta(f"{number} ")
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await eventually(lambda number=number: len(heard) == number + 1)  # type: ignore[misc]  # bound per loop
        writer.write(b"%x\r\n%s\r\n" % (len(DONE), DONE))

    provider.then(streamed(then=step_by_step))
    outcome = await ask(chat, provider, heard=heard)
    assert isinstance(outcome, Answered)
    assert (outcome.text, heard) == ("0 1 2 ", ["0 ", "1 ", "2 "])


async def test_a_server_that_cannot_stream_answers_in_one_piece(chat: OpenAiChat, provider: Standin) -> None:
    heard: list[str] = []
    provider.then(answer("whole"))
    outcome = await ask(chat, provider, heard=heard)
    assert isinstance(outcome, Answered)
    assert heard == ["whole"]


async def test_a_refused_parameter_is_left_out_at_once_and_from_then_on(chat: OpenAiChat, provider: Standin) -> None:
    """One refusal a parameter and model; every call after that goes without it."""
    provider.then(
        refuse(400, "response_format is not supported"), refuse(400, "Unknown parameter: stream_options"),
        text_stream("a"), text_stream("b"),
    )  # fmt: skip
    schema = {"type": "object"}
    assert isinstance(await ask(chat, provider, stream=True, response_schema=schema), Answered)
    assert isinstance(await ask(chat, provider, stream=True, response_schema=schema), Answered)
    has = [(("response_format" in seen.body), ("stream_options" in seen.body)) for seen in provider.seen]
    assert has == [(True, True), (False, True), (False, False), (False, False)]


async def test_one_bad_schema_does_not_end_structured_answers(chat: OpenAiChat, provider: Standin) -> None:
    """The refused schema is left out this once; the next call asks for its own."""
    provider.then(refuse(400, "Invalid schema for response_format 'answer'"), answer(), answer())
    for _ in range(2):
        assert isinstance(await ask(chat, provider, response_schema={"type": "object"}), Answered)
    assert [("response_format" in seen.body) for seen in provider.seen] == [True, False, True]


async def test_a_server_that_refuses_everything_is_not_asked_for_ever(chat: OpenAiChat, provider: Standin) -> None:
    provider.default = refuse(400, "Unknown parameters: temperature, max_tokens, response_format, a, b, c")
    outcome = await ask(chat, provider, response_schema={"type": "object"})
    assert isinstance(outcome, Failed)
    assert len(provider.seen) == 4


async def test_the_key_is_not_in_the_message(chat: OpenAiChat, provider: Standin) -> None:
    failed = await failure(chat, provider, refuse(401, "Incorrect API key provided: sk-secret-key"))
    assert failed.message == "Incorrect API key provided: ***"


async def test_a_real_provider_learns_nothing_about_runs(chat: OpenAiChat, provider: Standin) -> None:
    """The headers that name run, call and attempt go to a simulator only."""
    to = route("medium_ai", provider.url, simulated=False)
    await chat.ask(Asked(call(), 1), to, budget_s=5, on_delta=None)
    assert not [name for name in provider.seen[0].headers if name.startswith("x-segue")]
