"""What a model gets to read: system prompt, addons, the session as far as it fits, the message. Pure."""

from collections.abc import Mapping, Sequence

from shared.contracts.events import Session
from shared.contracts.message import ChatMessage

CHARS_PER_TOKEN = 4
"""English prose lies between 3.8 and 4.5 in the vocabularies of 2026; code and other languages lower."""
IMAGE_TOKENS = 1_000
MESSAGE_TOKENS = 4


def estimated_tokens(text: str) -> int:
    """Return about how many tokens a text is, without a tokenizer: rounded up."""
    return -(-len(text) // CHARS_PER_TOKEN)


def tokens_of(message: ChatMessage) -> int:
    """Return about how many tokens a message takes, its envelope included."""
    if isinstance(message.content, str):
        return MESSAGE_TOKENS + estimated_tokens(message.content)
    texts = (part["text"] for part in message.content if isinstance(part.get("text"), str))
    images = sum(1 for part in message.content if part.get("type") == "image_url")
    return MESSAGE_TOKENS + images * IMAGE_TOKENS + sum(estimated_tokens(str(text)) for text in texts)


def history_of(session: Session | None) -> tuple[ChatMessage, ...]:
    """Return a session's messages, oldest first."""
    if session is None:
        return ()
    turns = ((turn.user, turn.assistant) for turn in session.turns)
    return tuple(message for pair in turns for message in pair if message is not None)


def fitting(history: Sequence[ChatMessage], budget_tokens: int) -> tuple[ChatMessage, ...]:
    """Return the latest messages that fit in a budget, starting with a user's."""
    kept: list[ChatMessage] = []
    for message in reversed(history):
        budget_tokens -= tokens_of(message)
        if budget_tokens < 0:
            break
        kept.append(message)
    kept.reverse()
    while kept and kept[0].role != "user":
        kept.pop(0)
    return tuple(kept)


def user_message(text: str, images: Sequence[str] = ()) -> ChatMessage:
    """Return what a person said, with images as parts where there are any."""
    if not images:
        return ChatMessage(role="user", content=text)
    parts: list[dict[str, object]] = [{"type": "text", "text": text}]
    parts += [{"type": "image_url", "image_url": {"url": url}} for url in images]
    return ChatMessage(role="user", content=parts)


def system_prompt(base: str, addons: Sequence[str], texts: Mapping[str, str]) -> str:
    """Return a role's prompt with the texts of its addons below it. Every addon is known: validation saw to it."""
    return "\n\n".join([base, *(texts[name] for name in addons if name in texts)]).strip()


def conversation(
    system: str, history: Sequence[ChatMessage], message: ChatMessage, *, window_tokens: int, answer_tokens: int
) -> tuple[ChatMessage, ...]:
    """Return a whole conversation for a model whose window takes `window_tokens`, its answer included.

    The session gives way first; the message itself is never cut.
    """
    head = (ChatMessage(role="system", content=system),) if system else ()
    budget = window_tokens - answer_tokens - sum(tokens_of(part) for part in (*head, message))
    return (*head, *fitting(history, budget), message)
