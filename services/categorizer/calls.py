"""The calls and commands that a category leads to. Pure: a function of what is on the log."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.contracts.commands import ChatRequest, ExecuteCall
from shared.contracts.conversation import Conversation
from shared.contracts.events import RunCategorized
from shared.contracts.ids import Lane, Purpose
from shared.contracts.message import ChatMessage, Run
from shared.conversation import carried, conversation, dialogue, fitting, text_of, user_message

CATEGORIZE = "categorize"
ANSWER = "answer"

SHOWN_TO_CATEGORIZER_CHARS = 4_000
HISTORY_SHOWN_TOKENS = 400


@dataclass(frozen=True, slots=True)
class Persona:
    """What the configuration says of a role, as far as a conversation needs it."""

    role: str
    system_prompt: str
    examples: tuple[ChatMessage, ...]
    window_tokens: int
    max_tokens: int
    lane: Lane = Lane.TEXT


def stranger(role: str) -> Persona:
    """Return a role that the configuration does not have (any more): the executor says so to whoever asked for it."""
    return Persona(role, "", (), window_tokens=1_000_000, max_tokens=1_000)


def categorize(run: Run, request: ChatRequest, history: Sequence[ChatMessage], persona: Persona) -> ExecuteCall:
    """Return the call that asks for the letter. It sees the head and the tail of a long message: enough to judge.

    Messages say how they want to be answered ("only the code", "as JSON"), and small models do it. So what is sorted,
    and what was said before it, is shown as material, and what is asked for stands around it.
    """
    text = request.message
    if len(text) > SHOWN_TO_CATEGORIZER_CHARS:
        half = SHOWN_TO_CATEGORIZER_CHARS // 2
        text = f"{text[:half]}\n[… {len(text) - 2 * half:,} characters left out …]\n{text[-half:]}"
    system = (ChatMessage(role="system", content=persona.system_prompt),)
    return ExecuteCall(
        run=run,
        call=CATEGORIZE,
        purpose=Purpose.DECISION,
        lane=Lane.CONTROL,
        role=persona.role,
        messages=(*system, *map(_shown, persona.examples), _framed(text, fitting(history, HISTORY_SHOWN_TOKENS))),
    )


def _shown(example: ChatMessage) -> ChatMessage:
    return _framed(text_of(example)) if example.role == "user" else example


def _framed(text: str, history: Sequence[ChatMessage] = ()) -> ChatMessage:
    before = f"<before>\n{dialogue(history)}\n</before>\n\n" if history else ""
    asked = f"Sort this message: L, M or H?\n\n{before}<message>\n{text}\n</message>"
    return user_message(f"{asked}\n\nWhich letter is it, L, M or H?")


def answer(fact: RunCategorized, request: ChatRequest, history: Sequence[ChatMessage], persona: Persona) -> ExecuteCall:
    """Return the call that answers an L or M request."""
    if request.conversation is not None:
        return _carried(fact, request.conversation, persona)
    return ExecuteCall(
        run=fact.run,
        call=ANSWER,
        purpose=Purpose.ANSWER,
        role=persona.role,
        messages=conversation(
            persona.system_prompt,
            history,
            user_message(request.message, request.images),
            window_tokens=persona.window_tokens,
            answer_tokens=persona.max_tokens,
        ),
        stream=True,
        category=fact.category,
        spent=fact.spent,
    )


def _carried(fact: RunCategorized, conversation: Conversation, persona: Persona) -> ExecuteCall:
    """Return the call that answers a conversation which its caller carries, asked as he says.

    A role that he chose himself and tells who it is himself, with system messages, is told nothing by us.
    """
    wanted, told = conversation.parameters, conversation.told
    if conversation.embed is not None:
        return ExecuteCall(
            run=fact.run,
            call=ANSWER,
            purpose=Purpose.ANSWER,
            role=persona.role,
            messages=(),
            parameters=wanted,
            embed=conversation.embed,
            category=fact.category,
            spent=fact.spent,
        )
    own = conversation.role is not None and any(message.role == "system" for message in told)
    return ExecuteCall(
        run=fact.run,
        call=ANSWER,
        purpose=Purpose.ANSWER,
        lane=persona.lane,
        role=persona.role,
        messages=carried(
            "" if own else persona.system_prompt,
            told,
            window_tokens=persona.window_tokens,
            answer_tokens=wanted.max_tokens or persona.max_tokens,
        ),
        temperature=wanted.temperature,
        max_tokens=wanted.max_tokens,
        top_p=wanted.top_p,
        parameters=wanted,
        settings={} if persona.lane is Lane.TEXT else wanted.extra or {},
        stream=persona.lane is Lane.TEXT,
        category=fact.category,
        spent=fact.spent,
    )
