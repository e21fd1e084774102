"""What commands have in common that talk to a gateway: a client, a console, and what becomes of failures."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from cli.dotenv import read_dotenv

if TYPE_CHECKING:
    from rich.console import Console

    from client import Segue

FAILED: Final = 1
"""Exit code: what was asked for was refused, or went wrong."""
NOT_REACHABLE: Final = 3
"""Exit code: nobody answers at the address."""
WIDE: Final = 200
"""Columns where nobody looks: a file or a pipe has no edge to break lines at."""


def stand_in() -> None:
    """Let `.env` in the working directory stand in for variables that are not set."""
    os.environ.update(read_dotenv(Path(".env"), os.environ))


@contextmanager
def talking(url: str | None) -> "Iterator[tuple[Segue, Console]]":
    """Yield a client of the gateway and a console; what goes wrong is said and becomes the exit code."""
    from rich.console import Console

    from client import RequestFailed, Segue, Unreachable, WrongAddress

    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        with Segue(_address(url), max_retries=0) as client:
            yield client, Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE)
    except RequestFailed as failure:
        errors.print(str(failure), style="red", markup=False)
        if failure.run_id:
            errors.print(f"run {failure.run_id}", style="dim")
        raise typer.Exit(FAILED) from None
    except WrongAddress as error:
        raise typer.BadParameter(str(error), param_hint="--url") from None
    except Unreachable as error:
        errors.print(str(error), markup=False)
        raise typer.Exit(NOT_REACHABLE) from None


def _address(url: str | None) -> str:
    """Return where the gateway is."""
    if url:
        return url if "://" in url else f"http://{url}"
    stand_in()
    return f"http://127.0.0.1:{os.environ.get('PORT') or 8000}"
