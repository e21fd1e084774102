"""A call's text as a listener puts it together: in order, no gap, no duplicate, whatever happens to the hints."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from services.executor.deltas import SLICE_CHARS
from shared.transcript import Piece, Restart, Told, Transcript

WORDS = st.text("abc ä漢🎈", min_size=1, max_size=6)
ATTEMPTS = st.lists(st.lists(WORDS, min_size=1, max_size=8), min_size=1, max_size=4)
"""What each attempt streams, piece by piece; the last one is the answer."""


def flip(data: st.DataObject, what: str) -> bool:
    return bool(data.draw(st.booleans(), what))


class Reader:
    """Somebody who is told: holds the text, and checks that every piece goes on where the last one ended."""

    def __init__(self) -> None:
        self.attempt, self.text, self.told = 0, "", False

    def hear(self, told: Sequence[Told]) -> None:
        for one in told:
            match one:
                case Restart():
                    assert one.attempt >= self.attempt
                    self.attempt, self.text = one.attempt, ""
                case Piece():
                    assert one.text, "an empty piece says nothing"
                    assert one.offset == len(self.text), "neither a gap nor a duplicate"
                    assert one.attempt >= self.attempt
                    assert one.attempt == self.attempt or one.offset == 0
                    self.attempt, self.text, self.told = one.attempt, self.text + one.text, True


def test_what_comes_in_order_is_told_as_it_comes() -> None:
    transcript = Transcript()
    assert transcript.take(1, 0, "night ") == [Piece(1, 0, "night ")]
    assert transcript.take(1, 6, "train") == [Piece(1, 6, "train")]
    assert transcript.take(1, 6, "train") == []
    assert not transcript.behind


def test_a_gap_is_seen_and_filled_by_who_streams() -> None:
    transcript = Transcript()
    transcript.take(1, 0, "a")
    assert transcript.take(1, 2, "c") == []
    assert transcript.behind
    assert transcript.answer(1, 1, "bcd", 4) == [Piece(1, 1, "bcd")]
    assert transcript.take(1, 3, "d") == []
    assert not transcript.behind


def test_who_comes_late_gets_the_text_so_far_then_the_rest() -> None:
    """The answer may come before, between or behind the pieces that go on."""
    transcript = Transcript()
    transcript.doubt()
    assert transcript.take(1, 7, "h") == []
    assert transcript.answer(1, 0, "abcdefg", 7) == [Piece(1, 0, "abcdefg")]
    assert transcript.behind, "more was heard than is told: ask again"
    assert transcript.answer(1, 7, "hi", 9) == [Piece(1, 7, "hi")]
    assert not transcript.behind


def test_a_later_attempt_begins_anew_even_when_nobody_announced_it() -> None:
    transcript = Transcript()
    transcript.take(1, 0, "half an ans")
    assert transcript.take(2, 0, "all") == [Restart(2), Piece(2, 0, "all")]
    assert transcript.restart(2) == []
    assert transcript.take(1, 11, "wer") == [], "the executor that lost the call says nothing any more"
    assert transcript.restart(3) == [Restart(3)]


def test_the_log_has_the_last_word() -> None:
    """It fills what is missing; where something else was told the text begins anew; where nothing was, it says it."""
    missing = Transcript()
    missing.take(1, 0, "night ")
    assert missing.settle("night train") == [Piece(1, 6, "train")]
    other = Transcript()
    other.take(1, 0, "half")
    assert other.settle("all of it", attempts=2) == [Restart(2), Piece(2, 0, "all of it")]
    failed = Transcript()
    failed.take(1, 0, "half")
    assert failed.settle(None) == []
    assert Transcript().settle("from the cache") == []
    for transcript in (missing, other, failed):
        assert transcript.take(9, 0, "late") == []
        assert transcript.restart(9) == []
        assert not transcript.behind


@settings(max_examples=400, deadline=None)
@given(attempts=ATTEMPTS, data=st.data())
def test_whatever_is_lost_repeated_or_late_the_text_is_a_prefix_and_in_the_end_the_answer(
    attempts: list[list[str]], data: st.DataObject
) -> None:
    """Deltas are dropped, doubled and reordered, executors die, asks go unanswered or are answered late."""
    transcript, reader = Transcript(), Reader()
    texts = ["".join(pieces) for pieces in attempts]
    late: list[tuple[int, int, str]] = []
    for number, pieces in enumerate(attempts, 1):
        if number > 1 and flip(data, "announced"):
            reader.hear(transcript.restart(number))
        offset = 0
        for text in pieces:
            delta = (number, offset, text)
            offset += len(text)
            match data.draw(st.sampled_from(["heard", "lost", "late", "twice"]), "delta"):
                case "heard":
                    reader.hear(transcript.take(*delta))
                case "late":
                    late.append(delta)
                case "twice":
                    reader.hear(transcript.take(*delta))
                    late.append(delta)
            if late and flip(data, "late comes"):
                reader.hear(transcript.take(*late.pop(data.draw(st.integers(0, len(late) - 1)))))
            if flip(data, "asks"):
                transcript.doubt()
                at = transcript.told if transcript.attempt == number else 0
                some = data.draw(st.integers(1, SLICE_CHARS), "slice")
                reader.hear(transcript.answer(number, at, texts[number - 1][at:offset][:some], offset))
            assert reader.attempt == 0 or texts[reader.attempt - 1].startswith(reader.text)
    while transcript.attempt == len(attempts) and transcript.behind and flip(data, "catches up"):
        reader.hear(
            transcript.answer(transcript.attempt, transcript.told, texts[-1][transcript.told :], len(texts[-1]))
        )
        assert reader.text == texts[-1]
    reader.hear(transcript.settle(texts[-1], len(attempts)))
    if reader.told:
        assert reader.text == texts[-1]
    assert not transcript.behind
