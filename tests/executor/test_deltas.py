"""What an executor says a text is so far, to whoever asks."""

from datetime import UTC, datetime

import pytest
from nats.aio.client import Client

from services.executor import deltas
from services.executor.deltas import SLICE_CHARS, Streams
from shared import subjects
from shared.contracts.commands import ExecuteCall
from shared.contracts.events import AttemptStarted
from shared.contracts.hints import AskText, TextSoFar
from shared.transcript import Piece, Restart, Transcript
from tests.executor.conftest import call

UNCONNECTED = Client()
"""What it publishes goes nowhere: this is about what it answers."""


def attempt(command: ExecuteCall, number: int = 1) -> AttemptStarted:
    return AttemptStarted(
        run=command.run,
        call=command.call,
        attempt=number,
        role="medium_ai",
        provider="openrouter",
        model="vendor/medium_ai",
        claimed_by="a.b",
        started_at=datetime.now(UTC),
    )


def ask(streams: Streams, command: ExecuteCall, attempt: int = 0, offset: int = 0) -> TextSoFar | None:
    subject = subjects.sofar(command.run.tenant, command.run.run_id, command.call)
    said = streams.asked(subject, AskText(attempt=attempt, offset=offset).encode())
    return None if said is None else TextSoFar.decode(said)


async def test_who_asks_gets_what_it_lacks() -> None:
    command, streams = call(stream=True), Streams()
    assert ask(streams, command) is None, "nobody streams it yet"
    stream = streams.open(UNCONNECTED, command, attempt(command))
    there = ask(streams, command)
    assert there is not None
    assert (there.attempt, there.text, there.end) == (1, "", 0)
    for text in ("night ", "🎈 ", "train"):
        await stream.send(text)
    for offset, expected in ((0, "night 🎈 train"), (6, "🎈 train"), (8, "train"), (13, ""), (99, "")):
        there = ask(streams, command, 1, offset)
        assert there is not None
        assert (there.text, there.end) == (expected, 13)
    other = ask(streams, command, 7, 5)
    assert other is not None
    assert (other.attempt, other.offset, other.text) == (1, 0, "night 🎈 train")
    assert ask(streams, call(stream=True)) is None
    streams.close(command, stream)
    assert ask(streams, command) is None


async def test_an_attempt_that_ends_late_does_not_close_the_next_one() -> None:
    command, streams = call(stream=True), Streams()
    first = streams.open(UNCONNECTED, command, attempt(command))
    second = streams.open(UNCONNECTED, command, attempt(command, 2))
    await second.begin()
    await second.send("again")
    streams.close(command, first)
    there = ask(streams, command, 1, 3)
    assert there is not None
    assert (there.attempt, there.offset, there.text) == (2, 0, "again")


async def test_a_long_text_comes_in_slices_until_the_listener_has_it() -> None:
    command, streams = call(stream=True), Streams()
    stream = streams.open(UNCONNECTED, command, attempt(command))
    whole = "0123456789" * (SLICE_CHARS // 4)
    for at in range(0, len(whole), 1_000):
        await stream.send(whole[at : at + 1_000])
    listener, text = Transcript(), ""
    listener.doubt()
    while listener.behind:
        there = ask(streams, command, listener.attempt, listener.told)
        assert there is not None
        assert len(there.encode()) < 256 * 1024
        for told in listener.answer(there.attempt, there.offset, there.text, there.end):
            assert not isinstance(told, Restart)
            text += told.text
    assert text == whole


async def test_what_is_kept_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a longer text the beginning can be had; that there is more is said."""
    monkeypatch.setattr(deltas, "KEPT_CHARS", 10)
    command, streams = call(stream=True), Streams()
    stream = streams.open(UNCONNECTED, command, attempt(command))
    for _ in range(5):
        await stream.send("12345")
    there = ask(streams, command)
    assert there is not None
    assert (there.text, there.end) == ("1234512345", 25)
    listener = Transcript()
    assert listener.answer(there.attempt, there.offset, there.text, there.end) == [Piece(1, 0, "1234512345")]
    assert listener.behind
    assert listener.settle("12345" * 5) == [Piece(1, 10, "123451234512345")]
