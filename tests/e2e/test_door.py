"""The bus as a front door: outside systems in accounts of their own, services with no more rights than they need."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it ships no types
import nats
import nats.js.errors
import pytest
import pytest_asyncio
from nats.aio.client import Client

from shared.bus.accounts import Publisher
from shared.overtaken import QUEUED_S
from tests.e2e.test_crashes import APPROVED, CAMPAIGN, WORKFLOW
from tests.receiver import SECRET, receiving
from tests.system import ROOT, System, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

ACME = Publisher("acme", "acme-app", "acme-password")
RIVAL = Publisher("rival", "rival-app", "rival-password")
ENVIRONMENT = {
    "SEGUE_CALLBACK_SECRETS": f"acme={SECRET},default={SECRET}",
    "SEGUE_ALLOWED_NETWORKS": "127.0.0.0/8",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """One copy of each service, each with its own user, and two outside systems."""
    folder = tmp_path_factory.mktemp("door")
    async with System(folder, publishers=(ACME, RIVAL), environment=ENVIRONMENT) as running:
        yield running


@asynccontextmanager
async def outside(system: System, who: Publisher = ACME) -> AsyncIterator[Client]:
    """A connection as an outside system has it."""
    assert system.nats is not None
    client = await nats.connect(system.nats.url, user=who.user, password=who.password)
    try:
        yield client
    finally:
        await client.close()


async def ask(client: Client, subject: str, body: object = None, **headers: str) -> dict[str, Any]:
    """Ask, and return what is answered."""
    data = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await client.request(subject, data, timeout=10, headers=named or None)
    found: dict[str, Any] = json.loads(answer.data)
    return found


async def ended(client: Client, run_id: str) -> dict[str, Any]:
    """Read a run until it has ended, and return its answer."""
    found: dict[str, Any] = {}

    async def over() -> bool:
        nonlocal found
        found = await ask(client, f"segue.read.{run_id}")
        return bool(found["ok"]) and found.get("answer") is not None

    await eventually(over)
    answer: dict[str, Any] = found["answer"]
    return answer


async def test_an_outside_system_asks_hears_and_reads_in_its_own_account(system: System) -> None:
    """The request is stored when it is told so; live events come by themselves; reading says what is so."""
    async with outside(system) as client:
        heard: list[str] = []

        async def hear(msg: Any) -> None:
            heard.append(msg.subject)

        await client.subscribe("segue.live.>", cb=hear)
        begun = await ask(client, "segue.chat", {"message": "What is the capital of France?"})
        assert begun["ok"], begun
        run_id = begun["run_id"]
        answer = await ended(client, run_id)
        assert (answer["outcome"], answer["run_id"], answer["session_id"]) == ("completed", run_id, begun["session_id"])
        assert answer["response"]
        assert answer["usage"]["total_tokens"] > 0

        async def all_of_it() -> bool:
            return {f"segue.live.{run_id}.{fact}" for fact in ("accepted", "category", "ended")} <= set(heard)

        await eventually(all_of_it)


async def test_workflows_templates_and_orchestrated_requests_go_the_same_way(system: System) -> None:
    async with outside(system) as client:
        flow = await ask(client, "segue.workflow", WORKFLOW)
        report = await ask(client, "segue.template.research_report", {"variables": {"topic": "tides"}})
        campaign = await ask(client, "segue.chat", {"message": CAMPAIGN, "priority": "high"})
        for one in (flow, report, campaign):
            assert (await ended(client, one["run_id"]))["outcome"] == "completed"
        assert set((await ended(client, flow["run_id"]))["result"]) >= {"one", "other", "both"}


async def test_tokens_are_heard_as_they_are_written(system: System) -> None:
    async with outside(system) as client:
        pieces: list[dict[str, Any]] = []

        async def hear(msg: Any) -> None:
            pieces.append({"subject": msg.subject, **json.loads(msg.data)})

        await client.subscribe("segue.token.*.*", cb=hear)
        run_id = (await ask(client, "segue.chat", {"message": "Tell me about the sea."}))["run_id"]
        answer = await ended(client, run_id)

        async def whole() -> bool:
            mine = [one for one in pieces if one["subject"].startswith(f"segue.token.{run_id}.answer")]
            return "".join(str(one.get("text", "")) for one in mine) == str(answer["response"])

        await eventually(whole)


async def test_the_text_so_far_can_be_asked_for(system: System) -> None:
    """Who comes late, or missed a piece, asks whoever writes; another tenant is not answered."""
    stall = {"kind": "stall", "after_chunks": 1, "for_s": 3}
    await system.faults({"match": {"contains": "slow story"}, "times": "forever", "fault": stall})
    async with outside(system) as client, outside(system, RIVAL) as rival:
        run_id = ""
        found: dict[str, Any] = {}

        async def written() -> bool:
            nonlocal found, run_id
            if not run_id or (await ask(client, f"segue.read.{run_id}")).get("answer"):
                # It is asked again when it was over before anybody here came to look at it.
                run_id = (await ask(client, "segue.chat", {"message": "Tell me a slow story."}))["run_id"]
            subject = f"segue.sofar.{run_id}.answer"
            with suppress(nats.errors.TimeoutError, nats.errors.NoRespondersError):
                found = json.loads((await client.request(subject, b'{"v": 1}', timeout=0.2)).data)
            with pytest.raises((nats.errors.TimeoutError, nats.errors.NoRespondersError)):
                await rival.request(subject, b'{"v": 1}', timeout=0.02)
            return bool(found)

        await eventually(written)
        assert (found["call"], found["offset"]) == ("answer", 0)
        Described().check("TextSoFar", found)
        assert (await ended(client, run_id))["response"].startswith(found["text"])
    await system.http.delete(f"{system.simulator.url}/__sim/faults")


async def test_runs_are_steered(system: System) -> None:
    """A person's word comes by the bus; what does not fit the run's state is refused."""
    async with outside(system) as client:
        waits = {"workflow": json.loads(json.dumps(APPROVED["workflow"]))}
        waits["workflow"][0]["tasks"][0]["approve"] = {"timeout_s": 60}
        run_id = (await ask(client, "segue.workflow", waits))["run_id"]

        async def asked() -> bool:
            return bool((await ask(client, f"segue.read.{run_id}")).get("state") == "awaiting_approval")

        await eventually(asked)
        assert (await ask(client, f"segue.control.{run_id}.pardon"))["status"] == 422
        approved = await ask(client, f"segue.control.{run_id}.approve", {"reason": "looks well"})
        assert (approved["ok"], approved["verb"]) == (True, "approve")
        assert (await ended(client, run_id))["outcome"] == "completed"
        late = await ask(client, f"segue.control.{run_id}.cancel")
        assert (late["ok"], late["status"]) == (False, 409)


async def test_a_repeated_message_id_is_the_same_run(system: System) -> None:
    """Also while it runs, and with the gateway's own keys; with another request it is refused."""
    async with outside(system) as client:
        body = {"message": "What is the capital of Norway?"}
        first = await asyncio.gather(*(ask(client, "segue.chat", body, Nats_Msg_Id="order-7") for _ in range(5)))
        assert len({one["run_id"] for one in first}) == 1
        await ended(client, first[0]["run_id"])
        again = await ask(client, "segue.chat", body, Nats_Msg_Id="order-7")
        assert again == first[0]
        other = await ask(client, "segue.chat", {"message": "Something else"}, Nats_Msg_Id="order-7")
        assert (other["ok"], other["status"]) == (False, 422)


