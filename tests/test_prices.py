"""What models cost: an operator's word before the table's, and nothing made up where nobody knows."""

import json
from pathlib import Path

import pytest

from services.executor.pricing import priced, reserved_usd
from services.executor.providers import Answered, Failed
from services.executor.taxonomy import MALFORMED
from shared.config import ConfigInvalid
from shared.config.providers import Route
from shared.config.roles import ModelParameters
from shared.contracts.commands import ExecuteCall
from shared.contracts.ids import Lane, Purpose
from shared.contracts.message import Usage
from shared.conversation import user_message
from shared.prices import Override, PriceBook
from tests.planner.test_planning import RUN

LLAMA = "meta-llama/llama-3.3-70b-instruct"
BOOK = PriceBook({"own/model": Override(input=2.0, output=10.0, cached_input=0.5), LLAMA: Override(input=1, output=1)})


def route(model: str, provider: str = "openrouter") -> Route:
    return Route("medium_ai", provider, "http://x", None, model, ModelParameters(max_tokens=500), Lane.TEXT)


def call(text: str = "hello", **fields: object) -> ExecuteCall:
    return ExecuteCall.model_validate(
        {
            "run": RUN,
            "call": "answer",
            "purpose": Purpose.ANSWER,
            "role": "medium_ai",
            "messages": (user_message(text),),
            **fields,
        }
    )


def cost(book: PriceBook, model: str, usage: Usage) -> float:
    found = book.cost("anybody", model, usage)
    assert found is not None
    assert found[1] == "override"
    return found[0]


def test_an_override_prices_fresh_cached_and_said_tokens() -> None:
    used = Usage(prompt_tokens=1_000, completion_tokens=100, cached_tokens=400)
    assert cost(BOOK, "own/model", used) == pytest.approx((600 * 2 + 400 * 0.5 + 100 * 10) / 1e6)
    plain = PriceBook({"m": Override(input=2.0, output=10.0)})
    assert cost(plain, "m", used) == pytest.approx((1_000 * 2 + 100 * 10) / 1e6)


def test_the_table_prices_cached_tokens_and_long_prompts() -> None:
    model = "google/gemini-2.5-pro"
    short = PriceBook().cost("openrouter", model, Usage(prompt_tokens=100_000))
    cached = PriceBook().cost("openrouter", model, Usage(prompt_tokens=100_000, cached_tokens=100_000))
    long = PriceBook().cost("openrouter", model, Usage(prompt_tokens=400_000))
    assert short is not None
    assert cached is not None
    assert long is not None
    assert cached[0] < short[0] / 2
    assert long[0] > 4 * short[0] * 1.5, "over 200,000 tokens each costs more"
    assert short[1] == "table"


def test_an_operators_word_comes_first_and_nobodys_is_none() -> None:
    assert BOOK.cost("openrouter", LLAMA, Usage(prompt_tokens=1_000_000)) == (1.0, "override")
    for provider, model in (
        ("openrouter", "nobody/nothing"),
        ("openai_compatible", "smollm2"),
        ("openai_compatible", LLAMA),
    ):
        assert PriceBook().cost(provider, model, Usage(prompt_tokens=1)) is None
        assert PriceBook().most(provider, model, prompt_tokens=1, answer_tokens=1) is None


def test_the_providers_word_is_not_doubted() -> None:
    told = Answered("x", usage=Usage(prompt_tokens=1_000_000), cost_usd=0.25)
    outcome = priced(told, route(LLAMA), BOOK)
    assert isinstance(outcome, Answered)
    assert (outcome.cost_usd, outcome.priced_by) == (0.25, "provider")


def test_what_a_provider_does_not_charge_by_itself_is_priced_by_its_tokens() -> None:
    silent = Answered("x", usage=Usage(prompt_tokens=1_000, completion_tokens=10))
    outcome = priced(silent, route("own/model"), BOOK)
    assert isinstance(outcome, Answered)
    assert outcome.cost_usd == pytest.approx(0.0021)
    assert outcome.priced_by == "override"
    other = Answered("x", usage=Usage(prompt_tokens=1_000), model="own/model")
    assert priced(other, route("nobody/nothing"), BOOK).cost_usd == pytest.approx(0.002), "by the one that answered"
    cut = Failed(MALFORMED, "cut", usage=Usage(prompt_tokens=1_000), cost_usd=None)
    assert priced(cut, route("own/model"), BOOK).cost_usd == pytest.approx(0.002)


