"""What a model gets to read: system prompt, addons, the session as far as it fits, the message. Pure."""

from collections.abc import Mapping, Sequence

from shared.contracts.commands import ChatRequest
from shared.contracts.conversation import Conversation
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
    called = 0
    if message.tool_calls:
        called = sum(estimated_tokens(one.name) + estimated_tokens(one.arguments) for one in message.tool_calls)
    if isinstance(message.content, str):
        return MESSAGE_TOKENS + called + estimated_tokens(message.content)
    texts = (part["text"] for part in message.content if isinstance(part.get("text"), str))
    images = sum(1 for part in message.content if part.get("type") == "image_url")
    return MESSAGE_TOKENS + called + images * IMAGE_TOKENS + sum(estimated_tokens(str(text)) for text in texts)


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


def carried(
    system: str, messages: Sequence[ChatMessage], *, window_tokens: int, answer_tokens: int
) -> tuple[ChatMessage, ...]:
    """Return a conversation that its caller carries, for a model whose window takes `window_tokens`.

    What is said first by the system stays, and so does everything from the last question on, with the tool calls and
    results that belong to it; of what is between, the oldest gives way.
    """
    head = [ChatMessage(role="system", content=system)] if system else []
    first = next((place for place, one in enumerate(messages) if one.role != "system"), len(messages))
    last = max(first, last_question(messages))
    head += messages[:first]
    tail = messages[last:]
    budget = window_tokens - answer_tokens - sum(tokens_of(one) for one in (*head, *tail))
    return (*head, *fitting(messages[first:last], budget), *tail)


def before(conversation: Conversation) -> tuple[ChatMessage, ...]:
    """Return what was said before the question of a conversation that its caller carries."""
    told = conversation.told
    return told[: last_question(told)]


def question_of(request: ChatRequest) -> str:
    """Return what is asked, below what the caller's own system messages say: for who does not get to read those."""
    told = request.conversation.told if request.conversation is not None else ()
    system = [text_of(one) for one in told if one.role == "system"]
    if not system:
        return request.message
    return "<instructions>\n" + "\n\n".join(system) + f"\n</instructions>\n\n{request.message}"


def text_of(message: ChatMessage) -> str:
    """Return a message's text: a string, or the texts of its parts."""
    if isinstance(message.content, str):
        return message.content
    return "\n".join(str(part["text"]) for part in message.content if isinstance(part.get("text"), str))


def dialogue(messages: Sequence[ChatMessage]) -> str:
    """Return a conversation as a text to be read, not to be gone on with."""
    return "\n\n".join(f"{one.role.capitalize()}: {text_of(one)}" for one in messages)


def last_question(messages: Sequence[ChatMessage]) -> int:
    """Return the place of the last message that a user said; 0 where there is none."""
    return next((place for place in range(len(messages) - 1, -1, -1) if messages[place].role == "user"), 0)