@pytest.mark.parametrize(
    ("subject", "body", "status", "path"),
    [
        ("segue.chat", b"\xff not json", 422, "$"),
        ("segue.chat", b"", 422, "$"),
        ("segue.chat", [], 422, "$"),
        ("segue.chat", {}, 422, "$.message"),
        ("segue.chat", {"message": "  "}, 422, "$.message"),
        ("segue.chat", {"message": "x", "priority": "urgent"}, 422, "$.priority"),
        ("segue.chat", {"message": "x", "callback_url": "https://10.0.0.1/"}, 422, "$.callback_url"),
        ("segue.chat", {"message": "x", "tenant": "rival"}, 403, "$.tenant"),
        ("segue.chat", {"run": {"tenant": "rival"}, "message": "x"}, 403, "$.run.tenant"),
        ("segue.chat", {"run": {"tenant": "acme"}, "message": "x"}, 422, "$.run"),
        ("segue.workflow", {"workflow": []}, 422, "$.workflow"),
        (
            "segue.workflow",
            {"workflow": [{"type": "linear", "tasks": [{"model": "nobody", "prompt": "x"}]}]},
            422,
            None,
        ),
        ("segue.template.nothing", {}, 404, None),
        ("segue.template.research_report", {}, 422, None),
        ("segue.read.nothing", {}, 404, None),
        ("segue.control.nothing.cancel", {}, 404, None),
    ],
)
async def test_what_is_wrong_is_told_with_what_to_change(
    system: System, subject: str, body: object, status: int, path: str | None
) -> None:
    async with outside(system) as client:
        refused = await ask(client, subject, body)
        assert (refused["ok"], refused["status"]) == (False, status), refused
        assert refused["detail"]
        if path is not None:
            assert path in [problem["path"] for problem in refused["detail"]], refused


