"""A run that nobody has taken up yet: it is seen, followed and cancelled all the same, by the timer that it has."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from services.gateway.admission import Admission, OverLimit
from services.gateway.births import Birth, Identity, of_chat
from services.gateway.http import runs as steering
from services.gateway.principal import EVERYBODY, Account, Principal
from services.gateway.queued import find, whereabouts
from services.gateway.runs import Runs
from shared import subjects
from shared.bus.errors import QueueFull
from shared.bus.server import NatsServer
from shared.contracts.access import Allowance, Places
from shared.contracts.commands import ChatRequest, ControlRun, PlanRun, SubmitRequest
from shared.contracts.ids import Priority, Verb, new_run_id, run_id_of_key
from shared.topology import FINISHES, Limits
from tests.conftest import eventually
from tests.gateway.backstage import Backstage, ended, fault
from tests.gateway.conftest import Stage
from tests.gateway.guarded import bearing, guarded, make
from tests.gateway.test_chat import queued
from tests.gateway.test_socket import hear, say, talking, until

QUESTION = {"message": "Why is the sky blue?"}
STEPS: dict[str, Any] = {
    "workflow": [{"type": "inline", "tasks": [{"model": "medium_ai", "prompt": "Say it", "output_variable": "said"}]}]
}
KEY = {"Idempotency-Key": "order 67"}
OTHERS = ("pause", "resume", "approve", "reject", "retry")


async def begin(http: httpx.AsyncClient, path: str = "/chat", body: Any = None, **headers: str) -> dict[str, Any]:
    begun = await http.post(f"{path}?wait=false", json=body or QUESTION, headers=headers)
    assert begun.status_code == 202, begun.text
    answer: dict[str, Any] = begun.json()
    return answer


async def state(http: httpx.AsyncClient, begun: dict[str, Any], wanted: str) -> bool:
    return bool((await http.get(begun["status_url"])).json()["state"] == wanted)


async def cancelled(backstage: Backstage, run_id: str, tenant: str = "default") -> None:
    """Do what a finisher does with a cancelled run that nobody has accepted: it knows it by its timer."""
    subject = subjects.control(tenant, run_id, Verb.CANCEL)

    async def asked() -> bool:
        return await backstage.bus.jetstream.last(FINISHES, subject) is not None

    await eventually(asked)
    stored = await backstage.bus.jetstream.last(FINISHES, subject)
    assert stored is not None
    assert (await backstage.bus.log.decode(stored, ControlRun)).tenant == tenant
    timer = await backstage.bus.log.timer(run_id)
    assert timer is not None
    await backstage.end(ended(timer[0].run, outcome="cancelled", category=None, model=None, spent={}))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have whoever cancels wait for the end, however late the test writes it."""
    monkeypatch.setattr(steering, "EFFECT_WITHIN_S", 20.0)


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize(("path", "body", "by"), [("/chat", QUESTION, "categorizer"), ("/workflow", STEPS, "planner")])
async def test_a_run_that_nobody_has_taken_up_is_shown(
    stage: Stage, path: str, body: Any, by: str, keyed: bool
) -> None:
    """With what it waits for and until when, from the moment that its caller is told of it."""
    async with stage(takes=False) as (http, backstage):
        begun = await begin(http, path, {**body, "priority": "high", "timeout_s": 77}, **(KEY if keyed else {}))
        shown = await http.get(begun["status_url"])
        assert shown.status_code == 200, shown.text
        run = shown.json()
        assert (run["run_id"], run["state"]) == (begun["run_id"], "queued")
        assert run["waits_for"] == f"a {by} to take it up"
        assert run["waits_until"] == run["deadline_at"]
        lasts = datetime.fromisoformat(run["deadline_at"]) - datetime.fromisoformat(run["born_at"])
        assert lasts.total_seconds() == 77
        assert (run["session_id"], run["priority"]) == (begun["session_id"], "high")
        assert (run["kind"], run["tasks"], run["calls"], run["ledger"]["cost_usd"]) == (None, [], [], 0.0)
        await backstage.begin()
        await eventually(lambda: state(http, begun, "completed"))


