"""How attempts whose cost nobody knows look on a terminal."""

from datetime import datetime
from typing import Any

from rich.table import Table

from cli.tables import plain


def table(answer: dict[str, Any]) -> Table:
    """Return them as a table, with how many there are in all and what they can cost at the most."""
    found = plain(footed=True)
    found.add_column("run", footer=f"{answer['total']} in all", no_wrap=True)
    for name in ("call", "attempt", "model", "outcome", "settled", "asked after"):
        found.add_column(name, no_wrap=True)
    found.add_column("at most USD", footer=f"{answer['reserved_usd']:.6f}", justify="right")
    for one in answer["attempts"]:
        found.add_row(
            one["run_id"],
            one["call"],
            str(one["attempt"]),
            one["model"],
            one["outcome"],
            datetime.fromisoformat(one["settled_at"]).astimezone().strftime("%m-%d %H:%M:%S"),
            "yes" if one["asked_after"] else "cannot be",
            f"{one['reserved_usd']:.6f}",
        )
    return found
