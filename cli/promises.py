"""What a Segue promises over HTTP, each as a check that asks and looks. The facts stand in `docs/api.md`."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from client import Segue

Check = Callable[[Segue], str]
"""Returns what was seen. Raises `Broken`, or `RequestFailed` when the gateway said no."""
Field = tuple[str, type | tuple[type, ...]]

EVERYDAY: Final = "What is the capital of France?"
COMPLEX: Final = (
    "Plan the launch of a small electric cargo bike: research the market and the competitors, then write a slogan, "
    "three social media posts and an e-mail, then evaluate everything and summarise it in a report."
)
HEALTH: Final[tuple[Field, ...]] = (
    ("status", str),
    ("timestamp", str),
    ("version", str),
    ("models_available", int),
)
CHAT: Final[tuple[Field, ...]] = (
    ("session_id", str),
    ("response", str),
    ("category", str),
    ("timestamp", str),
    ("model_used", str),
)
WORKFLOW: Final[tuple[Field, ...]] = (("status", str), ("result", dict), ("execution_time", (int, float)))
STATS: Final[tuple[Field, ...]] = (
    ("active_sessions", int),
    ("total_messages", int),
    ("uptime_seconds", (int, float)),
    ("timestamp", str),
)
TOPIC: Final = "tidal power"


class Broken(AssertionError):
    """A promise that was not kept."""


@dataclass(frozen=True, slots=True)
class Mode:
    """One of the modes of `segue check`, with what it looks at."""

    name: str
    title: str
    checks: tuple[tuple[str, Check], ...]


def fields(body: dict[str, Any], wanted: tuple[Field, ...]) -> None:
    """Fail when a promised field is missing, is something else, or is an empty text or no time."""
    missing = [name for name, _ in wanted if name not in body]
    if missing:
        raise Broken(f"fields missing: {', '.join(missing)}; there are {', '.join(body)}")
    for name, kind in wanted:
        value: Any = body[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise Broken(f"{name} is {value!r}, which is no {kind}")
        if isinstance(value, str) and not value.strip():
            raise Broken(f"{name} is empty")
        if name in {"timestamp", "created_at"}:
            _time(name, str(value))


def _time(name: str, text: str) -> None:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise Broken(f"{name} is {text!r}, which is no ISO 8601 time") from None


def same(what: str, seen: object, promised: object) -> None:
    """Fail when something is not as promised."""
    if seen != promised:
        raise Broken(f"{what} is {seen!r}, not {promised!r}")


def refused(client: Segue, method: str, path: str, status: int, body: object = None) -> object:
    """Return the `detail` of a request that has to be refused in this way."""
    answer = client.send(method, path, body)
    same(f"the status of {method} {path}", answer.status_code, status)
    detail = answer.json().get("detail")
    if not detail:
        raise Broken(f"{method} {path} was refused without detail: {answer.text[:200]}")
    return detail


def categorised(body: dict[str, Any], letter: str) -> str:
    """Return what the categorizer said. A real one may decide otherwise; the simulator may not."""
    if body.get("simulated"):
        same("category", body["category"], letter)
    elif body["category"] not in {"L", "M", "H"}:
        raise Broken(f"category is {body['category']!r}")
    return f"category {body['category']}" + ("" if body["category"] == letter else f" ({letter} was expected)")


def health(path: str) -> Check:
    def check(client: Segue) -> str:
        body = client.get(path)
        fields(body, HEALTH)
        if body["status"] not in {"healthy", "ok"}:
            raise Broken(f"status is {body['status']!r}: {body.get('problem')}")
        return f"{body['status']}, version {body['version']}, {body['models_available']} models available"

    return check


def listing(path: str, member: str, wanted: tuple[Field, ...]) -> Check:
    """Return the check of a list endpoint, `{member: […], count}`; without fields its entries are names."""

    def check(client: Segue) -> str:
        body = client.get(path)
        fields(body, ((member, list), ("count", int)))
        entries = body[member]
        same("count", body["count"], len(entries))
        if not entries:
            raise Broken(f"{member} is empty")
        for entry in entries:
            if wanted:
                fields(entry, wanted)
            elif not isinstance(entry, str):
                raise Broken(f"{entry!r} is no name")
        names = [entry if isinstance(entry, str) else entry["name"] for entry in entries]
        same("the number of different names", len(set(names)), len(names))
        return f"{len(names)}: {', '.join(names[:4])}{', …' if len(names) > 4 else ''}"

    return check


def stats(client: Segue) -> str:
    body = client.get("/stats")
    fields(body, STATS)
    return f"{body['active_sessions']} sessions, {body['total_messages']} messages, up {body['uptime_seconds']:.0f} s"


def documentation(client: Segue) -> str:
    paths = client.get("/openapi.json")["paths"]
    promised = ("/chat", "/workflow", "/template/{name}", "/session/{session_id}", "/models", "/addons", "/templates")
    for path in promised:
        plain = path.partition("{")[0]
        if not any(found.partition("{")[0] == plain for found in paths):
            raise Broken(f"{path} is not documented")
    for page in ("/docs", "/redoc"):
        same(f"the status of {page}", client.send("GET", page).status_code, 200)
    return f"{len(paths)} paths documented, /docs and /redoc are there"


def nothing_there(client: Segue) -> str:
    for method, path, body in (
        ("GET", "/session/nobody-has-this-one", None),
        ("POST", "/template/nobody-has-this-one", {}),
        ("GET", "/nothing/here", None),
    ):
        refused(client, method, path, 404, body)
    return "unknown session, template and path: 404 with detail"


def simple(client: Segue) -> str:
    body = client.post("/chat", {"message": EVERYDAY})
    fields(body, CHAT)
    return f"{categorised(body, 'M')}, {body['model_used']}"


def malformed(client: Segue) -> str:
    for wrong in ({}, {"message": "  "}, {"message": 7}, {"message": EVERYDAY, "context_tokens": -1}):
        refused(client, "POST", "/chat", 422, wrong)
    return "4 wrong bodies: 422 with detail"


def complex_task(client: Segue) -> str:
    body = client.post("/chat", {"message": COMPLEX})
    fields(body, (*CHAT, ("calls", int)))
    said = categorised(body, "H")
    note = f" ({body['note']})" if body.get("note") else ""
    if body["category"] == "H" and not note:
        if not body.get("acknowledgement"):
            raise Broken("an orchestrated request was not acknowledged")
        if body["calls"] < 4:
            raise Broken(f"{body['calls']} calls are too few for categorising, acknowledging, planning and a workflow")
    return f"{said}, {body['calls']} calls, {float(body.get('cost_usd') or 0):.6f} USD{note}"


def two_steps(client: Segue) -> str:
    """The second step can only know the code word from the first one's result."""
    word = f"zeppelin-{secrets.token_hex(3)}"
    steps = (
        ("sentence", "Write one short sentence that contains the code word {word} exactly as it stands here."),
        ("found", "Which code word is in this sentence? Repeat it exactly. The sentence: {sentence}"),
    )
    queues = [
        {"type": "inline", "tasks": [{"model": "medium_ai", "prompt": prompt, "output_variable": name}]}
        for name, prompt in steps
    ]
    body = client.post("/workflow", {"workflow": queues, "variables": {"word": word}})
    fields(body, WORKFLOW)
    fields(body["result"], (("sentence", str), ("found", str)))
    same("status", body["status"], "completed")
    if "{sentence}" in body["result"]["found"]:
        raise Broken("the first result was not put into the second prompt")
    took = f"{body['execution_time']:.2f} s"
    if word in body["result"]["sentence"] and word in body["result"]["found"]:
        return f"both results know the code word {word}, {took}"
    if body.get("simulated"):
        raise Broken(f"the code word {word} did not get through: {body['result']}")
    return f"both steps answered, {took}; the model did not repeat the code word, so what it was told cannot be seen"