@pytest.mark.parametrize("keyed", [False, True])
async def test_it_is_cancelled_and_shown_as_ended(stage: Stage, keyed: bool, patient: None) -> None:
    """Nobody has accepted it, so its end is all that the log has; nothing of it can be done again."""
    async with stage(takes=False) as (http, backstage):
        begun = await begin(http, **(KEY if keyed else {}))
        where = begun["status_url"]
        cancelling = asyncio.create_task(http.post(f"{where}/cancel", json={"reason": "not wanted"}))
        await cancelled(backstage, begun["run_id"])
        answer = await cancelling
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled"), answer.text
        run = (await http.get(where)).json()
        assert (run["state"], run["waits_for"], run["kind"]) == ("cancelled", None, None)
        assert run["ended_at"] is not None
        assert (await http.get(f"{where}/timeline")).json()["spans"] == []
        for verb in (*OTHERS, "cancel"):
            refused = await http.post(f"{where}/{verb}", json={})
            assert (refused.status_code, "cancelled" in refused.json()["detail"]) == (409, True), refused.text
        assert (await http.get(f"/v1/responses/resp_{begun['run_id']}")).json()["status"] == "cancelled"
        if keyed:
            again = await http.post("/chat", json=QUESTION, headers=KEY)
            assert (again.status_code, again.headers["idempotency-replayed"]) == (409, "true")
        told = await http.get(f"{where}/events")
        assert [name for name, _ in events_of(told.text)] == ["ended", "done"]


async def test_what_needs_an_accepted_run_says_that_it_is_queued(stage: Stage) -> None:
    """409 with what it waits for; only how long it has waited can be told."""
    async with stage(takes=False) as (http, _):
        begun = await begin(http)
        where = begun["status_url"]
        answers = [await http.post(f"{where}/{verb}", json={}) for verb in (*OTHERS, "fork", "callback")]
        answers += [await http.get(f"{where}/{part}") for part in ("graph", "outputs/said")]
        for answer in answers:
            assert answer.status_code == 409, (answer.url, answer.text)
            assert "is queued, waiting for a categorizer to take it up" in answer.json()["detail"]
            assert answer.headers["retry-after"] == "1"
        times = await http.get(f"{where}/timeline")
        assert (times.status_code, times.json()["spans"]) == (200, [])
        assert times.json()["total_s"] > 0
        assert (await http.get("/runs?state=queued")).status_code == 422, "they are not listed"


def events_of(text: str) -> list[tuple[str, int | None]]:
    """Return a stream's events: their names and ids."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and line[0] != ":")
        if "event" in fields:
            found.append((fields["event"], int(fields["id"]) if "id" in fields else None))
    return found


@pytest.mark.parametrize("keyed", [False, True])
async def test_it_is_followed_from_its_beginning(stage: Stage, keyed: bool) -> None:
    """Who follows it while it is queued hears every fact, as who reads it later does."""
    async with stage(takes=False) as (http, backstage):
        begun = await begin(http, **(KEY if keyed else {}))
        async with http.stream("GET", begun["events_url"], params={"tokens": "false"}) as early:
            assert early.status_code == 200
            pieces = early.aiter_text()
            first = await anext(pieces)  # the stream has begun, before anything has happened
            assert events_of(first) == []
            await backstage.begin()
            told = first + "".join([piece async for piece in pieces])
        later = (await http.get(begun["events_url"], params={"tokens": "false"})).text
        assert events_of(told) == events_of(later)
        assert [name for name, _ in events_of(told)] == ["accepted", "ended", "done"]


async def test_it_is_followed_and_cancelled_over_a_websocket(stage: Stage, patient: None) -> None:
    async with stage(takes=False) as (http, backstage), talking(http) as client:
        begun, gone = await begin(http), await begin(http, "/workflow", STEPS)
        await say(client, type="cancel", id="c", run_id=gone["run_id"])
        await cancelled(backstage, gone["run_id"])
        said = await hear(client)
        assert (said["type"], said["data"]["state"]) == ("run", "cancelled"), said
        await say(client, type="subscribe", id="g", run_id=gone["run_id"])
        assert (await until(client, "error"))[-1]["status"] == 409
        await say(client, type="approve", id="a", run_id=begun["run_id"])
        refused = await hear(client)
        assert (refused["status"], "is queued" in refused["detail"]) == (409, True)
        await say(client, type="subscribe", id="s", run_id=begun["run_id"])
        assert (await hear(client))["type"] == "accepted"
        await backstage.begin()
        heard = await until(client, "answer")
        assert [one["event"] for one in heard if one["type"] == "event"] == ["accepted", "ended"]


async def test_it_does_not_vanish_when_its_time_is_over(stage: Stage) -> None:
    """Its timer has fired and no finisher has ended it: it says so."""
    async with stage(takes=False) as (http, _):
        begun = await begin(http, body={**QUESTION, "timeout_s": 1})
        states = set()

        async def overdue() -> bool:
            answer = await http.get(begun["status_url"])
            assert answer.status_code == 200, answer.text
            states.add(answer.json()["state"])
            return bool(answer.json()["waits_for"] == "a finisher to end it: its time is over")

        await eventually(overdue)
        assert states == {"queued"}


async def test_what_ends_between_two_looks_is_found(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not accepted at the first look, and without a timer at the next: it has ended, and is read whole."""
    async with stage() as (http, backstage):
        run_id = (await http.post("/chat", json=QUESTION)).json()["run_id"]
        facts = subjects.events("default", run_id)
        looks = 0

        async def look() -> object:
            nonlocal looks
            looks += 1
            return None if looks == 1 else await backstage.bus.jetstream.last("EVENTS", facts.accepted)

        found = await whereabouts(backstage.bus, "default", run_id, look)
        assert (looks, getattr(found, "subject", None)) == (2, facts.accepted)


