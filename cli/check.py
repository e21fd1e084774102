"""`segue check`: does a running Segue do what it promises? Seven modes; the first one runs all the automatic ones."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console

from cli.client import Client, Failure

EVERYDAY: Final = "What is the capital of France?"
COMPLEX: Final = (
    "Plan the launch of a small electric cargo bike: research the market and the competitors, then write a slogan, "
    "three social media posts and an e-mail, then evaluate everything and summarise it in a report."
)
MARK: Final = "zeppelin"


class NotSo(AssertionError):
    """A promise that was not kept."""


@dataclass(frozen=True, slots=True)
class Mode:
    name: str
    title: str
    checks: tuple[tuple[str, Callable[[Client], str]], ...]


def fields(body: dict[str, Any], wanted: Iterable[str]) -> None:
    """Fail when one of the promised fields is missing."""
    missing = [name for name in wanted if name not in body]
    if missing:
        raise NotSo(f"fields missing: {', '.join(missing)}; there are {', '.join(body)}")


def health(client: Client) -> str:
    body = client.get("/health")
    fields(body, ("status", "timestamp", "version", "models_available"))
    if body["status"] not in {"healthy", "ok"}:
        raise NotSo(f"status is {body['status']!r}")
    return f"{body['status']}, version {body['version']}"


def listing(path: str, member: str, wanted: tuple[str, ...]) -> Callable[[Client], str]:
    """Return the check of a list endpoint: {member: […], count}."""

    def check(client: Client) -> str:
        body = client.get(path)
        fields(body, (member, "count"))
        if body["count"] != len(body[member]) or not body[member]:
            raise NotSo(f"count is {body['count']} for {len(body[member])} entries")
        for entry in body[member]:
            if wanted:
                fields(entry, wanted)
        return f"{body['count']} {member}"

    return check


def simple(client: Client) -> str:
    body = client.post("/chat", {"message": EVERYDAY})
    fields(body, ("session_id", "response", "category", "timestamp", "model_used"))
    if not body["response"].strip():
        raise NotSo("the response is empty")
    session = client.get(f"/session/{body['session_id']}")
    fields(session, ("created_at", "messages"))
    if [message["role"] for message in session["messages"]] != ["user", "assistant"]:
        raise NotSo(f"the session has {[message['role'] for message in session['messages']]}")
    gone = client.send("DELETE", f"/session/{body['session_id']}").json()
    if gone != {"status": "deleted", "session_id": body["session_id"]}:
        raise NotSo(f"deleting the session said {gone}")
    expected = "" if body["category"] == "M" else f" (expected M, the categorizer said {body['category']})"
    return f"category {body['category']}{expected}, {body['model_used']}, session read and deleted"


def complex_task(client: Client) -> str:
    body = client.post("/chat", {"message": COMPLEX})
    fields(body, ("session_id", "response", "category", "timestamp", "model_used", "acknowledgement"))
    if not body["response"].strip():
        raise NotSo("the response is empty")
    if body["category"] == "H" and not body["acknowledgement"] and not body.get("note"):
        raise NotSo("an orchestrated request was not acknowledged")
    return f"category {body['category']}, {body.get('calls')} calls, {body.get('cost_usd')} USD"


def workflow(client: Client) -> str:
    tasks = (("one", "Write one sentence about the {thing}."), ("two", "Repeat this word for word: {one}"))
    queues = [
        {"type": "inline", "tasks": [{"model": "medium_ai", "prompt": prompt, "output_variable": name}]}
        for name, prompt in tasks
    ]
    body = client.post("/workflow", {"workflow": queues, "variables": {"thing": MARK}})
    fields(body, ("status", "result", "execution_time"))
    fields(body["result"], ("one", "two"))
    if not all(str(body["result"][name]).strip() for name in ("one", "two")):
        raise NotSo("a result is empty")
    return f"{body['status']} in {body['execution_time']:.2f} s"


def refusal(client: Client) -> str:
    queue = {"type": "inline", "tasks": [{"model": "nobody", "prompt": "{nothing}"}]}
    answer = client.send("POST", "/workflow", {"workflow": [queue]})
    if answer.status_code != 422 or len(answer.json()["detail"]) < 2:
        raise NotSo(f"a workflow with two mistakes was answered {answer.status_code}: {answer.text[:200]}")
    return "a wrong workflow is refused with every mistake"


def template(client: Client) -> str:
    body = client.post("/template/research_report", {"topic": "tidal power"})
    fields(body, ("status", "result", "execution_time"))
    if not body["result"]:
        raise NotSo("the result is empty")
    return f"research_report: {body['status']}, {len(body['result'])} values in {body['execution_time']:.2f} s"


MODES: Final = (
    Mode(
        "basic",
        "health, models, addons, templates",
        (
            ("GET /health", health),
            ("GET /models", listing("/models", "models", ("name", "provider", "model", "purpose"))),
            ("GET /addons", listing("/addons", "addons", ())),
            ("GET /templates", listing("/templates", "templates", ("name", "description", "steps"))),
        ),
    ),
    Mode("simple", "a simple question (M)", (("POST /chat, simple", simple),)),
    Mode("complex", "a complex task (H)", (("POST /chat, complex", complex_task),)),
    Mode(
        "workflow",
        "a custom two-step workflow with variables",
        (("POST /workflow", workflow), ("POST /workflow, wrong", refusal)),
    ),
    Mode("template", "a template", (("POST /template/research_report", template),)),
)
NAMES: Final = ("all", *(mode.name for mode in MODES), "chat")


def check(client: Client, mode: str, console: Console) -> int:
    """Run a mode's checks and print a line for each. Returns how many failed."""
    failed = 0
    for chosen in MODES:
        if mode not in {"all", chosen.name}:
            continue
        console.print(f"[bold]{chosen.name}[/bold]: {chosen.title}")
        for name, run in chosen.checks:
            began = time.monotonic()
            try:
                with console.status(f"{name} …"):
                    said = run(client)
                verdict = "[green]pass[/green]"
            except (NotSo, Failure, KeyError, TypeError, ValueError) as error:
                failed += 1
                said, verdict = f"{error}", "[red]FAIL[/red]"
            console.print(f"  {verdict}  {time.monotonic() - began:6.2f} s  {name:32}", end="")
            console.print(said, markup=False, highlight=False, soft_wrap=True)
    console.print(f"{failed} failed" if failed else "[green]everything holds[/green]")
    return failed
