"""How keys are written and known."""

import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.access import letters

SECRET, OTHER = b"one secret that is long enough, say", b"another secret that is long enough"
CHANCES = st.binary(min_size=letters.CHANCE_BYTES, max_size=letters.CHANCE_BYTES)


@settings(deadline=None)
@given(CHANCES)
def test_a_key_is_known_by_its_maker_and_nobody_else(chance: bytes) -> None:
    made = letters.make(chance, SECRET)
    assert letters.id_of(made.text) == made.id
    assert letters.is_ours(made.id, [OTHER, SECRET])
    assert not letters.is_ours(made.id, [OTHER])
    assert letters.matches(made.text, made.digest, [OTHER, SECRET])
    assert not letters.matches(made.text, made.digest, [OTHER])
    assert made.text.endswith(made.last4)


@settings(deadline=None)
@given(CHANCES, st.integers(0, 59), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567_-."))
def test_a_letter_that_is_wrong_is_noticed_by_anybody(chance: bytes, place: int, letter: str) -> None:
    """A mistyped key is known for one without asking."""
    text = letters.make(chance, SECRET).text
    place %= len(text)
    if text[place] != letter:
        assert letters.id_of(text[:place] + letter + text[place + 1 :]) is None


@pytest.mark.parametrize("text", ["", "sgk_", "sgk__", "sk-abc", "sgk_" + "a" * 16 + "_", "\n"])
def test_what_is_no_key_is_known_for_none(text: str) -> None:
    assert letters.id_of(text) is None


def test_a_key_that_was_cut_or_has_more_behind_it_is_none() -> None:
    text = letters.make(secrets.token_bytes(letters.CHANCE_BYTES), SECRET).text
    for wrong in (text[:-1], text + "a", text + "\n", f" {text}"):
        assert letters.id_of(wrong) is None


def test_a_rotated_key_has_its_id_and_another_secret() -> None:
    old = letters.make(b"a" * letters.CHANCE_BYTES, SECRET)
    new = letters.make(b"b" * letters.CHANCE_BYTES, SECRET, id=old.id)
    assert (new.id, letters.id_of(new.text)) == (old.id, old.id)
    assert new.text != old.text
    assert not letters.matches(old.text, new.digest, [SECRET])
