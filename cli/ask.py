"""`segue ask`: one question, with what happens meanwhile; only the answer where nobody watches."""

import json
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text

from cli.progress import Progress, footer
from client import Segue

REFRESHES_PER_S = 12


def ask(client: Segue, body: dict[str, Any], console: Console, *, as_json: bool = False) -> dict[str, Any]:
    """Ask and print the answer. Raises `RequestFailed`, `Unreachable`."""
    if as_json or not console.is_terminal:
        answer = client.post("/chat", body)
        said = json.dumps(answer, indent=2, ensure_ascii=False) if as_json else str(answer["response"])
        console.file.write(f"{said}\n")  # as it is: tabs, brackets and all
        console.file.flush()
        return answer
    answer = watched(client, body, console)
    if answer.get("acknowledgement"):
        console.print(Text(str(answer["acknowledgement"]), style="italic dim"))
        console.print()
    console.print(Markdown(str(answer["response"])))
    if answer.get("note"):
        console.print(Text(str(answer["note"]), style="yellow"))
    if len(results := answer.get("result") or {}) > 1:
        console.print(Text(f"results, whole: {', '.join(results)}", style="dim"))
        console.print(Text(f"  segue runs output {answer['run_id']} NAME", style="dim"), soft_wrap=True)
    console.print(Text(footer(answer), style="dim"), soft_wrap=True)
    return answer


def watched(client: Segue, body: dict[str, Any], console: Console) -> dict[str, Any]:
    """Ask, show on the terminal what happens, and return the answer with nothing of that left there."""
    progress = Progress()
    with Live(progress, console=console, refresh_per_second=REFRESHES_PER_S, transient=True):
        for event in client.stream_chat(**body):
            progress.take(event)
    return progress.result()
