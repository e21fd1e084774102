"""`segue ask` and `segue chat`: questions from a terminal, with what happens meanwhile."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markdown import Markdown
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from cli.client import Client, Event, Failure

SHOWN_LINES = 12


class Progress:
    """What is known of an answer so far."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.category: str | None = None
        self.acknowledgement: str | None = None
        self.texts: dict[str, str] = {}
        self.answer: dict[str, Any] | None = None
        self.failure: Failure | None = None

    def take(self, event: Event) -> None:
        """Take one event in. Unknown ones are for later versions."""
        data = event.data
        match event.name:
            case "category":
                self.category = data.get("category")
            case "acknowledgement":
                self.acknowledgement = data.get("text")
            case "restart":
                self.texts.pop(str(data.get("call")), None)
            case "token":
                call = str(data.get("call"))
                self.texts[call] = self.texts.get(call, "")[: int(data.get("offset", 0))] + str(data.get("text", ""))
            case "answer":
                self.answer = data
            case "error":
                self.failure = Failure(int(data.get("status", 500)), data.get("detail", data), data.get("run_id"))

    def render(self) -> Group:
        """Return what a terminal shows now."""
        what = {"L": "one strong model", "M": "one medium model", "H": "a workflow of several models"}
        state = "categorising" if self.category is None else f"{self.category}: {what.get(self.category, '')}"
        parts: list[Any] = [Spinner("dots", Text(f" {state} · {time.monotonic() - self.began:.1f} s", style="dim"))]
        if self.acknowledgement:
            parts.append(Text(self.acknowledgement, style="italic"))
        for call, text in list(self.texts.items())[-3:]:
            shown = "\n".join(text.splitlines()[-SHOWN_LINES:])
            parts.append(Text(f"{call}: {shown}" if len(self.texts) > 1 else shown, style="dim"))
        return Group(*parts)


def ask(client: Client, body: dict[str, Any], console: Console, *, as_json: bool = False) -> dict[str, Any]:
    """Ask one question and print its answer. Raises `Failure`, `Unreachable`."""
    if as_json or not console.is_terminal:
        answer = client.post("/chat", body)
        console.out(
            json.dumps(answer, indent=2, ensure_ascii=False) if as_json else answer["response"], highlight=False
        )
        return answer
    progress = Progress()
    with Live(progress.render(), console=console, refresh_per_second=12, transient=True) as live:
        for event in client.chat(body):
            progress.take(event)
            live.update(progress.render())
    if progress.failure is not None:
        raise progress.failure
    if progress.answer is None:
        raise Failure(0, "the stream ended without an answer; the run goes on")
    if progress.answer.get("acknowledgement"):
        console.print(Text(str(progress.answer["acknowledgement"]), style="italic dim"))
    console.print(Markdown(str(progress.answer["response"])))
    console.print(Text(footer(progress.answer), style="dim"))
    return progress.answer


def footer(answer: dict[str, Any]) -> str:
    """Return one line about an answer: category, model, cost, time, run."""
    parts = [str(answer.get("category")), str(answer.get("model_used"))]
    if answer.get("simulated"):
        parts.append("simulated")
    parts += [
        f"{answer.get('calls', 0)} calls",
        f"{float(answer.get('cost_usd', 0)):.6f} USD" if answer.get("cost_known", True) else "cost unknown",
        f"{float(answer.get('took_s', 0)):.2f} s",
        f"run {answer.get('run_id')}",
    ]
    if answer.get("note"):
        parts.append(str(answer["note"]))
    return " · ".join(parts)


def chat(client: Client, console: Console, read: Callable[[], str | None] | None = None) -> int:
    """Talk until `exit` or the end of the input. Returns the number of questions that failed."""
    session: str | None = None
    failed = 0
    interactive = sys.stdin.isatty()
    read = read or (lambda: _line(console, interactive=interactive))
    if interactive:
        console.print("Ask anything. Commands: stats, models, new, exit.", style="dim")
    while (said := read()) is not None:
        match said.strip():
            case "":
                continue
            case "exit" | "quit":
                break
            case "new":
                session = None
                console.print("A new conversation.", style="dim")
            case "stats":
                _table(console, client.get("/stats"))
            case "models":
                for model in client.get("/models")["models"]:
                    console.print(f"{model['name']:28} {model['model']:45} {model['purpose']}", highlight=False)
            case message:
                try:
                    body = {"message": message} if session is None else {"message": message, "session_id": session}
                    session = ask(client, body, console)["session_id"]
                except Failure as failure:
                    failed += 1
                    console.print(str(failure), style="red", markup=False)
    return failed


def _line(console: Console, *, interactive: bool) -> str | None:
    try:
        return console.input("[bold]you ›[/bold] ") if interactive else input()
    except (EOFError, KeyboardInterrupt):
        return None


def _table(console: Console, values: dict[str, Any]) -> None:
    table = Table.grid(padding=(0, 2))
    for name, value in values.items():
        table.add_row(name, str(value))
    console.print(table)
