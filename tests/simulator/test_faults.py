"""Every scripted fault as a client sees it, and which requests a rule hits."""

import asyncio
import json
import time
from typing import Any

import httpx
import pytest

from services.categorizer.routing import read_letter
from shared.workflows.validation import Catalogue, Invalid, validate
from simulator.testing import Simulator
from tests.conftest import eventually
from tests.simulator.conftest import MODEL, TICK_S, asking, events, said

LETTER = {"role": "system", "content": "Answer with exactly one letter: L, M or H."}
PLANNER = {"role": "system", "content": "Write a workflow as JSON. Roles: medium_ai, fast_ai, thinking_ai."}


def fault(kind: str, **parameters: Any) -> dict[str, Any]:
    return {"fault": {"kind": kind, **parameters}}


async def ask(http: httpx.AsyncClient, text: str = "Why?", **fields: Any) -> httpx.Response:
    return await http.post("/chat/completions", json=asking(text, **fields))


def with_system(system: dict[str, str], text: str) -> dict[str, Any]:
    return asking(text, messages=[system, {"role": "user", "content": text}])


async def entry_of(sim: Simulator) -> dict[str, Any]:
    """Return the one entry, when it is settled."""

    async def settled() -> bool:
        return bool((await sim.totals())["open"] == 0)

    await eventually(settled)
    (entry,) = await sim.ledger()
    return entry


async def _hangs(sim: Simulator) -> bool:
    return bool((await sim.totals())["open"] == 1)


async def _go(waiting: asyncio.Task[Any]) -> None:
    """Be a client that gives up: nothing more came."""
    await asyncio.wait({waiting}, timeout=0.2)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.wait({waiting})