async def test_a_request_that_waits_can_be_read(system: System) -> None:
    """From the moment that it is stored, with a message id and without; whose it is not, does not see it."""
    for categorizer in system.running("categorizer"):
        categorizer.terminate()
        assert categorizer.gone(20)
    async with outside(system) as client, outside(system, RIVAL) as rival:
        waits = [
            await ask(client, "segue.chat", {"message": "Wait for it"}),
            await ask(client, "segue.chat", {"message": "Wait for it"}, Nats_Msg_Id="waits-1"),
        ]
        for begun in waits:
            found = await ask(client, f"segue.read.{begun['run_id']}")
            assert (found["ok"], found["state"]) == (True, "queued"), found
            assert found["waits_until"] == begun["deadline_at"]
            assert found["waits_for"] == "a categorizer to take it up"
            refused = await ask(client, f"segue.control.{begun['run_id']}.pause")
            assert (refused["status"], "is queued" in refused["detail"]) == (409, True)
            assert (await ask(rival, f"segue.control.{begun['run_id']}.cancel"))["status"] == 404
            assert (await ask(rival, f"segue.read.{begun['run_id']}"))["status"] == 404
        gone = await ask(client, "segue.chat", {"message": "Never mind"}, Nats_Msg_Id="waits-2")
        assert (await ask(client, f"segue.control.{gone['run_id']}.cancel"))["state"] == "queued"
        assert (await ended(client, gone["run_id"]))["outcome"] == "cancelled"
        begun_at = time.monotonic()
        await eventually(partial(_passed, begun_at + QUEUED_S))  # so old that whoever takes it up looks at its end
        await system.ready(system.start("categorizer"))
        for begun in waits:
            assert (await ended(client, begun["run_id"]))["outcome"] == "completed"
        await system.idle("REQUESTS")
        assert set(await system.facts(gone["run_id"], ACME.tenant)) == {"accepted", "ended"}
        assert (await ask(client, f"segue.read.{gone['run_id']}"))["state"] == "cancelled"


async def _passed(moment: float) -> bool:
    return time.monotonic() > moment