def side_by_side(client: Segue) -> str:
    tasks = [
        {"model": "fast_ai", "prompt": f"One argument {side} {{topic}}.", "output_variable": f"argument_{side}"}
        for side in ("for", "against")
    ]
    body = client.post("/workflow", {"workflow": [{"type": "linear", "tasks": tasks}], "variables": {"topic": TOPIC}})
    fields(body, WORKFLOW)
    fields(body["result"], tuple((task["output_variable"], str) for task in tasks))
    return f"2 results in {body['execution_time']:.2f} s"


def wrong_workflow(client: Segue) -> str:
    queue = {"type": "inline", "tasks": [{"model": "nobody", "prompt": "{nothing}", "output_variable": "x"}]}
    detail = refused(client, "POST", "/workflow", 422, {"workflow": [queue]})
    text = str(detail)
    if "nobody" not in text or "nothing" not in text:
        raise Broken(f"not both mistakes are named: {text[:300]}")
    return "a wrong workflow is refused with every mistake named"


def template(client: Segue) -> str:
    body = client.post("/template/research_report", {"topic": TOPIC})
    fields(body, WORKFLOW)
    same("status", body["status"], "completed")
    texts = {name: text for name, text in body["result"].items() if isinstance(text, str) and text != TOPIC}
    if len(texts) < 2 or not all(text.strip() for text in texts.values()):
        raise Broken(f"the results are {body['result']!r}")
    if body.get("simulated") and not any(TOPIC in text for text in texts.values()):
        raise Broken(f"no result is about {TOPIC!r}")
    return f"research_report: {len(texts)} results in {body['execution_time']:.2f} s"


