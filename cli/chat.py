"""`segue chat`: a conversation, from a terminal or from a pipe."""

import contextlib
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from cli.ask import ask
from client import RequestFailed, Segue

HELP = "Ask anything. Commands: stats, models, new (forget this conversation), exit."
Read = Callable[[], str | None]
"""Returns what was said next, None when nothing more comes."""


def chat(client: Segue, console: Console, read: Read | None = None) -> int:
    """Talk until `exit` or the end of the input. Returns how many questions failed. Raises `Unreachable`."""
    session: str | None = None
    failed = 0
    client.get("/health")  # nobody should type a question before finding out that nobody listens
    if read is None:
        interactive = sys.stdin.isatty() and console.is_terminal
        if interactive:
            console.print(HELP, style="dim")
        read = _reader(console, interactive=interactive)
    while (said := read()) is not None:
        try:
            match said.strip():
                case "":
                    continue
                case "exit" | "quit":
                    break
                case "new":
                    session = None
                    console.print("A new conversation.", style="dim")
                case "stats":
                    _table(console, [(name, str(value)) for name, value in client.get("/stats").items()])
                case "models":
                    _table(console, [_model(model) for model in client.get("/models")["models"]])
                case message:
                    body = {"message": message} if session is None else {"message": message, "session_id": session}
                    session = ask(client, body, console)["session_id"]
        except RequestFailed as failure:
            failed += 1
            console.print(str(failure), style="red", markup=False, soft_wrap=True)
        except KeyboardInterrupt:  # of this question only: it goes on without anybody who waits
            console.print("Not waited for.", style="dim")
    return failed


def _model(model: dict[str, Any]) -> tuple[str, str, str]:
    return str(model["name"]), str(model["model"]), str(model["purpose"])


def _reader(console: Console, *, interactive: bool) -> Read:
    if interactive:
        with contextlib.suppress(ImportError):  # Windows has its own
            import readline  # noqa: F401 - gives the prompt its history and editing

    def read() -> str | None:
        try:
            return console.input("[bold]you ›[/bold] ") if interactive else input()
        except (EOFError, KeyboardInterrupt):
            return None

    return read


def _table(console: Console, rows: list[tuple[str, ...]]) -> None:
    if not console.is_terminal:
        for row in rows:
            console.file.write("\t".join(row) + "\n")
        return
    table = Table.grid(padding=(0, 2))
    for row in rows:
        table.add_row(*row)
    console.print(table)