async def test_a_request_that_was_refused_is_not_followed_for_ever(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever knew its id before it was refused is let go when its time is over."""
    monkeypatch.setattr("services.gateway.runs.GRACE_S", 0.1)
    async with stage(takes=False) as (http, backstage):
        begun = await begin(http, body={**QUESTION, "timeout_s": 3})
        async with http.stream("GET", begun["events_url"]) as told:
            pieces = told.aiter_text()
            first = await anext(pieces)
            await backstage.bus.log.take_timer_back(begun["run_id"])
            await backstage.bus.jetstream.purge(FINISHES, subjects.deadline(begun["run_id"]))  # it may have fired
            assert events_of(first + "".join([piece async for piece in pieces])) == []
        assert (await http.get(begun["status_url"])).status_code == 404


# One key, several gateways: what is told stays, what was refused leaves nothing


def birth(key: str = "one key", principal: Principal = EVERYBODY) -> Birth:
    """Return what another gateway would bear under a key."""
    identity = Identity("default", run_id_of_key("default", key), keyed=True, principal=principal)
    return of_chat(
        identity,
        ChatRequest(message=QUESTION["message"], new_session=True),
        session_id="s",
        priority=Priority.MEDIUM,
        now=now(),
        timeout_s=20,
    )


@dataclass(frozen=True)
class Gateway(Runs):
    """Bears runs; its requests are sent when it is told, and refused if so."""

    refused: bool = False
    sends: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    async def _send(self, command: SubmitRequest | PlanRun) -> None:
        self.reached.set()
        await self.sends.wait()
        if self.refused:
            raise QueueFull("segue.request")
        await super()._send(command)


def now() -> datetime:
    return datetime.now(UTC)


@pytest.mark.parametrize("first_refused", [True, False])
@pytest.mark.parametrize("refused_last", [True, False])
async def test_a_refused_gateway_takes_nothing_from_another(
    stage: Stage, first_refused: bool, refused_last: bool
) -> None:
    """Two bear one run, one of them is refused, before the other has sent it or after: the run has its timer."""
    async with stage(takes=False) as (http, backstage):
        first = Gateway(backstage.bus, now, refused=first_refused)
        second = Gateway(backstage.bus, now, refused=not first_refused)
        born = birth()
        bearing_first = asyncio.create_task(first.bear(born))
        await first.reached.wait()
        bearing_second = asyncio.create_task(second.bear(birth()))
        await second.reached.wait()
        assert await backstage.timers() == 1
        order = [(first, bearing_first), (second, bearing_second)]
        if first_refused == refused_last:
            order.reverse()
        for gateway, task in order:
            gateway.sends.set()
            await asyncio.wait([task])
        runs = [task.result() for _, task in order if task.exception() is None]
        assert len(runs) == 1
        assert (runs[0].born_at, runs[0].deadline_at) == (born.run.born_at, born.run.deadline_at), "it is one run"
        timer = await backstage.bus.log.timer(born.run.run_id)
        assert timer is not None
        assert timer[0].run.deadline_at == born.run.deadline_at
        assert await queued(backstage, 1)
        shown = (await http.get(f"/runs/{born.run.run_id}")).json()
        assert shown["state"] == "queued"


async def test_the_place_of_a_run_is_whoevers_run_is_queued(stage: Stage) -> None:
    """Of two gateways that bear it one is refused: it counts, once; refused by all, it counts no more."""
    async with stage(takes=False) as (_, backstage):
        single = Principal("default", accounts=(Account("tenant.default", Allowance(concurrent_runs=1)),))
        admission = Admission(backstage.bus, now)

        async def places() -> int:
            found, _ = await backstage.bus.budgets.get("runs.tenant.default", Places)
            return len(found.runs) if found is not None else 0

        refusing, taking = Gateway(backstage.bus, now, admission, refused=True), Runs(backstage.bus, now, admission)
        refusing.sends.set()
        with pytest.raises(QueueFull):
            await refusing.bear(birth(principal=single))
        assert (await places(), await backstage.timers()) == (0, 0)
        refusing.sends.clear()
        refused = asyncio.create_task(refusing.bear(birth(principal=single)))
        refusing.reached.clear()
        await refusing.reached.wait()
        await taking.bear(birth(principal=single))
        refusing.sends.set()
        with pytest.raises(QueueFull):
            await refused
        assert (await places(), await backstage.timers()) == (1, 1)
        with pytest.raises(OverLimit):
            await taking.bear(birth("another", single))


async def test_a_key_that_is_refused_leaves_nothing(stage: Stage) -> None:
    """The queue is full: no timer, nothing to see; the same key later is a run, with all of its time."""
    async with stage(limits=Limits(max_queue_depth=1), takes=False) as (http, backstage):
        await begin(http)
        refused = await http.post("/chat?wait=false", json=QUESTION, headers=KEY)
        assert refused.status_code == 503
        run_id = run_id_of_key("default", KEY["Idempotency-Key"])
        assert (await http.get(f"/runs/{run_id}")).status_code == 404
        assert await backstage.timers() == 1
        await backstage.begin()
        await eventually(lambda: queued(backstage, 0))
        begun = await begin(http, **KEY)
        assert begun["run_id"] == run_id
        await eventually(lambda: state(http, begun, "completed"))


@pytest.mark.parametrize(("path", "body"), [("/chat", QUESTION), ("/workflow", STEPS)])
async def test_a_repetition_of_what_is_queued_is_the_same_run(stage: Stage, path: str, body: Any) -> None:
    """It has the first one's times, is queued once, and is answered like it although the queue is full."""
    async with stage(limits=Limits(max_queue_depth=1), takes=False) as (http, backstage):
        first = await begin(http, path, body, **KEY)
        before = (await http.get(first["status_url"])).json()
        again = await begin(http, path, {**body, "timeout_s": 300}, **KEY)
        assert again == first
        assert (await http.post(path, json=body)).status_code == 503, "it is full"
        assert (await http.get(first["status_url"])).json() == before
        await backstage.begin()
        await eventually(lambda: state(http, first, "completed"))
        answer = await http.post(path, json=body, headers=KEY)
        assert answer.status_code == 200
        assert len(backstage.taken) == 1


@pytest.mark.parametrize("path", ["/chat?wait=false", "/v1/responses", "/workflow?wait=false", "/chat"])
async def test_another_request_under_the_key_of_what_is_queued_is_refused(stage: Stage, path: str) -> None:
    """At once, at every door: its caller would be told of a run that answers somebody else's question."""
    others: dict[str, Any] = {
        "/v1/responses": {"model": "segue-auto", "input": "Why is grass green?", "background": True},
        "/workflow?wait=false": STEPS,
    }
    async with stage(takes=False) as (http, backstage):
        begun = await begin(http, **KEY)
        refused = await http.post(path, json=others.get(path, {"message": "Why is grass green?"}), headers=KEY)
        assert refused.status_code == (400 if path.startswith("/v1") else 422), refused.text
        assert "was used with a different request" in refused.text
        assert (await begin(http, **KEY))["run_id"] == begun["run_id"]
        await backstage.begin()
        await eventually(lambda: state(http, begun, "completed"))
        assert len(backstage.taken) == 1


async def test_a_gateway_that_died_between_timer_and_request_costs_nothing(stage: Stage) -> None:
    """Nobody was told of the run; the same key bears it again, within the time that it had."""
    async with stage(takes=False) as (http, backstage):
        lost = birth(KEY["Idempotency-Key"])
        await backstage.bus.log.set_timer(lost.run, "categorizer")
        begun = await begin(http, **KEY)
        shown = (await http.get(begun["status_url"])).json()
        assert datetime.fromisoformat(shown["deadline_at"]) == lost.run.deadline_at
        await backstage.begin()
        answer = await http.post("/chat", json=QUESTION, headers=KEY)
        assert answer.status_code == 200
        assert backstage.taken[0].run.deadline_at == lost.run.deadline_at


async def test_a_key_whose_run_ended_while_it_was_queued_is_answered_with_that(stage: Stage) -> None:
    async with stage(takes=False) as (http, backstage):
        begun = await begin(http, **KEY)
        timer = await backstage.bus.log.timer(begun["run_id"])
        assert timer is not None
        late = fault("resource", "deadline", "not done within 20 s, waiting for a categorizer", 504)
        await backstage.end(ended(timer[0].run, outcome="failed", category=None, model=None, spent={}, fault=late))
        run = (await http.get(begun["status_url"])).json()
        assert (run["state"], run["error"]["code"]) == ("failed", "deadline")
        again = await http.post("/chat", json=QUESTION, headers=KEY)
        assert (again.status_code, again.headers["idempotency-replayed"]) == (504, "true")
        assert await backstage.timers() == 0


# Whose it is not


async def test_a_queued_run_is_its_tenants_alone(own_nats_server: NatsServer) -> None:
    """For another tenant every route answers as for a run that nobody has, byte for byte."""
    async with guarded(own_nats_server, takes=False) as (http, backstage):
        owner, other = bearing(await make(backstage, "owner")), bearing(await make(backstage, "other"))
        run_id = (await begin(http, **owner, **KEY))["run_id"]
        assert (await http.get(f"/runs/{run_id}", headers=owner)).json()["state"] == "queued"
        routes = [("GET", f"/runs/{{id}}{part}") for part in ("", "/timeline", "/graph", "/outputs/x", "/events")]
        routes += [("POST", f"/runs/{{id}}/{verb}") for verb in (*OTHERS, "cancel", "fork", "callback")]
        routes += [("GET", "/v1/responses/resp_{id}"), ("POST", "/v1/responses/resp_{id}/cancel")]
        for method, path in routes:
            said = []
            for asked in (run_id, new_run_id()):
                url = path.replace("{id}", asked)
                given: dict[str, Any] = {} if method == "GET" else {"json": {}}
                answer = await http.request(method, url, headers=other, **given)
                assert answer.status_code == 404, (path, answer.text)
                said.append((answer.text.replace(asked, "<id>"), sorted(answer.headers.keys())))
            assert said[0] == said[1], path
        assert (await http.get(f"/runs/{run_id}", headers=owner)).json()["state"] == "queued"


async def test_whose_run_it_is_is_found_out_by_the_same_reads(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """So how long it takes does not say whether another tenant has it."""
    async with stage(takes=False) as (http, backstage):
        run_id = (await begin(http))["run_id"]
        last, reads = backstage.bus.jetstream.last, list[str]()

        async def counted(stream: str, subject: str) -> Any:
            reads.append(f"{stream} {subject}")
            return await last(stream, subject)

        monkeypatch.setattr(backstage.bus.jetstream, "last", counted)
        assert await find(backstage.bus, "default", run_id) is not None
        shapes = []
        for asked in (run_id, new_run_id()):
            reads.clear()

            async def look(asked: str = asked) -> object:
                return await backstage.bus.jetstream.last("EVENTS", subjects.events("other", asked).accepted)

            assert await whereabouts(backstage.bus, "other", asked, look) is None
            shapes.append([read.replace(asked, "<id>") for read in reads])
        assert shapes[0] == shapes[1]
