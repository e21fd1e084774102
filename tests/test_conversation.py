"""What a model gets to read: as much of the session as fits, and always the whole message."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.contracts.events import Session, Turn
from shared.contracts.message import ChatMessage
from shared.conversation import (
    IMAGE_TOKENS,
    MESSAGE_TOKENS,
    conversation,
    estimated_tokens,
    fitting,
    history_of,
    system_prompt,
    tokens_of,
    user_message,
)
from tests.contracts.strategies import CHAT_MESSAGES

NOW = datetime(2026, 11, 1, tzinfo=UTC)
HISTORIES = st.lists(CHAT_MESSAGES, max_size=12).map(tuple)
BUDGETS = st.integers(-10, 200)
calm = settings(deadline=None)


def user(text: str) -> ChatMessage:
    return ChatMessage(role="user", content=text)


def assistant(text: str) -> ChatMessage:
    return ChatMessage(role="assistant", content=text)


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("ä" * 8, 2)])
def test_tokens_of_a_text_are_rounded_up(text: str, tokens: int) -> None:
    assert estimated_tokens(text) == tokens


def test_tokens_of_a_message() -> None:
    assert tokens_of(user("")) == MESSAGE_TOKENS
    assert tokens_of(user("abcdefgh")) == MESSAGE_TOKENS + 2
    seen = user_message("abcdefgh", ["https://example.org/a.png", "data:image/png;base64," + "A" * 1_000_000])
    assert tokens_of(seen) == MESSAGE_TOKENS + 2 + 2 * IMAGE_TOKENS
    odd = ChatMessage(role="user", content=[{"type": "sound"}, {"type": "text", "text": 7}, {}])
    assert tokens_of(odd) == MESSAGE_TOKENS


def test_a_message_without_images_is_plain_text() -> None:
    assert user_message("hi") == user("hi")
    assert user_message("", ()) == user("")


def test_no_session_is_no_history() -> None:
    assert history_of(None) == ()
    assert history_of(Session(created_at=NOW)) == ()


def test_history_is_in_order_and_without_gaps() -> None:
    turns = (
        Turn(run_id="a", user=user("1"), assistant=assistant("2"), asked_at=NOW, answered_at=NOW),
        Turn(run_id="b", user=user("3"), asked_at=NOW, answered_at=NOW),
        Turn(run_id="c", user=user("4"), assistant=assistant("5"), asked_at=NOW, answered_at=NOW),
    )
    said = [message.content for message in history_of(Session(created_at=NOW, turns=turns))]
    assert said == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("budget", "kept"),
    [(-1, []), (0, []), (4, []), (5, []), (9, []), (10, ["c", "d"]), (14, ["c", "d"]), (20, ["a", "b", "c", "d"])],
)
def test_the_latest_whole_turns_that_fit_are_kept(budget: int, kept: list[str]) -> None:
    """Five tokens each: an answer whose question does not fit is left out too."""
    history = (user("a"), assistant("b"), user("c"), assistant("d"))
    assert [message.content for message in fitting(history, budget)] == kept


@calm
@given(history=HISTORIES, budget=BUDGETS)
def test_what_fits_is_the_end_of_the_history_from_a_question_on(history: tuple[ChatMessage, ...], budget: int) -> None:
    kept = fitting(history, budget)
    assert kept == history[len(history) - len(kept) :]
    assert sum(map(tokens_of, kept)) <= max(budget, 0)
    if kept:
        assert kept[0].role == "user"
    # nothing that begins with a question and would still fit was left out
    for first in range(len(history) - len(kept)):
        if history[first].role == "user":
            assert sum(map(tokens_of, history[first:])) > budget


@calm
@given(history=HISTORIES, message=CHAT_MESSAGES, window=st.integers(0, 300), system=st.text(max_size=40))
def test_a_conversation_is_within_the_window_as_far_as_its_message_allows(
    history: tuple[ChatMessage, ...], message: ChatMessage, window: int, system: str
) -> None:
    whole = conversation(system, history, message, window_tokens=window, answer_tokens=50)
    assert whole[-1] == message
    assert (whole[0].role, whole[0].content) == ("system", system) if system else True
    kept = whole[1:-1] if system else whole[:-1]
    if kept:
        assert sum(map(tokens_of, whole)) + 50 <= window


def test_a_conversation_without_a_system_prompt_has_none() -> None:
    assert conversation("", (), user("hi"), window_tokens=100, answer_tokens=10) == (user("hi"),)


TEXTS = {"seo": "Write for search.", "story": "Tell a story."}


@pytest.mark.parametrize(
    ("role_prompt", "addons", "prompt"),
    [
        ("Be kind.", (), "Be kind."),
        ("Be kind.", ("story", "seo"), "Be kind.\n\nTell a story.\n\nWrite for search."),
        ("", ("seo",), "Write for search."),
        ("", (), ""),
        ("Be kind.", ("gone",), "Be kind."),
    ],
)
def test_addons_stand_below_the_roles_prompt_in_their_order(
    role_prompt: str, addons: tuple[str, ...], prompt: str
) -> None:
    assert system_prompt(role_prompt, addons, TEXTS) == prompt