async def test_a_tenant_sees_and_reads_nothing_of_another(system: System) -> None:
    async with outside(system) as client, outside(system, RIVAL) as rival:
        heard: list[str] = []

        async def hear(msg: Any) -> None:
            heard.append(msg.subject)

        await rival.subscribe(">", cb=hear)
        await rival.flush()
        run_id = (await ask(client, "segue.chat", {"message": "A secret of acme's"}))["run_id"]
        await ended(client, run_id)
        for subject in (f"segue.read.{run_id}", f"segue.control.{run_id}.cancel"):
            assert (await ask(rival, subject))["status"] == 404
        mine = (await ask(rival, "segue.chat", {"message": "Mine"}))["run_id"]
        await ended(rival, mine)
        assert heard
        assert not [
            subject for subject in heard if run_id in subject and subject.startswith(("segue.live", "segue.token"))
        ]


async def everything(system: System) -> dict[str, Any]:
    """Return how many messages every stream has on which subject."""
    jetstream = system.client.jetstream()
    found = {}
    for name in ("REQUESTS", "WORKFLOWS", "CALLS", "FINISHES", "EVENTS", "KV_registry", "KV_sessions", "DEAD"):
        info = await jetstream.stream_info(name, subjects_filter=">")
        found[name] = {
            subject: count for subject, count in (info.state.subjects or {}).items() if ".canary." not in subject
        }
    return found


TARGETS = [
    "segue.event.rival.r1.ended",
    "segue.request.rival.high",
    "segue.workflow.rival.high.r1",
    "segue.finish.high.r1",
    "$KV.registry.template.rival.t",
    "$KV.sessions.rival.s",
    "segue.dead.gateway",
]


async def test_a_publisher_cannot_have_answers_land_in_streams(system: System) -> None:
    """An answer, or an acknowledgement, goes to the reply subject in the asker's own account and nowhere else."""
    await system.idle("REQUESTS", "WORKFLOWS", "CALLS", "FINISHES")  # whatever was asked before is through
    async with outside(system) as client:
        before = await everything(system)
        own = await client.subscribe(">")
        await client.flush()
        for target in TARGETS:
            await client.publish("segue.read.nothing", b"{}", reply=target)
            await client.publish(target, b"{}")
            await client.publish(f"segue.door.rival.{target}", b"{}", reply=target)
        heard: set[str] = set()
        while len(heard) < len(TARGETS):
            msg = await own.next_msg(timeout=10)
            if msg.subject in TARGETS and b'"ok":false' in msg.data:
                heard.add(msg.subject)
        assert await everything(system) == before


async def test_in_one_account_the_same_lands_where_it_is_aimed(system: System) -> None:
    """Why outside systems have accounts of their own: without them the reply subject is a way into any stream."""
    reply, key = "$KV.registry.probe.of.a.reply", "KV_registry"
    jetstream = system.client.jetstream()

    async def landed() -> bool:
        try:
            return await jetstream.get_last_msg(key, reply) is not None
        except nats.js.errors.NotFoundError:
            return False

    await system.client.publish("segue.canary.probe", b"{}", reply=reply)
    await eventually(landed)
    await jetstream.purge_stream(key, subject=reply)


async def test_outside_systems_have_no_other_way_in(system: System) -> None:
    """No JetStream, no other subject of Segue's."""
    async with outside(system) as client:
        answer = await client.request("$JS.API.INFO", b"", timeout=5)
        assert json.loads(answer.data)["error"]["description"] == "JetStream not enabled for account"
        for subject in ("segue.door.rival.chat", "segue.request.acme.high", "segue.event.acme.r.ended"):
            with pytest.raises((nats.errors.NoRespondersError, nats.errors.TimeoutError)):
                await client.request(subject, b"{}", timeout=0.5)


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        ("categorizer", "segue.event.acme.r.ended"),
        ("executor", "segue.request.acme.high"),
        ("executor", "$JS.API.DIRECT.GET.KV_sessions"),
        ("gateway", "segue.event.acme.r.ended"),
        ("finisher", "$KV.registry.template.acme.t"),
        ("planner", "$JS.API.STREAM.DELETE.EVENTS"),
    ],
)
async def test_a_service_may_say_what_its_work_needs_and_no_more(system: System, user: str, subject: str) -> None:
    """The server refuses it, and says so in its log: which is where the last test looks."""
    said: list[str] = []

    async def note(error: Exception) -> None:
        said.append(str(error))

    client = await nats.connect(system.url_for(user), name="probe", error_cb=note)
    await client.publish(subject, b"{}")

    async def refused() -> bool:
        return any("permissions violation" in one.lower() for one in said)

    await eventually(refused)
    await client.close()

    async def noted() -> bool:
        return "iolation" in (system.folder / "nats" / "nats-server.log").read_text()

    await eventually(noted)


