"""Which of a role's models a run is asked of."""

from hypothesis import given
from hypothesis import strategies as st

from services.executor.variants import chosen, in_order


def test_over_many_keys_each_gets_its_share() -> None:
    places = [chosen("medium_ai", f"session-{number}", [70, 20, 10]) for number in range(10_000)]
    shares = [places.count(place) / 10_000 for place in range(3)]
    assert all(abs(share - due) < 0.03 for share, due in zip(shares, (0.7, 0.2, 0.1), strict=True)), shares


@given(st.text(max_size=40), st.lists(st.integers(0, 100), min_size=1, max_size=6))
def test_a_key_always_falls_to_the_same_and_never_to_one_without_a_share(key: str, weights: list[int]) -> None:
    found = chosen("medium_ai", key, weights)
    assert found == chosen("medium_ai", key, weights)
    assert weights[found] or not sum(weights)
    asked = in_order("medium_ai", key, weights)
    assert asked[0] == found
    assert sorted(asked[1:]) == [place for place, weight in enumerate(weights) if weight and place != found]


def test_two_roles_of_a_run_fall_to_their_models_each_on_its_own() -> None:
    """Else everything that is compared would be compared together."""
    keys = [f"run-{number}" for number in range(200)]
    assert [chosen("medium_ai", key, [50, 50]) for key in keys] != [chosen("code_ai", key, [50, 50]) for key in keys]
