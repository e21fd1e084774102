"""How a request is dealt with: the rules that need no model, and how the model's letter is read. Pure."""

import re
from dataclasses import dataclass
from typing import Final

from shared.contracts.commands import ChatRequest
from shared.contracts.ids import Category
from shared.contracts.message import Fault


@dataclass(frozen=True, slots=True)
class Rules:
    """`request_flow` as it matters here. Context is in tokens; None switches a rule off."""

    role_of: dict[Category, str]
    """Who answers L and M."""
    image_role: str | None
    long_context_role: str
    force_thinking_tokens: int
    force_long_context_tokens: int
    deny_tokens: int


@dataclass(frozen=True, slots=True)
class Denied:
    fault: Fault


@dataclass(frozen=True, slots=True)
class Direct:
    """One call answers."""

    category: Category
    role: str
    reason: str


@dataclass(frozen=True, slots=True)
class Orchestrated:
    reason: str


@dataclass(frozen=True, slots=True)
class AskModel:
    """No rule decides: the Categorizer AI does."""


Route = Denied | Direct | Orchestrated


def by_rules(request: ChatRequest, context_tokens: int, rules: Rules) -> Route | AskModel:
    """Return what the rules say of a request whose whole context is about `context_tokens` long."""
    if context_tokens > rules.deny_tokens:
        return Denied(
            Fault(
                type="logical",
                code="context_too_long",
                status=413,
                message=(
                    f"the request and its context are about {context_tokens:,} tokens; at most {rules.deny_tokens:,} "
                    "are accepted: shorten the message, begin a new session, or split the work"
                ),
            )
        )
    if request.conversation is not None and request.conversation.role is not None:
        role = request.conversation.role
        letter = Category.L if role == rules.role_of[Category.L] else Category.M
        return Direct(letter, role, f"the caller chose {role}")
    if request.images and rules.image_role is not None:
        return Direct(Category.M, rules.image_role, "the request contains an image")
    if context_tokens > rules.force_long_context_tokens:
        return Direct(Category.L, rules.long_context_role, f"about {context_tokens:,} tokens of context")
    if context_tokens > rules.force_thinking_tokens:
        return Direct(Category.L, rules.role_of[Category.L], f"about {context_tokens:,} tokens of context")
    return AskModel()


_THOUGHTS: Final = re.compile(r"\s*<think>.*?</think>", re.DOTALL)
"""Of a thinking model, where its server leaves them in the text."""
_LABEL: Final = re.compile(r"(?:the )?(?:category|classification|answer|letter)\b(?:\W*is\b)?", re.IGNORECASE)
_APART: Final = re.compile(r"""["'`*_)\]}.!]*(?:\n|[.:;,]\s|\s[-–—(]|[–—])""")
_LETTER: Final = re.compile(r"\b[LMH]\b", re.IGNORECASE)
_DRESS: Final = " \t\r\n\"'`*_()[]{}"


def read_letter(text: str) -> Category | None:
    """Return the category that a model's output says; None when that is in doubt.

    A single letter, dressed up or labelled as models do it. An explanation may follow where it is set apart from the
    letter and names no other one: `M: an everyday question` is M, `L or M` and `M because …` are nothing.
    """
    thoughts = _THOUGHTS.match(text)
    said = (text[thoughts.end() :] if thoughts else text).lstrip(_DRESS)
    if label := _LABEL.match(said):
        said = said[label.end() :].lstrip(_DRESS + ":=")
    letter, rest = said[:1].upper(), said[1:]
    if letter not in {"L", "M", "H"}:
        return None
    if rest.strip(_DRESS + ".!,;") and (_APART.match(rest) is None or _LETTER.search(rest)):
        return None
    return Category(letter)


def by_letter(text: str | None, rules: Rules, *, one_call: bool = False) -> Route:
    """Return what the Categorizer AI decided. In doubt it is H; where only one call can answer, L stands for that."""
    route = _by_letter(text, rules)
    if one_call and isinstance(route, Orchestrated):
        why = f"{route.reason}; one call, because of the caller's tools or response format"
        return Direct(Category.L, rules.role_of[Category.L], why)
    return route


def _by_letter(text: str | None, rules: Rules) -> Route:
    letter = read_letter(text or "")
    if letter is None:
        return Orchestrated("the categorizer's answer was not a letter")
    if letter is Category.H:
        return Orchestrated("categorised by the model")
    return Direct(letter, rules.role_of[letter], "categorised by the model")


def without_model(fault: Fault | None, rules: Rules) -> Route:
    """Return how to go on when the Categorizer AI cannot be had at all: the everyday way. (ADR 0005)"""
    why = fault.code if fault is not None else "no answer in time"
    return Direct(Category.M, rules.role_of[Category.M], f"the categorizer could not be asked ({why})")