def test_what_nobody_knows_is_never_free() -> None:
    for outcome in (Answered("x"), Answered("x", usage=Usage(prompt_tokens=5)), Failed(MALFORMED, "x", cost_usd=None)):
        found = priced(outcome, route("nobody/nothing"), BOOK)
        assert found.cost_usd is None
    assert priced(Answered("x"), route("own/model"), BOOK).cost_usd is None, "nobody counted its tokens"
    refused = Failed(MALFORMED, "x", cost_usd=0.0)
    assert priced(refused, route("own/model"), BOOK).cost_usd == 0.0


def test_a_reservation_is_the_most_that_an_attempt_can_cost() -> None:
    """By the call's own bound of its answer, else the role's."""
    short, long = (
        reserved_usd(call("x" * 400), route("own/model"), BOOK),
        reserved_usd(call("x" * 40_000), route("own/model"), BOOK),
    )
    assert 500 * 10 / 1e6 < short < long
    bounded = reserved_usd(call("x" * 400, max_tokens=10), route("own/model"), BOOK)
    assert bounded < short - 400 * 10 / 1e6
    assert reserved_usd(call(), route("nobody/nothing"), BOOK) == 0.0
    pro = PriceBook().most("openrouter", "google/gemini-2.5-pro", prompt_tokens=400_000, answer_tokens=1)
    assert pro is not None
    assert pro > 400_000 * 2e-6, "a long prompt is reserved at the price of long ones"


def test_images_and_seconds_have_prices_of_their_own() -> None:
    """The list's, an operator's, in 4K; and none that would be made up."""
    book = PriceBook({"own/image": Override(image=0.02), "own/video": Override(second=0.1), "own/words": BOTH})
    by_tokens = Usage(prompt_tokens=100, completion_tokens=1_120, image_tokens=1_120, images=1)
    for model, used, resolution, cost_usd, by in (
        ("imagen-4-ultra", Usage(images=3), None, 0.18, "table"),
        ("veo-3.1-generate-001", Usage(video_s=8), None, 3.2, "table"),
        ("google/veo-3.1", Usage(video_s=8), "4K", 4.8, "table"),
        ("gemini-3-pro-image", by_tokens, None, 0.1346, "table"),
        ("own/image", Usage(images=2, prompt_tokens=50), None, 0.04, "override"),
        ("own/video", Usage(video_s=5), None, 0.5, "override"),
    ):
        found = book.cost("google_ai", model, used, resolution=resolution)
        assert found is not None, model
        assert found[0] == pytest.approx(cost_usd), model
        assert found[1] == by, model
    assert book.cost("anybody", "own/words", Usage(images=1)) is None
    assert book.cost("anybody", "own/words", Usage(video_s=1)) is None
    assert book.cost("google_ai", "gemini-3-pro-image", Usage(images=1)) is None
    assert book.cost("google_ai", "veo-9", Usage(video_s=1)) is None


BOTH = Override(input=1, output=1)


def test_an_override_file_is_read_or_refused_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text(json.dumps({"a/b": {"input": 1, "output": 2, "image": 0.06, "note": "list of 2026-11-01"}}))
    assert PriceBook.read(file).overrides["a/b"].image == 0.06
    assert PriceBook.read(None).overrides == {}
    for text, said in (
        ("{", "Expecting"),
        ('{"a": {"input": -1, "output": 1}}', "$.a.input"),
        ('{"a": {"input": 1}}', "input and output belong together"),
        ('{"a": {"note": "none"}}', "a price: input and output, image, or second"),
        ('{"a": {"input": 1, "output": 1, "outptu": 2}}', "$.a.outptu"),
        ("[]", "dictionary"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigInvalid, match="prices") as caught:
            PriceBook.read(file)
        assert said in str(caught.value), str(caught.value)
    with pytest.raises(ConfigInvalid, match="SEGUE_PRICES"):
        PriceBook.read(tmp_path / "gone.json")


def test_a_sum_that_leaves_images_out_is_priced_all_the_same() -> None:
    """An answer is not lost because its provider's figures contradict each other, and never costs less for it."""
    odd = Usage(prompt_tokens=100, completion_tokens=7, image_tokens=1_120, images=1)
    whole = odd.model_copy(update={"completion_tokens": 1_120})
    book = PriceBook({"own/image": Override(input=1, output=2, image=0.02)})
    for model in ("gemini-3-pro-image", "own/image"):
        assert book.cost("google_ai", model, odd) == book.cost("google_ai", model, whole)
