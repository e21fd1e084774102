"""Latency profiles: named, changed, spread as said."""

from statistics import mean, pstdev
from typing import Any

import pytest

from simulator.latency import PROFILES, Distribution, Profile, delays
from simulator.testing import Simulator

DRAWS = [(number + 0.5) / 2_000 for number in range(2_000)]


@pytest.mark.parametrize("distribution", ["uniform", "normal", "lognormal"])
def test_spread(distribution: Distribution) -> None:
    """The mean is the profile's, the standard deviation its jitter (a uniform one's is that by the root of 3)."""
    profile = Profile(first_token_ms=100, jitter=0.3, distribution=distribution)
    drawn = [delays(profile, 10, chance).first_s for chance in DRAWS]
    assert mean(drawn) == pytest.approx(0.1, rel=0.02)
    assert pstdev(drawn) == pytest.approx(0.03 / (3**0.5 if distribution == "uniform" else 1), rel=0.1)
    assert min(drawn) >= 0


def test_exponential_and_constant() -> None:
    profile = Profile(first_token_ms=100, jitter=2, distribution="exponential")
    assert mean(delays(profile, 1, chance).first_s for chance in DRAWS) == pytest.approx(0.1, rel=0.02)
    assert {delays(Profile(per_token_ms=3), 1, chance).per_token_s for chance in DRAWS} == {0.003}


def test_total_is_the_whole_time() -> None:
    """Whatever the length; the first token is part of it."""
    for tokens in (1, 10, 1_000):
        assert delays(Profile(first_token_ms=50, total_ms=200), tokens, 0.5).total_s(tokens) == pytest.approx(0.2)


def test_named_profiles() -> None:
    assert not PROFILES["zero"].waits
    assert PROFILES["fast"].waits
    assert delays(PROFILES["realistic"], 60, 0.5).total_s(60) > 0.5


async def test_profiles_are_set_by_name_and_changed(sim: Simulator) -> None:
    assert (await sim.profile("realistic"))["name"] == "realistic"
    changed = await sim.profile("fast", first_token_ms=7)
    assert (changed["name"], changed["first_token_ms"], changed["per_token_ms"]) == ("custom", 7, 0.2)
    await sim.reset()
    assert (await sim.profile())["first_token_ms"] == 0


@pytest.mark.parametrize("changes", [{"first_token_ms": -1}, {"speed": 3}, {"distribution": "wild"}])
async def test_wrong_profiles_are_refused(sim: Simulator, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        await sim.profile("zero", **changes)
    with pytest.raises(ValueError, match="known: fast, realistic, zero"):
        await sim.profile("slow")
