"""`segue bus`: let outside systems in over the bus."""

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Let outside systems in over the bus, each in an account of its own.", no_args_is_help=True)

FAILED = 1


@app.callback()
def bus() -> None:
    """Let outside systems in over the bus, each in an account of its own."""


@app.command()
def accounts(
    file: Annotated[
        Path,
        typer.Argument(
            help='A JSON list of outside systems: {"tenant", "user", "password"} (bcrypt\'s is best) or '
            '{"tenant", "nkey"}.'
        ),
    ],
) -> None:
    """Print the accounts for a nats-server's configuration: docs/bus.md says how to use them."""
    from shared.bus.accounts import BadPublisher, Publisher, document
    from shared.config import ConfigInvalid, load
    from shared.config.environment import Environment
    from shared.provision import limits_of

    try:
        listed = json.loads(file.read_text(encoding="utf-8"))
        found = [Publisher(**one) for one in listed]
        made = document(found, limits_of(load().configuration, Environment()))
    except OSError as error:
        typer.echo(f"cannot read {file}: {error.strerror}", err=True)
        raise typer.Exit(FAILED) from None
    except (ValueError, TypeError) as error:
        said = str(error) if isinstance(error, BadPublisher) else f"{file} is no list of outside systems: {error}"
        typer.echo(said, err=True)
        raise typer.Exit(FAILED) from None
    except ConfigInvalid as invalid:
        typer.echo(str(invalid), err=True)
        raise typer.Exit(FAILED) from None
    typer.echo(made, nl=False)