@pytest.mark.parametrize(
    ("status", "error_type"),
    [
        (400, "invalid_request"),
        (401, "authentication"),
        (402, "payment_required"),
        (403, "permission_denied"),
        (404, "not_found"),
        (408, "timeout"),
        (429, "rate_limit_exceeded"),
        (500, "server"),
        (502, "provider_unavailable"),
        (503, "provider_overloaded"),
        (504, "timeout"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_status(http: httpx.AsyncClient, sim: Simulator, status: int, error_type: str, stream: bool) -> None:
    """An error status with OpenRouter's body; nothing is billed."""
    await sim.faults(fault("status", status=status))
    answer = await ask(http, stream=stream)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"] == status
    assert error["metadata"]["error_type"] == error_type
    entry = await entry_of(sim)
    assert (entry["status"], entry["outcome"], entry["fault"], entry["cost_usd"]) == (status, "error", "status", 0)


async def test_status_takes_every_detail(http: httpx.AsyncClient, sim: Simulator) -> None:
    await sim.faults(
        fault(
            "status",
            status=402,
            code="in_flight",
            error_type="in_flight_budget_exhausted",
            message="later",
            retry_after_s=1.5,
            fallback_models=["a/b"],
            headers={"X-Extra": "yes"},
        )
    )
    answer = await ask(http)
    assert answer.headers["retry-after"] == "1.5"
    assert answer.headers["x-extra"] == "yes"
    error = answer.json()["error"]
    assert (error["code"], error["message"]) == ("in_flight", "later")
    assert error["availability"]["fallback_models"] == ["a/b"]


@pytest.mark.parametrize("retry_after_s", [None, 2])
async def test_rate_limit(http: httpx.AsyncClient, sim: Simulator, retry_after_s: float | None) -> None:
    """With and without Retry-After; the platform's own limits have headers that others have not."""
    await sim.faults(fault("rate_limit", retry_after_s=retry_after_s), fault("rate_limit", platform=True))
    upstream, platform = await ask(http), await ask(http)
    assert upstream.status_code == platform.status_code == 429
    assert upstream.headers.get("retry-after") == (None if retry_after_s is None else "2")
    assert "x-ratelimit-limit" not in upstream.headers
    assert int(platform.headers["x-ratelimit-reset"]) > time.time() * 1000


async def test_timeout_until_the_client_goes(http: httpx.AsyncClient, sim: Simulator) -> None:
    await sim.faults(fault("timeout"))
    waiting = asyncio.create_task(ask(http))
    await eventually(lambda: _hangs(sim))
    await _go(waiting)
    entry = await entry_of(sim)
    assert (entry["outcome"], entry["disconnected"]) == ("hung", True)


async def test_timeout_that_ends(http: httpx.AsyncClient, sim: Simulator) -> None:
    """After its time the connection is closed without an answer."""
    await sim.faults(fault("timeout", for_s=0.1))
    with pytest.raises(httpx.RemoteProtocolError):
        await ask(http)
    entry = await entry_of(sim)
    assert (entry["outcome"], entry["disconnected"]) == ("hung", False)


async def test_delay(http: httpx.AsyncClient, sim: Simulator) -> None:
    """Late, then as ever; every other fault can be late too."""
    await sim.faults(fault("delay", delay_s=0.15), fault("status", status=500, delay_s=0.15))
    began = time.monotonic()
    assert said(await ask(http))
    assert time.monotonic() - began >= 0.15 - TICK_S
    assert (await ask(http)).status_code == 500
    assert time.monotonic() - began >= 0.3 - 2 * TICK_S


async def test_reset(http: httpx.AsyncClient, sim: Simulator) -> None:
    await sim.faults(fault("reset"))
    with pytest.raises(httpx.ReadError):
        await ask(http)
    assert (await entry_of(sim))["outcome"] == "cut"
    assert said(await ask(http))


async def test_cut_stream_that_looks_finished(http: httpx.AsyncClient, sim: Simulator) -> None:
    """A well-formed end of the HTTP response, with neither an error nor `[DONE]`: only its absence shows the cut."""
    await sim.faults(fault("cut_stream", after_chunks=2))
    answer = await ask(http, stream=True)
    assert answer.status_code == 200
    got = events(answer.text)
    assert len(got) == 2
    assert all(json.loads(one)["choices"][0]["finish_reason"] is None for one in got)
    entry = await entry_of(sim)
    assert entry["outcome"] == "cut"
    assert entry["completion_tokens"] == 48


@pytest.mark.parametrize(("how", "error"), [("close", httpx.RemoteProtocolError), ("reset", httpx.ReadError)])
@pytest.mark.parametrize("stream", [True, False])
async def test_cut_connection(
    http: httpx.AsyncClient, sim: Simulator, how: str, error: type[Exception], stream: bool
) -> None:
    """The connection ends in the middle of the body, streamed or not."""
    await sim.faults(fault("cut_stream", how=how, after_chunks=1))
    with pytest.raises((error, httpx.RemoteProtocolError)):
        await ask(http, stream=stream)
    assert (await entry_of(sim))["outcome"] == "cut"


async def test_stall(http: httpx.AsyncClient, sim: Simulator) -> None:
    """The stream stops after a piece and goes on later, or never."""
    await sim.faults(fault("stall", after_chunks=1, for_s=0.15), fault("stall", after_chunks=1))
    began = time.monotonic()
    answer = await ask(http, stream=True)
    assert events(answer.text)[-1] == "[DONE]"
    assert time.monotonic() - began >= 0.15 - TICK_S
    await sim.clear_ledger()
    lines: list[str] = []

    async def read() -> None:
        async with http.stream("POST", "/chat/completions", json=asking(stream=True)) as answer:
            async for line in answer.aiter_lines():
                lines.append(line)

    reading = asyncio.create_task(read())
    await eventually(lambda: bool(events("\n".join(lines))))
    await _go(reading)
    assert len(events("\n".join(lines))) == 1
    entry = await entry_of(sim)
    assert (entry["outcome"], entry["disconnected"], entry["completion_tokens"]) == ("hung", True, 24)


async def test_error_in_stream(http: httpx.AsyncClient, sim: Simulator) -> None:
    """Status 200, a piece, then an event with a top-level error and the finish reason `error`, and no `[DONE]`."""
    await sim.faults(fault("error_in_stream", after_chunks=1, code="overloaded", error_type="provider_overloaded"))
    answer = await ask(http, stream=True)
    assert answer.status_code == 200
    first, last = [json.loads(one) for one in events(answer.text)]
    assert first["choices"][0]["delta"]["content"].startswith("[simulated]")
    assert last["choices"][0]["finish_reason"] == "error"
    assert last["error"]["code"] == "overloaded"
    assert last["error"]["metadata"]["error_type"] == "provider_overloaded"
    assert (await entry_of(sim))["outcome"] == "error"


async def test_error_in_200(http: httpx.AsyncClient, sim: Simulator) -> None:
    await sim.faults(fault("error_in_200", code=502))
    answer = await ask(http)
    assert answer.status_code == 200
    (choice,) = answer.json()["choices"]
    assert choice["error"]["code"] == 502
    assert choice["finish_reason"] == "error"
    assert (await entry_of(sim))["outcome"] == "error"


async def test_empty(http: httpx.AsyncClient, sim: Simulator) -> None:
    """Four ways of saying nothing."""
    await sim.faults(*(fault("empty", what=what) for what in ("text", "null", "choices", "body")))
    assert (await ask(http)).json()["choices"][0]["message"]["content"] == ""
    assert (await ask(http)).json()["choices"][0]["message"]["content"] is None
    assert (await ask(http)).json()["choices"] == []
    assert (await ask(http)).content == b""
    await sim.faults(fault("empty"), fault("empty", what="choices"))
    text = events((await ask(http, stream=True)).text)
    assert [json.loads(one)["choices"][0]["delta"]["content"] for one in text[:-2]] == [""]
    nothing = events((await ask(http, stream=True)).text)
    assert [json.loads(one)["choices"] for one in nothing[:-1]] == [[]]


@pytest.mark.parametrize("what", ["json", "html", "event"])
@pytest.mark.parametrize("stream", [True, False])
async def test_malformed(http: httpx.AsyncClient, sim: Simulator, what: str, stream: bool) -> None:
    """Status 200 and nothing that could be read."""
    await sim.faults(fault("malformed", what=what))
    answer = await ask(http, stream=stream)
    assert answer.status_code == 200
    texts = [one for one in events(answer.text) if one != "[DONE]"] if stream and what != "html" else [answer.text]
    assert texts
    for text in texts:
        with pytest.raises(ValueError, match=r"."):
            json.loads(text)


async def test_oversized(http: httpx.AsyncClient, sim: Simulator) -> None:
    """As long as asked for, in spite of `max_tokens`."""
    await sim.faults(fault("oversized", bytes=3_000_000), fault("oversized", bytes=300_000))
    assert len(said(await ask(http, max_tokens=5))) == 3_000_000
    assert len((await ask(http, stream=True)).text) > 300_000


async def test_refusal(http: httpx.AsyncClient, sim: Simulator) -> None:
    await sim.faults(fault("refusal"), fault("refusal", how="status"))
    (choice,) = (await ask(http)).json()["choices"]
    assert choice["finish_reason"] == "content_filter"
    assert choice["message"]["refusal"] == choice["message"]["content"]
    answer = await ask(http)
    assert answer.status_code == 400
    assert answer.json()["error"]["metadata"]["error_type"] == "refusal"


async def test_wrong_letter(http: httpx.AsyncClient, sim: Simulator) -> None:
    """Only the categorizer's request is hit, and only it counts."""
    await sim.faults(fault("wrong_letter"))
    assert said(await ask(http)).startswith("[simulated]")
    asked = with_system(LETTER, "What is the capital of France?")
    assert read_letter(said(await http.post("/chat/completions", json=asked))) is None
    assert said(await http.post("/chat/completions", json=asked)) == "M"


async def test_invalid_plan(http: httpx.AsyncClient, sim: Simulator) -> None:
    """Broken JSON, a model that nobody knows, a variable that nobody wrote; then a plan that runs."""
    catalogue = Catalogue(frozenset({"medium_ai", "fast_ai", "thinking_ai"}), frozenset())
    await sim.faults(
        *(fault("invalid_plan", how=how) for how in ("broken_json", "unknown_model", "undefined_variable"))
    )
    asked = with_system(PLANNER, "Research kites and write a report and an e-mail about them.")
    texts = [said(await http.post("/chat/completions", json=asked)) for _ in range(4)]
    with pytest.raises(ValueError, match=r"."):
        json.loads(texts[0])
    codes = []
    for text in texts[1:3]:
        checked = validate(json.loads(text), catalogue)
        assert isinstance(checked, Invalid)
        codes.append([problem.code for problem in checked.problems])
    assert codes == [["unknown_model"], ["undefined_variable"]]
    assert not isinstance(validate(json.loads(texts[3]), catalogue), Invalid)


async def test_scripted_answer(http: httpx.AsyncClient, sim: Simulator) -> None:
    await sim.faults(fault("answer", text="exactly this", finish_reason="length"))
    body = (await ask(http)).json()
    assert body["choices"][0]["message"]["content"] == "exactly this"
    assert body["choices"][0]["finish_reason"] == "length"


async def test_served_by_another_model(http: httpx.AsyncClient, sim: Simulator) -> None:
    """What answered is what is named and billed."""
    await sim.faults(fault("served_by", model="google/gemini-2.5-pro"))
    there = (await ask(http)).json()
    here = (await ask(http)).json()
    assert (there["model"], here["model"]) == ("google/gemini-2.5-pro", MODEL)
    assert there["usage"]["cost"] > here["usage"]["cost"] * 5


async def test_usage(http: httpx.AsyncClient, sim: Simulator) -> None:
    """Not at all, without a cost, or partly from a cache; the ledger knows the cost all the same."""
    await sim.faults(fault("usage", missing=True), fault("usage", without_cost=True), fault("usage", cached_tokens=4))
    assert "usage" not in (await ask(http)).json()
    without = (await ask(http)).json()["usage"]
    assert "cost" not in without
    assert without["prompt_tokens"] > 0
    cached = (await ask(http, stream=True)).text
    assert json.loads(events(cached)[-2])["usage"]["prompt_tokens_details"]["cached_tokens"] == 4
    assert all(entry["cost_usd"] > 0 for entry in await sim.ledger())


async def test_falls_over_inside_openrouter(http: httpx.AsyncClient, sim: Simulator) -> None:
    """With `models`, the next one answers when the first is down; only the answer is on the ledger."""
    await sim.faults(
        {"match": {"model": "bad/*"}, "times": "forever", "fault": {"kind": "status", "status": 503}},
    )
    body = asking(model="bad/one", models=["bad/one", "bad/two", "good/three"])
    assert (await http.post("/chat/completions", json=body)).json()["model"] == "good/three"
    body = asking(model="bad/one", models=["bad/two"])
    assert (await http.post("/chat/completions", json=body)).status_code == 503
    assert [entry["model"] for entry in await sim.ledger()] == ["good/three", "bad/two"]


async def test_match(http: httpx.AsyncClient, sim: Simulator) -> None:
    """Everything that is given must hold; the first rule that takes a request decides; counts are kept."""
    status = {"kind": "status", "status": 500}
    await sim.faults(
        {"match": {"model": "google/*", "contains": "kite"}, "times": "forever", "fault": status},
        {"match": {"header": {"X-Segue-Call": "answer"}, "stream": True}, "times": "forever", "fault": status},
        {"match": {"answers": "letter"}, "times": 2, "fault": status},
        {"match": {"contains": "third", "index": 2}, "times": "forever", "fault": status},
        {"match": {"contains": "some", "index": [0, 3]}, "times": "forever", "fault": status},
    )

    async def hit(text: str, headers: dict[str, str] | None = None, **fields: Any) -> bool:
        answer = await http.post("/chat/completions", json=asking(text, **fields), headers=headers)
        return answer.status_code == 500

    assert await hit("a kite", model="google/x")
    assert not await hit("a kite")
    assert not await hit("a boat", model="google/x")
    assert await hit("x", {"x-segue-call": "answer"}, stream=True)
    assert not await hit("x", {"x-segue-call": "answer"})
    assert not await hit("x", {"x-segue-call": "plan-0"}, stream=True)
    letters = [with_system(LETTER, "Hello?")] * 3
    statuses = [(await http.post("/chat/completions", json=body)).status_code for body in letters]
    assert statuses == [500, 500, 200]
    assert [await hit("third") for _ in range(4)] == [False, False, True, False]
    assert [await hit("some") for _ in range(5)] == [True, False, False, True, False]
    assert [rule["used"] for rule in await sim.faults()] == [1, 1, 2, 1, 2]
    await sim.clear_faults()
    assert await sim.faults() == []
    assert not await hit("a kite", model="google/x")


async def test_probability_follows_from_the_seed(http: httpx.AsyncClient, sim: Simulator) -> None:
    """About the given share, and the same requests each time."""
    rule = {"times": "forever", "probability": 0.3, "fault": {"kind": "status", "status": 500}}
    runs = []
    for _ in range(2):
        await sim.clear_faults()
        await sim.faults(rule)
        runs.append([(await ask(http)).status_code for _ in range(60)])
    assert runs[0] == runs[1]
    assert 8 <= runs[0].count(500) <= 28


async def test_a_storm_leaves_a_true_ledger(http: httpx.AsyncClient, sim: Simulator) -> None:
    """Many at once, a third of them failing: the ledger has each once, with the outcome that its client saw."""
    await sim.faults(
        {"times": "forever", "probability": 0.2, "fault": {"kind": "rate_limit", "retry_after_s": 1}},
        {"times": "forever", "probability": 0.2, "fault": {"kind": "status", "status": 503}},
    )
    answers = await asyncio.gather(
        *(http.post("/chat/completions", json=asking(str(n)), headers={"X-Segue-Run": f"r{n}"}) for n in range(150))
    )
    ledger = {entry["run"]: entry for entry in await sim.ledger()}
    assert {run: entry["status"] for run, entry in ledger.items()} == {
        f"r{n}": answer.status_code for n, answer in enumerate(answers)
    }
    assert (await sim.totals())["open"] == 0
    spent = sum(answer.json()["usage"]["cost"] for answer in answers if answer.status_code == 200)
    assert (await sim.totals())["cost_usd"] == pytest.approx(spent)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ([{"fault": {"kind": "meteor"}}], "meteor"),
        ([{"fault": {"kind": "status"}}], "status"),
        ([{"fault": {"kind": "status", "status": 200}}], "400"),
        ([{"fault": {"kind": "reset"}, "times": 0}], "times"),
        ([{"fault": {"kind": "reset"}, "match": {"modell": "x"}}], "modell"),
        ([{"fault": {"kind": "status", "status": 500, "headers": {"a b": "x"}}}], "header"),
    ],
)
async def test_wrong_scripts_are_refused(sim: Simulator, body: Any, told: str) -> None:
    """422 that names what is wrong, and nothing of it is scripted."""
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{sim.address}/__sim/faults", json=body)
    assert answer.status_code == 422
    assert told in answer.json()["detail"]
    assert await sim.faults() == []
