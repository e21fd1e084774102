"""What a call probably takes: measured where there are enough calls, else assumed; prices where somebody knows them."""

from services.gateway.figures import ANSWER_TOKENS, figures
from services.gateway.listings import OfferedModel
from shared.contracts.ids import Lane
from shared.history.queries import Typical
from shared.prices import Price, price_of

TEXT = OfferedModel("medium_ai", "openrouter", "maker/medium", "", max_tokens=400, instruction_tokens=7)
IMAGE = OfferedModel("imagen", "google_ai", "maker/image", "", lane=Lane.IMAGE)
PRICE = Price(1e-6, 2e-6)


def test_without_calls_of_its_own_a_role_is_assumed_to_be_like_others() -> None:
    found = figures([TEXT], {}, {"medium_ai": PRICE})["medium_ai"]
    assert (found.basis, found.answer_tokens, found.instruction_tokens) == ("assumed", 400, 7)
    assert (found.usd_per_input_token, found.usd_per_output_token) == (1e-6, 2e-6)
    assert figures([OfferedModel("x", "p", "m", "")], {}, {})["x"].answer_tokens == ANSWER_TOKENS


def test_enough_calls_count_and_few_do_not() -> None:
    few, enough = Typical(4, 9.0, 90.0, 1.0, 1000), Typical(5, 9.0, 90.0, 1.0, 1000)
    assert figures([TEXT], {"medium_ai": few}, {})["medium_ai"].basis == "assumed"
    found = figures([TEXT], {"medium_ai": enough}, {"medium_ai": PRICE})["medium_ai"]
    assert (found.basis, found.seconds, found.answer_tokens, found.usd_per_input_token) == ("measured", 9.0, 90, 1e-6)


def test_what_was_paid_stands_in_for_a_price_that_no_table_has() -> None:
    found = figures([TEXT], {"medium_ai": Typical(5, 9.0, 90.0, 1.0, 1000)}, {"medium_ai": None})["medium_ai"]
    assert (found.usd_per_input_token, found.usd_per_output_token) == (0.001, 0.001)
    free = figures([TEXT], {"medium_ai": Typical(5, 9.0, 90.0, 0.0, 1000)}, {})["medium_ai"]
    assert free.usd_per_input_token is None


def test_media_are_not_priced_by_the_token() -> None:
    found = figures([IMAGE], {}, {"imagen": PRICE})["imagen"]
    assert (found.usd_per_input_token, found.answer_tokens) == (None, 0)


def test_the_price_table_knows_some_models_and_not_others() -> None:
    known = price_of("openrouter", "meta-llama/llama-3.3-70b-instruct")
    assert known is not None
    assert 0 < known.input_usd < known.output_usd < 1e-4
    assert price_of("openrouter", "nobody/nothing") is None
    assert price_of("openai_compatible", "meta-llama/llama-3.3-70b-instruct") is None
