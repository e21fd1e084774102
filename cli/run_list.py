"""How lists of runs and sums of usage look on a terminal, and how people write times."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import typer
from rich.table import Table
from rich.text import Text

from cli.tables import plain

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_STYLES: Final = {
    "completed": "green",
    "failed": "red",
    "denied": "red",
    "cancelled": "dim",
    "awaiting_approval": "yellow",
    "paused": "yellow",
}
TITLE_CHARS: Final = 60


def moment(text: str | None) -> str | None:
    """Return a time as the API wants it: a date or a time (of this machine's zone where it names none), or `2h` ago."""
    if not text:
        return None
    if ago := re.fullmatch(r"(\d{1,6})([smhdw])", text.strip()):
        return (datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})).isoformat()
    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time; write 2026-11-27, 2026-11-27T08:00, 2h or 7d") from None


def table(runs: list[dict[str, Any]]) -> Table:
    """Return runs as a table."""
    columns = ("run", "state", "born", "took", "cost USD", "")
    found = plain(*columns, whole=columns, right=("took", "cost USD"))
    for run in runs:
        title = Text((run["title"] or "")[:TITLE_CHARS], overflow="ellipsis")
        for question in run["questions"]:
            title.append(f"  ? {question['task']}: {question['message'][:TITLE_CHARS]}", style="yellow")
        found.add_row(
            run["run_id"],
            Text(run["state"], style=_STYLES.get(run["state"], "cyan")),
            datetime.fromisoformat(run["born_at"]).astimezone().strftime("%m-%d %H:%M:%S"),
            "" if run["took_s"] is None else f"{run['took_s']:.2f} s",
            _money(run),
            title,
        )
    return found


def sums(answer: dict[str, Any], by: list[str]) -> Table:
    """Return sums of usage as a table with a total."""
    found = plain(footed=True)
    total = answer["total"]
    for place, name in enumerate(by):
        found.add_column(name, footer="total" if place == 0 else "", no_wrap=True)
    for name, key in (("runs", "runs"), ("calls", "calls"), ("failed", "failed")):
        found.add_column(name, justify="right", footer=str(total[key]))
    found.add_column("mean s", justify="right", footer=_seconds(total))
    found.add_column("tokens", justify="right", footer=f"{_tokens(total):,}")
    found.add_column("cost USD", justify="right", footer=_money(total))
    found.add_column("cache saved USD", justify="right", footer=f"{total['saved_usd']:.6f}")
    for row in answer["rows"]:
        found.add_row(
            *(str(row["by"][name] or "-") for name in by),
            str(row["runs"]),
            str(row["calls"]),
            str(row["failed"]),
            _seconds(row),
            f"{_tokens(row):,}",
            _money(row),
            f"{row['saved_usd']:.6f}",
        )
    return found


def _seconds(row: dict[str, Any]) -> str:
    return "-" if row["mean_s"] is None else f"{row['mean_s']:.2f}"


def _tokens(row: dict[str, Any]) -> int:
    return int(row["prompt_tokens"] + row["completion_tokens"])


def _money(row: dict[str, Any]) -> str:
    """Return a cost; one with calls of unknown price in it is only a lower bound."""
    return f"{row['cost_usd']:.6f}" if row["cost_known"] else f">= {row['cost_usd']:.6f}"
