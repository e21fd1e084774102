"""`segue check` passes what keeps its promises and fails what breaks one, whichever it is."""

import io
import json
from typing import Any

import pytest
from rich.console import Console
from starlette.responses import JSONResponse

from cli.check import check
from client import Segue
from tests.cli.gateway import Break, Gateway


def checked(client: Segue, mode: str = "all") -> tuple[int, str]:
    """Return how many checks failed, and what was printed."""
    out = io.StringIO()
    failed = check(client, mode, Console(file=out, width=400))
    return failed, out.getvalue()


def test_a_right_gateway_passes_everything(client: Segue) -> None:
    failed, said = checked(client)
    assert failed == 0, said
    assert "all 18 passed" in said
    assert [line.split(":")[0] for line in said.splitlines() if not line.startswith(" ")][:-1] == [
        "basic",
        "simple",
        "complex",
        "workflow",
        "template",
        "chat",
    ]


@pytest.mark.parametrize("mode", ["basic", "simple", "complex", "workflow", "template", "chat"])
def test_a_mode_checks_its_own(client: Segue, mode: str) -> None:
    failed, said = checked(client, mode)
    assert failed == 0
    assert said.splitlines()[0].startswith(f"{mode}:")
    assert sum(not line.startswith(" ") for line in said.splitlines()) == 2


def changed(where: str, **changes: Any) -> Break:
    """Return a break: fields of an answer with another value, None takes the field out."""

    def change(method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path != where or "detail" in body or method == "STREAM":
            return body
        return {name: value for name, value in {**body, **changes}.items() if value is not None}

    return change


def deleted_otherwise(method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"status": "gone"} if method == "DELETE" else body


def accepts_everything(method: str, path: str, body: dict[str, Any]) -> Any:
    return JSONResponse(body, 200) if "detail" in body else body


def without_detail(method: str, path: str, body: dict[str, Any]) -> Any:
    return JSONResponse({"error": "no"}, 404) if body == {"detail": "not here"} else body


def forgets_the_first_step(method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    if path != "/workflow" or "found" not in body.get("result", {}):
        return body
    return {**body, "result": {**body["result"], "found": "[simulated] something"}}


def does_not_substitute(method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    if path != "/workflow" or "found" not in body.get("result", {}):
        return body
    return {**body, "simulated": False, "result": {**body["result"], "found": "in this sentence: {sentence}"}}


def names_one_mistake_only(method: str, path: str, body: dict[str, Any]) -> Any:
    if path != "/workflow" or "detail" not in body:
        return body
    return JSONResponse({"detail": body["detail"][:1]}, 422)


def forgets_the_first_turn(method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """In the answer and in the session alike."""
    if path == "/chat" and "What is my code word?" in body.get("response", ""):
        return {**body, "response": "[simulated] no idea"}
    if path.startswith("/session/") and len(body.get("messages", [])) == 4:
        return {**body, "messages": [*body["messages"][:3], {**body["messages"][3], "content": "[simulated] no idea"}]}
    return body


def answers_before_it_categorises(method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    if method != "STREAM":
        return body
    events = body["events"]
    return {"events": [events[0], events[-2], *events[1:-2], events[-1]]}


def never_answers(method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    if method != "STREAM":
        return body
    return {"events": [event for event in body["events"] if event[0] != "answer"]}


@pytest.mark.parametrize(
    ("broken", "mode", "said"),
    [
        (changed("/health", status="unhealthy"), "basic", "status is 'unhealthy'"),
        (changed("/health", timestamp="yesterday"), "basic", "no ISO 8601 time"),
        (changed("/", version=None), "basic", "fields missing: version"),
        (changed("/models", count=7), "basic", "count is 7, not 1"),
        (changed("/models", models=[{"name": "x"}], count=1), "basic", "fields missing: provider, model, purpose"),
        (changed("/addons", addons=[], count=0), "basic", "addons is empty"),
        (changed("/addons", addons=["a", "a"], count=2), "basic", "different names"),
        (changed("/templates", templates=[{"name": "t", "description": "d", "steps": "4"}]), "basic", "steps is '4'"),
        (changed("/stats", total_messages=None), "basic", "fields missing: total_messages"),
        (changed("/openapi.json", paths={"/chat": {}}), "basic", "/workflow is not documented"),
        (accepts_everything, "basic", "the status of GET /session/nobody-has-this-one is 200, not 404"),
        (without_detail, "basic", "without detail"),
        (changed("/chat", response="  "), "simple", "response is empty"),
        (changed("/chat", session_id=None), "simple", "fields missing: session_id"),
        (changed("/chat", category="L"), "simple", "category is 'L', not 'M'"),
        (changed("/chat", category="X", simulated=False), "simple", "category is 'X'"),
        (accepts_everything, "simple", "is 200, not 422"),
        (changed("/chat", acknowledgement=None), "complex", "not acknowledged"),
        (changed("/chat", calls=1), "complex", "too few"),
        (changed("/chat", category="M"), "complex", "category is 'M', not 'H'"),
        (forgets_the_first_step, "workflow", "did not get through"),
        (does_not_substitute, "workflow", "was not put into the second prompt"),
        (changed("/workflow", status="failed"), "workflow", "status is 'failed'"),
        (names_one_mistake_only, "workflow", "not both mistakes are named"),
        (changed("/template/research_report", result={}), "template", "the results are {}"),
        (changed("/template/research_report", result={"a": "b", "c": "d"}), "template", "no result is about"),
        (accepts_everything, "template", "is 200, not 422"),
        (forgets_the_first_turn, "chat", "does not know"),
        (deleted_otherwise, "chat", "the answer to DELETE"),
        (answers_before_it_categorises, "chat", "the order of the events"),
        (never_answers, "chat", "ended without an answer"),
        (lambda *_: JSONResponse([1, 2]), "basic", "this is no Segue"),
        (lambda *_: JSONResponse({"detail": "down"}, 503), "simple", "down"),
    ],
)
def test_a_broken_promise_fails_and_is_named(
    gateway: Gateway, client: Segue, broken: Break, mode: str, said: str
) -> None:
    gateway.broken = broken
    failed, printed = checked(client, mode)
    assert failed >= 1
    assert said in printed
    assert f"{failed} of " in printed


def test_a_real_model_that_does_not_repeat_the_word_breaks_no_promise(gateway: Gateway, client: Segue) -> None:
    """What a model says is its own affair; what can be seen is said."""

    def real(method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        body = json.loads(json.dumps(body).replace("zeppelin", "airship").replace("quagga", "zebra"))
        return {**body, "simulated": False} if "simulated" in body else body

    gateway.broken = real
    failed, said = checked(client, "workflow")
    assert failed == 0, said
    assert "the model did not repeat the code word" in said