def template_without_variables(client: Segue) -> str:
    detail = refused(client, "POST", "/template/research_report", 422, {})
    if "topic" not in str(detail):
        raise Broken(f"the variable that is missing is not named: {detail}")
    return "without its topic it is refused, and the topic named"


def conversation(client: Segue) -> str:
    """Two turns; the session has both, and the second one knows the first."""
    word = f"quagga-{secrets.token_hex(3)}"
    first = client.post("/chat", {"message": f"My code word is {word}. Please remember it."})
    fields(first, CHAT)
    second = client.post("/chat", {"message": "What is my code word?", "session_id": first["session_id"]})
    fields(second, CHAT)
    same("session_id", second["session_id"], first["session_id"])
    path = f"/session/{first['session_id']}"
    session = client.get(path)
    fields(session, (("created_at", str), ("messages", list)))
    same("the roles", [one["role"] for one in session["messages"]], ["user", "assistant"] * 2)
    for message in session["messages"]:
        fields(message, (("role", str), ("content", str), ("timestamp", str)))
    same("the last message", session["messages"][-1]["content"], second["response"])
    known = word in second["response"]
    if second.get("simulated") and not known:
        raise Broken(f"the second answer does not know {word}: {second['response'][:300]}")
    gone = client.send("DELETE", path).json()
    same("the answer to DELETE", gone, {"status": "deleted", "session_id": first["session_id"]})
    refused(client, "GET", path, 404)
    return f"2 turns, {'the second knows the first' if known else 'kept'}, then deleted"


def streamed(client: Segue) -> str:
    """The events come in order, and the tokens of the last call are the answer."""
    events = list(client.stream_chat(EVERYDAY))
    names = [event.name for event in events]
    order = [name for name in dict.fromkeys(names) if name != "restart"]
    last = [event for event in events if event.name in {"answer", "error"}]
    if not last or last[0].name != "answer":
        raise Broken(f"no answer came: {names}")
    fields(last[0].data, CHAT)
    promised = [
        name for name in ("accepted", "category", "acknowledgement", "token", "answer", "done") if name in order
    ]
    same("the order of the events", order, promised)
    same("the first and the last event", (names[0], names[-1]), ("accepted", "done"))
    return f"{len(events)} events: {', '.join(order)}"


MODES: Final = (
    Mode(
        "basic",
        "health, models, addons, templates",
        (
            ("GET /health", health("/health")),
            ("GET /", health("/")),
            (
                "GET /models",
                listing("/models", "models", (("name", str), ("provider", str), ("model", str), ("purpose", str))),
            ),
            ("GET /addons", listing("/addons", "addons", ())),
            (
                "GET /templates",
                listing("/templates", "templates", (("name", str), ("description", str), ("steps", int))),
            ),
            ("GET /stats", stats),
            ("GET /docs", documentation),
            ("what is not there", nothing_there),
        ),
    ),
    Mode("simple", "a simple question (M)", (("POST /chat", simple), ("POST /chat, wrong bodies", malformed))),
    Mode("complex", "a complex task (H)", (("POST /chat", complex_task),)),
    Mode(
        "workflow",
        "a workflow of your own, two steps with variables",
        (
            ("POST /workflow, two steps", two_steps),
            ("POST /workflow, side by side", side_by_side),
            ("POST /workflow, wrong", wrong_workflow),
        ),
    ),
    Mode(
        "template",
        "a template",
        (("POST /template", template), ("POST /template, no topic", template_without_variables)),
    ),
    Mode("chat", "a conversation", (("two turns", conversation), ("live", streamed))),
)