async def test_an_answer_goes_to_its_callback_too(system: System) -> None:
    async with receiving() as receiver, outside(system) as client:
        asked = {"message": "What is the capital of Italy?", "callback_url": f"{receiver.url}/x"}
        run_id = (await ask(client, "segue.chat", asked))["run_id"]

        async def got() -> bool:
            return {one.data["run_id"] for one in receiver.got} == {run_id}

        await eventually(got)


async def test_what_is_refused_and_cannot_be_told_is_buried(system: System) -> None:
    """Without a reply subject there is nobody to tell: operators find it, with the reason."""
    async with outside(system) as client:
        await client.publish("segue.chat", b'{"message": ""}')

        async def buried() -> bool:
            try:
                letter = await system.client.jetstream().get_last_msg("DEAD", "segue.dead.gateway")
            except nats.js.errors.NotFoundError:
                return False
            return letter.headers is not None and "422" in letter.headers["Segue-Reason"]

        await eventually(buried)


class Described:
    """The AsyncAPI document, to look messages up in."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = json.loads((ROOT / "docs/reference/asyncapi.json").read_text())
        self.patterns = {
            name: re.compile(re.sub(r"\\{\w+\\}", "[^.]+", re.escape(channel["address"])))
            for name, channel in self.document["channels"].items()
            if channel["address"]
        }

    def check(self, kind: str, body: object) -> None:
        """Fail unless a body is what a message's schema says."""
        schema = {"$ref": f"#/components/schemas/{kind}", "components": self.document["components"]}
        jsonschema.validate(body, schema, cls=jsonschema.Draft202012Validator)

    def kind_on(self, subject: str) -> str:
        """Return the message that is described on a subject."""
        [name] = [name for name, pattern in self.patterns.items() if pattern.fullmatch(subject)]
        [kind] = self.document["channels"][name]["messages"]
        return str(kind)


async def test_what_is_said_and_heard_is_what_the_document_says(system: System) -> None:
    """Every live event, token and answer of real runs has its channel and fits its schema."""
    described = Described()
    async with outside(system) as client:
        heard: list[tuple[str, Any]] = []

        async def hear(msg: Any) -> None:
            heard.append((msg.subject, json.loads(msg.data)))

        for subject in ("segue.live.>", "segue.token.*.*"):
            await client.subscribe(subject, cb=hear)
        chat = await ask(client, "segue.chat", {"message": "What is the capital of Chad?"})
        flow = await ask(client, "segue.workflow", {**APPROVED, "priority": "low"})
        campaign = await ask(client, "segue.chat", {"message": CAMPAIGN})
        for begun in (chat, flow, campaign):
            described.check("Begun", begun)
            described.check("RunRead", await ask(client, f"segue.read.{begun['run_id']}"))
            await ended(client, begun["run_id"])
            described.check("RunRead", await ask(client, f"segue.read.{begun['run_id']}"))
        piece = await ask(client, f"segue.read.{chat['run_id']}", {"part": "response"})
        described.check("PieceRead", piece)
        described.check("Refused", await ask(client, "segue.chat", {}))
        described.check("Refused", await ask(client, "segue.read.nothing", {}))
        happens = {"RunAccepted", "RunCategorized", "RunPlanned", "AttemptStarted", "CallSettled", "RunEnded"}

        async def all_of_it() -> bool:
            kinds = {described.kind_on(subject) for subject, _ in heard}
            return kinds >= happens | {"TextDelta", "ApprovalAsked", "ApprovalDecided"}

        await eventually(all_of_it)
        for subject, body in heard:
            described.check(described.kind_on(subject), body)


