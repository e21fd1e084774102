"""Where a template's values come from in an OpenAI request."""

from services.gateway.http.openai.filling import given

PARAMETERS = {"topic": ("string", True), "length": ("integer", True), "audience": ("string", False)}


def test_metadata_by_name_and_the_message_for_the_first_that_is_missing() -> None:
    assert given(PARAMETERS, {"length": "3", "other": "x"}, "tides") == {"length": 3, "topic": "tides"}
    assert given(PARAMETERS, {"topic": "tides"}, "5") == {"topic": "tides", "length": 5}


def test_a_message_that_is_an_object_has_values_by_name() -> None:
    assert given(PARAMETERS, {}, '{"topic": "tides", "length": 2}') == {"topic": "tides", "length": 2}


def test_another_object_is_a_text() -> None:
    assert given(PARAMETERS, {"length": 1}, '{"a": 1}') == {"length": 1, "topic": '{"a": 1}'}


def test_what_is_no_number_is_left_for_validation_to_name() -> None:
    assert given(PARAMETERS, {"length": "many"}, "tides") == {"length": "many", "topic": "tides"}
