"""`segue check`: does a running Segue keep its promises? Runs them and says so, one line each."""

import time
from collections.abc import Sequence

from rich.console import Console

from cli.promises import MODES, Broken, Mode
from client import RequestFailed, Segue

ALL = "all"
CHAT = "chat"
"""Checked like the others; chosen alone on a terminal, it is a person who talks."""


def check(client: Segue, mode: str, console: Console, modes: Sequence[Mode] = MODES) -> int:
    """Run a mode's checks and print a line for each. Returns how many failed. Raises `Unreachable`."""
    began, run, failed = time.monotonic(), 0, 0
    for chosen in modes:
        if mode not in {ALL, chosen.name}:
            continue
        console.print(f"[bold]{chosen.name}[/bold]: {chosen.title}")
        for name, promise in chosen.checks:
            run += 1
            since = time.monotonic()
            try:
                with console.status(f"{name} …"):
                    said = promise(client)
                kept = True
            except (Broken, RequestFailed) as error:
                said, kept = str(error), False
            except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
                said, kept = f"the answer is not of the promised shape ({type(error).__name__}: {error})", False
            failed += not kept
            verdict = "[green]pass[/green]" if kept else "[bold red]FAIL[/bold red]"
            console.print(f"  {verdict}  {time.monotonic() - since:6.2f} s  {name:28} ", end="", highlight=False)
            console.print(said, markup=False, highlight=False, soft_wrap=True)
    took = f"{time.monotonic() - began:.1f} s"
    said = f"[bold red]{failed} of {run} failed[/bold red]" if failed else f"[green]all {run} passed[/green]"
    console.print(f"{said} in {took}", highlight=False)
    return failed