async def test_a_long_answer_is_read_in_pieces(system: System) -> None:
    """One message has its beginning and says what is left out; the rest follows piece by piece."""
    async with outside(system) as client:
        long = "x" * 600_000
        flow = {
            "workflow": [{"type": "linear", "tasks": [{"model": "fast_ai", "prompt": "Say hello."}]}],
            "variables": {"one": long, "other": long[:300_000]},
        }
        run_id = (await ask(client, "segue.workflow", flow))["run_id"]
        answer = await ended(client, run_id)
        assert answer["left_out"] == ["result.one"]
        assert answer["result"]["other"] == long[:300_000]
        text = ""
        offset: int | None = 0
        while offset is not None:
            piece = await ask(client, f"segue.read.{run_id}", {"part": "result.one", "offset": offset})
            text += piece["text"]
            offset = piece.get("next_offset")
        assert text == long


async def test_http_goes_on_beside_it_and_nobody_asks_for_more_than_it_may(system: System) -> None:
    """Everything over HTTP too; then the server has refused no service anything but what was tried on purpose."""
    assert system.nats is not None
    await system.chat("What is the capital of Spain?", session_id="talk")
    assert (await system.http.get(f"{system.gateway.url}/session/talk")).status_code == 200
    assert (await system.http.delete(f"{system.gateway.url}/session/talk")).status_code == 200
    flow = await system.post("/workflow", WORKFLOW)
    assert flow.status_code == 200, flow.text
    run_id = flow.json()["run_id"]
    for path in ("", "/timeline", "/graph", "/outputs/both"):
        assert (await system.http.get(f"{system.gateway.url}/runs/{run_id}{path}")).status_code == 200
    forked = await system.post(f"/runs/{run_id}/fork", {"start_at": ["both"]})
    assert forked.status_code == 200, forked.text
    written = {"workflow": WORKFLOW["workflow"], "description": "x", "variables": {"topic": {"description": "what"}}}
    put = await system.http.put(f"{system.gateway.url}/templates/mine", json=written)
    assert put.status_code == 201, put.text
    every = {"template": "mine", "every": "1s", "variables": {"topic": "x"}}
    assert (await system.http.put(f"{system.gateway.url}/schedules/often", json=every)).status_code == 201

    async def fired() -> bool:
        found = (await system.http.get(f"{system.gateway.url}/schedules/often")).json()
        return found["last_run"] is not None

    await eventually(fired)
    assert (await system.http.delete(f"{system.gateway.url}/schedules/often")).status_code == 200
    assert (await system.http.delete(f"{system.gateway.url}/templates/mine")).status_code == 200
    for path in ("/stats", "/breakers", "/runs", "/usage", "/health"):
        assert (await system.http.get(system.gateway.url + path)).status_code == 200
    image = {"workflow": [{"type": "linear", "tasks": [{"model": "imagen_4_ultra", "prompt": "a kite"}]}]}
    made = await system.post("/workflow", image)
    assert made.status_code in {200, 502}, made.text
    cut = {"match": {"contains": "be cut"}, "times": 2, "fault": {"kind": "reset"}}
    later = {"match": {"contains": "be cut"}, "times": 1, "fault": {"kind": "rate_limit", "retry_after_s": 2}}
    await system.faults(cut, later)
    assert (await system.post("/chat", {"message": "What will be cut?"})).status_code in {200, 502}
    await system.client.jetstream().delete_consumer("REQUESTS", "categorizer-medium")
    await system.chat("What is the capital of Malta?")  # the categorizer may make its consumers anew
    log = (system.folder / "nats" / "nats-server.log").read_text()
    denied = [line for line in log.splitlines() if "violation" in line.lower() and "probe" not in line]
    assert not denied, "\n".join(denied)[:3_000]
