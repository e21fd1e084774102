"""Which way a request goes: the rules at their bounds, and what counts as a letter."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.categorizer.routing import (
    AskModel,
    Denied,
    Direct,
    Orchestrated,
    Rules,
    by_letter,
    by_rules,
    read_letter,
    without_model,
)
from shared.contracts.commands import ChatRequest
from shared.contracts.conversation import Conversation
from shared.contracts.ids import Category
from shared.contracts.message import Fault

RULES = Rules(
    role_of={Category.L: "thinking_ai", Category.M: "medium_ai"},
    image_role="image_analysis_ai",
    long_context_role="gemini",
    force_thinking_tokens=100_000,
    force_long_context_tokens=200_000,
    deny_tokens=900_000,
)
TEXT = ChatRequest(message="hello")
IMAGE = ChatRequest(message="what is this?", images=("https://example.org/a.png",))
calm = settings(deadline=None)


@pytest.mark.parametrize(
    ("tokens", "route"),
    [
        (0, AskModel()),
        (99_999, AskModel()),
        (100_000, AskModel()),
        (100_001, Direct(Category.L, "thinking_ai", "about 100,001 tokens of context")),
        (200_000, Direct(Category.L, "thinking_ai", "about 200,000 tokens of context")),
        (200_001, Direct(Category.L, "gemini", "about 200,001 tokens of context")),
        (900_000, Direct(Category.L, "gemini", "about 900,000 tokens of context")),
    ],
)
def test_a_bound_is_over_only_above_it(tokens: int, route: object) -> None:
    assert by_rules(TEXT, tokens, RULES) == route


@pytest.mark.parametrize("request_", [TEXT, IMAGE])
def test_what_is_too_long_is_denied_with_what_to_do(request_: ChatRequest) -> None:
    route = by_rules(request_, 900_001, RULES)
    assert isinstance(route, Denied)
    assert (route.fault.code, route.fault.status, route.fault.type) == ("context_too_long", 413, "logical")
    assert "about 900,001 tokens; at most 900,000" in route.fault.message
    assert "shorten the message" in route.fault.message


@pytest.mark.parametrize("tokens", [0, 100_001, 200_001, 900_000])
def test_an_image_goes_to_who_can_see_it(tokens: int) -> None:
    assert by_rules(IMAGE, tokens, RULES) == Direct(Category.M, "image_analysis_ai", "the request contains an image")


def test_without_an_image_role_the_other_rules_decide() -> None:
    blind = Rules(RULES.role_of, None, "gemini", 100_000, 200_000, 900_000)
    assert by_rules(IMAGE, 0, blind) == AskModel()
    assert by_rules(IMAGE, 200_001, blind) == Direct(Category.L, "gemini", "about 200,001 tokens of context")


@calm
@given(tokens=st.integers(0, 10**7), images=st.booleans())
def test_every_request_has_a_way(tokens: int, images: bool) -> None:
    route = by_rules(IMAGE if images else TEXT, tokens, RULES)
    assert isinstance(route, Denied) == (tokens > 900_000)
    assert isinstance(route, AskModel) == (not images and tokens <= 100_000)


@pytest.mark.parametrize("letter", ["L", "M", "H"])
@pytest.mark.parametrize(
    "said",
    [
        "{}",
        " {}",
        "{}\n",
        "{}.",
        "{}!",
        " {}. ",
        '"{}"',
        "'{}'",
        "`{}`",
        "({})",
        "[{}]",
        "**{}**",
        "*{}*.",
        "__{}__",
        "Category: {}",
        "category {}",
        "CATEGORY = {}",
        "Category: **{}**",
        "**Category:** {}",
        "**Category: {}**",
        "The category is {}.",
        "Answer: {}",
        "The answer is: {}",
        "Classification: '{}'",
        '{{"category": "{}"}}',
        "{}\n\nAn everyday question.",
        "{}.\nThe person asks for facts.",
        "{}: an everyday question",
        "{} - an everyday question",
        "{} – an everyday question",
        "{}—an everyday question",
        "{} (everyday)",
        "**{}** (everyday)",
        "{}. This is an everyday question.",
        "{}, as it is an everyday question",
        "<think>\n\n</think>\n\n{}",
        "<think>Could it be L? Or M? No: H.</think>{}",
    ],
)
def test_a_letter_is_read_however_it_is_dressed_up(said: str, letter: str) -> None:
    assert read_letter(said.format(letter)) == letter
    assert read_letter(said.format(letter.lower())) == letter


@pytest.mark.parametrize(
    "said",
    [
        "",
        " ",
        "\n",
        "?",
        "X",
        "Maybe",
        "High",
        "Low",
        "Medium",
        "LM",
        "MM",
        "M2",
        "H2O",
        "M_1",
        "Lë",
        "M₂ is",
        "L or M",
        "L/M",
        "L, M",
        "L\nM",
        "M-H",
        "H & M",
        "M. Or rather H.",
        "M: not L",
        "Category: L or H",
        "Category:",
        "Category",
        "The category",
        # an answer instead of a category: the letter is a word of a sentence
        "M because it is an everyday question",
        "M is the one",
        "L'homme est un loup",
        "l'amour toujours",
        "m/s is a unit of speed",
        "L-shaped rooms are hard to furnish",
        "I would say M",
        "It depends. M",
        "This is a question about cooking, so M",
        "Not H",
        "<think>M",  # its thoughts were cut off
        "<think>it is M</think>",
        "Here is a poem about the moon:\n\nM",
    ],
)
def test_anything_else_is_in_doubt(said: str) -> None:
    """In doubt a request is H: it deserves more, and the wrong small model would give it less."""
    assert read_letter(said) is None
    assert by_letter(said, RULES) == Orchestrated("the categorizer's answer was not a letter")


@calm
@given(st.text(max_size=60))
def test_any_text_is_a_letter_or_nothing(said: str) -> None:
    letter = read_letter(said)
    if letter is not None:
        assert letter in said.upper()


@calm
@given(st.text("LMHlmh .,:-(\n\"'{}category", max_size=20))
def test_two_different_letters_are_never_one(said: str) -> None:
    words = {
        word for word in "".join(c if c.isalnum() else " " for c in said.upper()).split() if word in {"L", "M", "H"}
    }
    if len(words) > 1:
        assert read_letter(said) is None


def test_reading_a_long_text_takes_no_time_to_speak_of() -> None:
    for said in (
        "M" + " " * 100_000,
        "*" * 100_000,
        "<think>" * 20_000,
        "category " * 20_000,
        '"' * 50_000 + "M" + "." * 50_000,
    ):
        read_letter(said)


def test_the_letter_decides() -> None:
    assert by_letter("L", RULES) == Direct(Category.L, "thinking_ai", "categorised by the model")
    assert by_letter("m.", RULES) == Direct(Category.M, "medium_ai", "categorised by the model")
    assert by_letter("H", RULES) == Orchestrated("categorised by the model")


def test_no_text_at_all_is_h() -> None:
    assert by_letter(None, RULES) == Orchestrated("the categorizer's answer was not a letter")


def test_a_model_that_cannot_be_asked_makes_it_m() -> None:
    """Not H: that would multiply cost and load while a provider is down. (ADR 0005)"""
    fault = Fault(type="transient", code="provider_unavailable", message="503")
    assert without_model(fault, RULES) == Direct(
        Category.M, "medium_ai", "the categorizer could not be asked (provider_unavailable)"
    )
    assert without_model(None, RULES) == Direct(
        Category.M, "medium_ai", "the categorizer could not be asked (no answer in time)"
    )


def test_a_role_that_the_caller_chose_is_asked_without_a_word_of_the_categorizers() -> None:
    """Only what is too long for any is denied all the same."""
    for role, letter in (("code_ai", Category.M), ("thinking_ai", Category.L)):
        request = TEXT.model_copy(update={"conversation": Conversation(model=role, role=role)})
        assert by_rules(request, 150_000, RULES) == Direct(letter, role, f"the caller chose {role}")
        assert isinstance(by_rules(request, 900_001, RULES), Denied)
    auto = TEXT.model_copy(update={"conversation": Conversation(model="segue-auto")})
    assert by_rules(auto, 10, RULES) == AskModel()


def test_what_only_one_call_can_do_is_not_orchestrated() -> None:
    """Functions of the caller's and a format of his are for the model that answers."""
    assert isinstance(by_letter("H", RULES), Orchestrated)
    found = by_letter("H", RULES, one_call=True)
    assert isinstance(found, Direct)
    assert (found.category, found.role) == (Category.L, "thinking_ai")
    assert by_letter("M", RULES, one_call=True) == by_letter("M", RULES)
