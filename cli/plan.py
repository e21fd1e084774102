"""`segue plan`: what would be done, and what it would take, before it is done."""

import json
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from cli.tables import plain
from client import Segue

BAR = 20


def plan(client: Segue, body: dict[str, Any], console: Console, *, as_json: bool) -> bool:
    """Show a plan; whether there is one."""
    found = client.post("/plan", body)
    if as_json:
        console.print_json(json.dumps(found))
    else:
        console.print(drawn(found))
    return found["workflow"] is not None


def drawn(found: dict[str, Any]) -> RenderableType:
    """Return a plan as bars over time, the critical path marked, with the sums below."""
    expected = found["estimate"]
    if expected is None:
        return Text(found["note"] or "no plan", style="yellow")
    total = expected["seconds"] or 1.0
    columns = ("", "task", "model", "", "seconds", "tokens", "USD")
    table = plain(*columns, whole=columns, right=columns[4:])
    for task in expected["tasks"]:
        critical = task["output"] in expected["critical_path"]
        before = round(BAR * task["starts_s"] / total)
        length = max(1, round(BAR * task["seconds"] / total))
        bar = Text(" " * before + "█" * min(length, BAR - before + 1), style="cyan" if critical else "blue")
        price = f"{task['cost_usd']:.6f}" if task["cost_known"] else f">= {task['cost_usd']:.6f}"
        calls = f" x {task['calls']}" if task["calls"] > 1 else ""
        table.add_row(
            "*" if critical else "",
            task["output"],
            (task["role"] or "") + calls,
            bar,
            f"{task['seconds']:.1f}",
            f"{task['tokens']:,}",
            price,
        )
    price = f"{expected['cost_usd']:.6f}" if expected["cost_known"] else f"at least {expected['cost_usd']:.6f}"
    sums = Text(
        f"about {expected['seconds']:.1f} s (* the chain that takes longest), {expected['calls']} calls, "
        f"{expected['tokens']:,} tokens, {price} USD; {expected['basis']}",
        style="bold",
    )
    return Group(table, sums, *(Text(f"  {note}", style="dim") for note in expected["notes"]))
