"""The registry changes, or the bus is away, while something is paid for: its outcome and its cost are not lost."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from services.executor import breaker, taxonomy
from services.executor.breakers import Breakers
from services.executor.limits import Permits
from services.executor.providers import google
from services.executor.roster import Roster
from services.executor.variants import chosen
from shared.bus.errors import Unavailable
from shared.config import load
from shared.config.providers import Route
from shared.config.roles import ModelParameters
from shared.contracts.ids import Lane
from shared.registry.following import LiveModels
from shared.registry.models import MODELS, ModelBook
from shared.topology import REGISTRY
from tests.conftest import eventually
from tests.executor.conftest import Begin, World, call, route, run
from tests.executor.standin import answer, json_reply, refuse

ROOT = Path(__file__).resolve().parents[2]
NAMED = json_reply(200, {"name": "models/veo-3.1/operations/1"})
PENDING = json_reply(200, {"name": "models/veo-3.1/operations/1"})


def video(world: World, role: str = "veo", **fields: Any) -> Route:
    given = {
        "protocol": "google_ai",
        "lane": Lane.VIDEO,
        "model": "veo-3.1",
        "simulated": False,
        "provider": "google_ai",
    }
    return route(role, world.provider.url, **{**given, "parameters": ModelParameters(), **fields})


def done(world: World) -> Any:
    sample = {"generatedSamples": [{"video": {"uri": f"{world.provider.url}/files/1"}}]}
    return json_reply(200, {"done": True, "response": {"generateVideoResponse": sample}})


@pytest.fixture(autouse=True)
def put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job waits elsewhere for every poll, as real ones do."""
    monkeypatch.setattr(google, "POLL_S", 1.2)


async def given(world: World, **fields: Any) -> Any:
    """Have a video begun, and return its command once it waits."""
    command = await world.send(call(role="veo", lane=Lane.VIDEO, settings={"duration": 4}, **fields))

    async def polled() -> bool:
        return len(world.provider.seen) >= 2

    await eventually(polled)
    return command


async def test_a_job_of_a_role_that_is_disabled_meanwhile_is_still_fetched(begin: Begin, world: World) -> None:
    """It is paid for, and asking after it costs nothing: nothing is bought twice, nothing is left out."""
    other = video(world, "veo_b", model="veo-3.1-b")
    await begin(routes={"veo": video(world), "veo_b": other}, fallbacks={"veo": ["veo_b"]})
    world.provider.then(NAMED, PENDING, done(world))
    command = await given(world)
    world.executor.roster.routes = {"veo": replace(video(world), unavailable="disabled", paused=True), "veo_b": other}
    fact = await world.settled(command)
    assert (fact.outcome, fact.cost_known, fact.attempts) == ("answered", True, 1)
    assert fact.cost_usd == pytest.approx(1.6)


async def test_so_is_one_that_nobody_stands_in_for(begin: Begin, world: World) -> None:
    await begin(routes={"veo": video(world)})
    world.provider.then(NAMED, PENDING, done(world))
    command = await given(world)
    world.executor.roster.routes = {"veo": replace(video(world), unavailable="disabled", paused=True)}
    fact = await world.settled(command)
    assert fact.outcome == "answered"
    assert fact.cost_usd == pytest.approx(1.6)


async def test_a_job_that_cannot_be_asked_after_any_more_is_unknown_not_free(begin: Begin, world: World) -> None:
    await begin(routes={"veo": video(world)})
    world.provider.then(NAMED, PENDING)
    command = await given(world)
    world.executor.roster.routes = {}
    fact = await world.settled(command)
    assert (fact.outcome, fact.cost_known) == ("failed", False)
    assert [one.attempt for one in fact.unknown] == [1]
    assert fact.unknown[0].reserved_usd == pytest.approx(1.6)


async def test_the_next_role_is_asked_when_the_one_of_a_lost_job_is_gone(begin: Begin, world: World) -> None:
    """A role that is no longer among those that may be asked is not asked again, and the call does not go round."""
    other = video(world, "veo_b", provider="lab")
    await begin(routes={"veo": video(world), "veo_b": other}, fallbacks={"veo": ["veo_b"]})
    world.provider.then(NAMED, PENDING)
    command = await given(world)
    gone = replace(video(world), provider="elsewhere", unavailable="disabled", paused=True)
    world.executor.roster.routes = {"veo": gone, "veo_b": other}
    world.provider.then(NAMED, PENDING, done(world))
    fact = await world.settled(command)
    assert (fact.outcome, fact.role, fact.attempts) == ("answered", "veo_b", 2)
    assert [one.fault.code for one in fact.failed] == ["job_lost"]
    assert not fact.cost_known


