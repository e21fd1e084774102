"""The Categorizer's letter, by examples of our own."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.letters import letter
from tests.simulator.conftest import asking, said

HEAVY = (
    "Write a 5000-word article on the history of lighthouses.",
    "Write a comprehensive guide to growing mushrooms at home.",
    "Implement a chess engine in Rust.",
    "Write a program that plays tic-tac-toe against me.",
    "Prove that there are infinitely many primes of the form 4k+3.",
    "Write a 12 page essay about the fall of Constantinople.",
    "Build a REST API for a library in Python.",
    "Derive the Euler-Lagrange equation and give a rigorous proof.",
)
EVERYDAY = (
    "What is the capital of France?",
    "Hello, how are you?",
    "How do I boil an egg?",
    "Explain the difference between a virus and a bacterium.",
    "Translate 'good morning' into Norwegian.",
    "Write a short e-mail to my landlord about the heating.",
    "What is 17 plus 4?",
    "Suggest a name for my cat.",
    "If it rains tomorrow, then what should I wear?",
    "Write a function that reverses a string.",
    "Summarise the plot of Hamlet in two sentences.",
    "Which is heavier, a kilo of feathers or a kilo of lead?",
)
SEVERAL = (
    "Create a complete marketing campaign for a reusable water bottle.",
    "Research the market for electric bicycles and write a report about it.",
    "Write a blog post about tea, then turn it into three tweets and a newsletter.",
    "Design a logo and write a slogan for my bakery.",
    "Generate an image of a fox in the snow.",
    "Analyse our competitors, build customer personas, and draft a pricing strategy and a presentation.",
    "Plan a product launch with social media posts, an e-mail sequence, and a video.",
    "Book a hotel in Rome, then buy the train tickets and send me the schedule.",
    "Build a todo app with an architecture document, tests, and documentation.",
    "First collect the numbers, after that compare them with last year, and finally prepare a summary.",
)


@pytest.mark.parametrize(
    ("request_text", "expected"),
    [*((text, "L") for text in HEAVY), *((text, "M") for text in EVERYDAY), *((text, "H") for text in SEVERAL)],
)
def test_letters(request_text: str, expected: str) -> None:
    assert letter(request_text) == expected


@given(st.text(max_size=6_000))
def test_there_is_always_a_letter(text: str) -> None:
    """Whatever is asked: one of three, and the same each time."""
    assert letter(text) in ("L", "M", "H")
    assert letter(text) == letter(text)


@pytest.mark.parametrize("stream", [False, True])
async def test_only_the_letter_is_said(http: httpx.AsyncClient, stream: bool) -> None:
    """The categorizer's request is known by its prompt; few-shot turns before the question do not count."""
    few_shot = [
        {"role": "system", "content": "Classify the request. Reply with EXACTLY ONE LETTER: L, M or H."},
        {"role": "user", "content": "Create a marketing campaign with posts and a video."},
        {"role": "assistant", "content": "H"},
        {"role": "user", "content": "How tall is Mont Blanc?"},
    ]
    answer = await http.post("/chat/completions", json=asking(messages=few_shot, max_tokens=10, stream=stream))
    if stream:
        assert '"content":"M"' in answer.text.replace(": ", ":")
    else:
        assert said(answer) == "M"
        assert answer.json()["usage"]["completion_tokens"] == 1


async def test_a_long_answer_is_no_letter(http: httpx.AsyncClient) -> None:
    """The words alone do not make a categorizer of a writer."""
    asked = [
        {"role": "system", "content": "Begin with exactly one letter, then write."},
        {"role": "user", "content": "Go."},
    ]
    assert said(await http.post("/chat/completions", json=asking(messages=asked, max_tokens=2_000))).startswith("[sim")
