"""How a run looks on a terminal: a tree of its tasks with states, times and costs; bars of what took how long."""

from collections.abc import Iterator
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

_SIGNS: Final = {
    "waiting": ("·", "dim"),
    "running": ("▶", "cyan"),
    "repairing": ("↻", "cyan"),
    "awaiting_approval": ("?", "yellow"),
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
    "skipped": ("↷", "dim"),
    "substituted": ("≈", "yellow"),
}
BAR: Final = 40


def tree(run: dict[str, Any]) -> RenderableType:
    """Return a run as a tree."""
    ledger = run["ledger"]
    compared = ""
    if ledger["saving_usd"] is not None:
        word = "saved" if ledger["saving_usd"] >= 0 else "more than one premium call"
        compared = f", {abs(ledger['saving_usd']):.6f} USD {word}"
    saved = f", {ledger['reused']} reused, {ledger['saved_usd']:.6f} USD saved" if ledger["reused"] else ""
    head = Text(f"{run['run_id']}  {run['state']}", style="bold")
    head.append(f"  {ledger['calls']} calls, {ledger['cost_usd']:.6f} USD{compared}{saved}", style="dim")
    root = Tree(head)
    for task in [*run["tasks"], *run["calls"]]:
        _add(root, task)
    below: list[RenderableType] = [root]
    if run.get("waits_for"):
        below.append(Text(f"waits for {run['waits_for']}, until {run['waits_until']}", style="yellow"))
    if run.get("error"):
        below.append(Text(f"{run['error']['code']}: {run['error']['message']}", style="red"))
    if run.get("callback"):
        below.append(_called_back(run["callback"]))
    for step in (run.get("failure") or {}).get("next_steps", []):
        below.append(Text(f"  {step}", style="dim"))
    return Group(*below)


def _called_back(callback: dict[str, Any]) -> Text:
    """Return what has become of the answer that is POSTed to a callback."""
    if not callback["deliveries"]:
        return Text(f"calls back {callback['url']} when it has ended", style="dim")
    last = callback["deliveries"][-1]
    tries = len(last["attempts"])
    said = f"callback {callback['url']}: {last['state']} after {tries} attempt{'' if tries == 1 else 's'}"
    problem = last["reason"] or next((one["problem"] for one in reversed(last["attempts"]) if one["problem"]), None)
    if last["state"] != "delivered" and problem:
        said += f" ({problem})"
    return Text(said, style={"delivered": "green", "given_up": "red"}.get(last["state"], "yellow"))


def _add(above: Tree, task: dict[str, Any]) -> None:
    sign, style = _SIGNS[task["state"]]
    line = Text(f"{sign} {task['output'] or task['name']}", style=style)
    line.append(f"  {_facts(task)}", style="dim")
    branch = above.add(line)
    for child in task["tasks"]:
        _add(branch, child)


def _facts(task: dict[str, Any]) -> str:
    facts = [task["model"] or task["role"] or ""]
    if task["took_s"]:
        facts.append(f"{task['took_s']:.2f} s")
    if task["cost_usd"]:
        facts.append(f"{task['cost_usd']:.6f} USD")
    if len(task["attempts"]) > 1:
        facts.append(f"{len(task['attempts'])} attempts")
    if task["items"]:
        facts.append(", ".join(f"{count} {state}" for state, count in task["items"].items()))
    if task["reused_from"]:
        facts.append(f"from {task['reused_from']}")
    if task["question"] and task["state"] == "awaiting_approval":
        facts.append(task["question"][:80])
    if task["error"]:
        facts.append(task["error"]["code"])
    return "  ".join(fact for fact in facts if fact)


def changes(run: dict[str, Any], told: dict[str, str]) -> Iterator[str]:
    """Yield a line for everything that is another than when it was `told`."""
    for task in _all(run["tasks"]):
        line = f"{task['state']:18} {task['output'] or task['name']}  {_facts(task)}".rstrip()
        if told.get(task["name"]) != line:
            told[task["name"]] = line
            yield line
    waits = f"waits for {run['waits_for']}" if run.get("waits_for") else ""
    line = f"{run['state']:18} {run['run_id']}  {waits}".rstrip()
    if told.get("") != line:
        told[""] = line
        yield line


def _all(tasks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for task in tasks:
        yield task
        yield from _all(task["tasks"])


def bars(found: dict[str, Any]) -> RenderableType:
    """Return a timeline as bars."""
    total = max(found["total_s"], 1e-6)
    table = Table("call", "from", "took", "", "outcome", box=None, pad_edge=False)
    for span in found["spans"]:
        over = span["to_s"] if span["to_s"] is not None else total
        before = min(BAR - 1, int(BAR * span["from_s"] / total))
        length = max(1, round(BAR * (over - span["from_s"]) / total))
        bar = " " * before + "█" * min(length, BAR - before)
        table.add_row(
            f"{span['name']}  {span['label']}",
            f"{span['from_s']:.2f} s",
            f"{over - span['from_s']:.2f} s",
            Text(bar, style="cyan"),
            span["outcome"],
        )
    return table