async def test_being_asked_too_often_does_not_lose_a_job(begin: Begin, world: World, monkeypatch: Any) -> None:
    """A 429 is no trouble of the job's: it is not given up for any number of them."""
    monkeypatch.setattr("services.executor.jobs.MOST_TROUBLE", 0)
    monkeypatch.setattr("services.executor.jobs.POLL_PAUSE_S", 0.05)
    await begin(routes={"veo": video(world)})
    world.provider.then(NAMED, refuse(429), refuse(429), done(world))
    fact = await world.settled(await given(world))
    assert (fact.outcome, fact.attempts) == ("answered", 1)


async def test_each_variant_has_answers_of_its_own_in_the_cache(begin: Begin, world: World) -> None:
    """What one model said is not the other's answer: they are compared."""
    other = route("medium_ai", world.provider.url, model="vendor/other", variant="other", weight=50)
    own = route("medium_ai", world.provider.url, variant="default", weight=50, variants=(other,))
    await begin(routes={"medium_ai": own})
    runs: dict[int, list[Any]] = {0: [], 1: []}
    while min(map(len, runs.values())) < 2:
        one = run()
        runs[chosen("medium_ai", one.run_id, [50, 50])].append(one)
    world.provider.then(answer("of the default"), answer("of the other"))
    for place, text in ((0, "of the default"), (1, "of the other")):
        first = await world.do(call(runs[place][0], cache=True))
        await world.emptied()  # an answer is kept after it was given
        again = await world.do(call(runs[place][1], cache=True))
        assert (first.text, first.cached, again.text, again.cached) == (text, False, text, True)


async def test_an_answer_is_not_lost_because_a_limit_or_a_breaker_cannot_be_told(
    begin: Begin, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is paid for: it is settled, and not bought again."""

    async def away(*_: Any, **__: Any) -> None:
        raise Unavailable("a write", 20.0)

    monkeypatch.setattr(Permits, "used", away)
    monkeypatch.setattr(Breakers, "answered", away)
    monkeypatch.setattr(Breakers, "failed", away)
    await begin()
    world.provider.then(refuse(500), answer("hello"))
    fact = await world.do(call())
    assert (fact.outcome, fact.attempts, fact.cost_known) == ("answered", 2, True)
    assert len(world.provider.seen) == 2


async def test_every_request_has_a_permit_of_its_own(
    begin: Begin, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the second of an attempt, which leaves out what the provider has just refused: it counts both."""
    taken, take = [], Permits.take

    async def counted(self: Permits, *given: Any) -> Any:
        taken.append(given)
        return await take(self, *given)

    monkeypatch.setattr(Permits, "take", counted)
    await begin()
    world.provider.then(refuse(400, "Unsupported parameter: temperature"), answer("hello"))
    fact = await world.do(call())
    assert (fact.outcome, fact.attempts) == ("answered", 1)
    assert len(world.provider.seen) == len(taken) == 2


async def test_an_entry_that_cannot_be_read_leaves_the_others(world: World) -> None:
    """A registry with something in it that nobody of ours wrote still lets every service start and follow."""
    await world.bus.client.publish(f"$KV.{REGISTRY}.{MODELS}.junk", b"{not json")
    await world.bus.client.flush()
    document = {"provider": "openrouter", "model": "vendor/new"}
    book = ModelBook(world.bus.registry)
    await book.write_model("poet_ai", {"document": document}, expected=None, by="test")
    live = LiveModels(world.bus, load(ROOT / "orchestration_config.json").configuration)
    await live.start()
    assert live.configuration.ai_models["poet_ai"].model == "vendor/new"
    await live.stop()


async def test_a_role_whose_weights_are_all_zero_is_played_by_its_own_model(world: World) -> None:
    other = route("medium_ai", world.provider.url, model="vendor/other", variant="other", weight=0)
    own = route("medium_ai", world.provider.url, variant="default", weight=0, variants=(other,))
    breakers = Breakers(world.bus, breaker.Settings(), lambda: datetime.now(UTC))
    roster = Roster({"medium_ai": own}, {}, breakers, lambda: datetime.now(UTC))
    assert roster.chain("medium_ai") == (["medium_ai"], None)
    assert roster.choice("medium_ai", call()) == own


async def test_who_was_asked_is_known_although_another_plays_the_role(world: World) -> None:
    """An attempt is asked after at its own provider, by way of any role that is still served there."""
    old = route("fast_ai", world.provider.url, provider="lab", model="vendor/a")
    now = route("medium_ai", world.provider.url, provider="openrouter")
    breakers = Breakers(world.bus, breaker.Settings(), lambda: datetime.now(UTC))
    roster = Roster({"medium_ai": now, "fast_ai": old}, {}, breakers, lambda: datetime.now(UTC))
    found = roster.of("medium_ai", "lab", "vendor/then")
    assert found is not None
    assert (found.provider, found.model) == ("lab", "vendor/then")
    assert roster.of("medium_ai", "nobody", "vendor/then") is None


def test_a_store_that_is_full_says_nothing_of_the_model() -> None:
    assert not breaker.counts(taxonomy.NOT_STORED)
    assert breaker.counts(taxonomy.EXECUTOR_DIED)
