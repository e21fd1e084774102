"""What the simulator says. Pure: the request and the seed decide every word.

Prose begins with "[simulated] ", restates the question, quotes what was said before, and names words of the last
message, so that it can be seen that a session's history and the outputs of earlier tasks arrived.
"""

import json
import re
import zlib
from typing import Any, Final, NamedTuple

from simulator.chat_request import CHARS_PER_TOKEN, ChatRequest, tokens_of
from simulator.letters import letter, sorted_in
from simulator.plans import BrokenPlan, plan
from simulator.schemas import instance
from simulator.tools import Call
from simulator.vocabulary import ACTIONS, DULL

MARK: Final = "[simulated] "
WHOLE_CHARS: Final = 320
"""A message up to this length is restated whole."""
PIECES: Final = 9
PIECE_CHARS: Final = 110
BEFORE_CHARS: Final = 140
EXCERPTED_CHARS: Final = 40_000
HASHED_CHARS: Final = 4_000

_OPENINGS: Final = ('You asked: "{}".', 'On your request "{}":', 'About "{}":', 'To answer "{}":')
_QUOTING: Final = tuple(opening.partition("{")[0] for opening in _OPENINGS)
"""How an answer begins; left out when an answer is quoted, so that quotations of quotations still show their matter."""
_SENTENCES: Final = (
    "What matters here is {}, and each depends on what you want to reach.",
    "Three things decide it: {}; begin with the first and check the others against it.",
    "In short, look at {} together, because a change in one moves the rest.",
    "The key points are {}; a real model would now go into each of them.",
)
_CLOSINGS: Final = (
    "A first step is to write down what a good result looks like.",
    "Say how deep you want to go, and the next answer can follow it.",
    "This is enough to decide on the next step.",
    "If one of these is wrong, say so and the rest changes with it.",
)
_DULL: Final = DULL | ACTIONS
_AROUND_WORDS: Final = ".,;:!?\"'“”‘’()[]{}<>*_#`/\\|-=…"
_TAG: Final = re.compile(r"^\s*</?[\w-]+(?:\s[^<>]*)?>\s*$")


class Answer(NamedTuple):
    """A model's whole output."""

    text: str | None
    finish_reason: str = "stop"
    completion_tokens: int = 0
    """Everything that is billed, reasoning included."""
    reasoning_tokens: int = 0
    refusal: str | None = None
    call: Call | None = None


def chance_of(request: ChatRequest, seed: int) -> int:
    """Return the number, 32 bits, that decides wherever there is a choice."""
    text = request.text
    said = text if len(text) <= HASHED_CHARS else f"{text[:HASHED_CHARS]}{len(text)}{text[-HASHED_CHARS:]}"
    start = zlib.crc32(request.model.encode("utf-8", "surrogatepass"), seed + request.earlier_turns & 0xFFFFFFFF)
    return zlib.crc32(said.encode("utf-8", "surrogatepass"), start)


def answer(
    request: ChatRequest, chance: int, *, reasons: bool = False, broken_plan: BrokenPlan | None = None
) -> Answer:
    """Return what is answered, cut at the request's `max_tokens`. `reasons`: the model thinks first, and bills it."""
    text: str
    if request.call is not None:
        tokens = tokens_of(request.call.arguments) + tokens_of(request.call.name)
        return Answer(None, "tool_calls", tokens, call=request.call)
    match request.kind:
        case "letter":
            text = letter(sorted_in(request.text))
        case "plan":
            text = plan(request, broken_plan)
        case "json":
            text = structured(request)
        case "prose":
            text = prose(request, chance)
    return measured(Answer(text), request.max_tokens, reasons=reasons)


def measured(made: Answer, max_tokens: int | None, *, reasons: bool = False) -> Answer:
    """Return an answer with its tokens counted and cut where they end."""
    text = made.text or ""
    tokens = tokens_of(text)
    if max_tokens is not None and tokens > max_tokens:
        return made._replace(
            text=text[: max_tokens * CHARS_PER_TOKEN], finish_reason="length", completion_tokens=max_tokens
        )
    thought = min(tokens // 2, max_tokens - tokens if max_tokens is not None else tokens) if reasons else 0
    return Answer(made.text, made.finish_reason, tokens + thought, thought, made.refusal)


def structured(request: ChatRequest) -> str:
    """Return the smallest JSON that the request's schema takes."""
    value: Any = instance(request.schema or {}, restated(request.text)[:120])
    return json.dumps(value, ensure_ascii=False)


def prose(request: ChatRequest, chance: int) -> str:
    """Return a few dozen words."""
    question = restated(request.text)
    parts = [_OPENINGS[chance & 3].format(question)]
    if request.result is not None:
        parts.append(f'The function said: "{shortened(request.result, BEFORE_CHARS)}".')
    if request.images:
        parts.append(f"I see {request.images} image{'s' if request.images > 1 else ''}.")
    if request.before_user is not None:
        parts.append(f'Earlier you said: "{shortened(request.before_user, BEFORE_CHARS)}".')
    if request.before_assistant:
        parts.append(f'My answer then began: "{shortened(request.before_assistant, BEFORE_CHARS)}".')
    parts += [_SENTENCES[chance >> 2 & 3].format(named(question)), _CLOSINGS[chance >> 4 & 3]]
    return MARK + " ".join(parts)


def restated(text: str) -> str:
    """Return a message on one line: whole when it is short, else the beginning of each of its first lines."""
    if len(text) <= WHOLE_CHARS:
        return " ".join(text.replace(MARK, "").split())
    lines = [line for line in text[:EXCERPTED_CHARS].splitlines() if line.strip() and not _TAG.match(line)]
    if len(lines) < 2:
        return f"{shortened(text, WHOLE_CHARS * 2 // 3)} {_tail(text)}"
    chosen = lines if len(lines) <= PIECES else [*lines[: PIECES - 2], *lines[-2:]]
    return " / ".join(shortened(line, PIECE_CHARS) for line in chosen)


def shortened(text: str, chars: int) -> str:
    """Return the beginning of a text on one line, cut between words, without the mark."""
    line = " ".join(text[: chars * 2].replace(MARK, "").split())
    for opening in _QUOTING:
        line = line.removeprefix(opening)
    if len(line) <= chars and len(text) <= chars * 2:
        return line
    return f"{line[:chars].rsplit(' ', 1)[0].rstrip(' /…')} …"


def _tail(text: str) -> str:
    return " ".join(text[-WHOLE_CHARS // 3 :].split())


def named(question: str) -> str:
    """Return three words of a question, as a list in words."""
    found: list[str] = []
    for piece in question.split():
        word = piece.strip(_AROUND_WORDS)
        if len(word) > 3 and word not in found and word.lower() not in _DULL:
            found.append(word)
            if len(found) == 3:
                break
    words = found or ["the question itself", "what was said before"]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
