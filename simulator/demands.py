"""What a request demands: how many things, of which kinds, in which order. Pure.

A reading by words, the same for the letter and for the plan: it knows imperative verbs at the beginning of a clause,
the usual deliverables, media, words of sequence. It understands nothing.
"""

from dataclasses import dataclass
from typing import Final

from simulator import vocabulary as v

LOOKED_AT_HEAD_CHARS: Final = 2_000
LOOKED_AT_TAIL_CHARS: Final = 500


@dataclass(frozen=True, slots=True)
class Demands:
    """What was found."""

    actions: tuple[str, ...]
    """Distinct verbs that begin a clause, in order."""
    deliverables: tuple[v.Deliverable, ...]
    media: frozenset[str]
    """The kinds of media besides text that are to be made."""
    sequenced: int
    """How many words say that one thing comes after another."""
    campaign: bool
    code: bool
    small_code: bool
    words: frozenset[str]

    @property
    def investigates_and_produces(self) -> bool:
        return not v.INVESTIGATES.isdisjoint(self.actions) and not v.PRODUCES.isdisjoint(self.actions)


def demands_of(request: str) -> Demands:
    """Return what a request demands. Of a long one the head and the tail are read; fenced code is not."""
    text = request
    if len(text) > LOOKED_AT_HEAD_CHARS + LOOKED_AT_TAIL_CHARS:
        text = f"{text[:LOOKED_AT_HEAD_CHARS]}\n{text[-LOOKED_AT_TAIL_CHARS:]}"
    if "```" in text:
        text = " ".join(text.split("```")[::2])
    lowered = text.lower()
    tokens = v.TOKEN.findall(lowered)
    words = frozenset(tokens) - v.STOPS
    actions = _actions(tokens)
    things = {thing.key: thing for thing in map(v.DELIVERABLES.get, tokens) if thing is not None}
    media = _media(things, actions)
    code_words = words & v.CODE
    return Demands(
        actions=actions,
        deliverables=tuple(thing for key, thing in things.items() if key not in v.MEDIA or key in media),
        media=media,
        sequenced=_sequenced(lowered, words),
        campaign=not v.CAMPAIGN_WORDS.isdisjoint(words) and v.CAMPAIGN.search(lowered) is not None,
        code=bool(code_words or words & v.LANGUAGES) and not v.CODE_VERBS.isdisjoint(actions),
        small_code=not v.SMALL_CODE.isdisjoint(words) or (len(words) < 6 and not code_words),
        words=words,
    )


def _sequenced(lowered: str, words: frozenset[str]) -> int:
    phrases = 0 if v.SEQUENCE_WORDS.isdisjoint(words) else len(v.SEQUENCE_PHRASES.findall(lowered))
    return len(v.SEQUENCE & words) + phrases


def _actions(tokens: list[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    beginning = True
    for token in tokens:
        if token in v.STOPS or token in v.CLAUSE_OPENERS:
            beginning = True
        elif beginning and token not in v.CLAUSE_FILLERS:
            if token in v.ACTIONS:
                found[token] = None
            beginning = False
    return tuple(found)


def _media(things: dict[str, v.Deliverable], actions: tuple[str, ...]) -> frozenset[str]:
    """Return the media that are to be made: more than one kind, or one with a verb that makes it. A script is text."""
    named = v.MEDIA.intersection(things)
    makes = not v.MAKES_MEDIA.isdisjoint(actions)
    if not makes and ("script" in things or len(named) < 2):
        return frozenset()
    return named
