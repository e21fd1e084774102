"""What goes out is the beginning of the answer, once, or the end says that it is not: whatever gets lost in between."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.http.openai.pieces import Pieces

TEXTS = st.text("abc", max_size=30)


@given(whole=TEXTS, cuts=st.lists(st.integers(0, 30), max_size=5), lost=st.sets(st.integers(0, 6)))
def test_one_attempt_with_pieces_lost(whole: str, cuts: list[int], lost: set[int]) -> None:
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    pieces, out = Pieces(), ""
    for number, (start, end) in enumerate(itertools.pairwise(places)):
        if number not in lost:
            out += pieces.take(1, start, whole[start:end])
            assert whole.startswith(out)
    rest = pieces.rest(whole)
    assert rest is not None
    assert out + rest == whole
    assert pieces.sent_chars == len(whole)


@given(first=TEXTS, second=TEXTS)
def test_an_attempt_that_begins_again(first: str, second: str) -> None:
    """The second's text goes on where it says the same; where it does not, the end says so."""
    pieces = Pieces()
    out = pieces.take(1, 0, first)
    pieces.begin(2)
    for place, letter in enumerate(second):
        out += pieces.take(2, place, letter)
    rest = pieces.rest(second)
    if second.startswith(first):
        assert rest is not None
        assert out + rest == second
    else:
        assert rest is None
        assert out == first


def test_a_late_piece_of_an_earlier_attempt_is_nothing() -> None:
    pieces = Pieces()
    pieces.begin(2)
    assert pieces.take(1, 0, "old") == ""
    assert pieces.take(2, 0, "new") == "new"
