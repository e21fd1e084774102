"""`segue`: what a person types. Heavy things are imported by the command that needs them."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="segue",
    help="Durable AI orchestration over NATS.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
)
configuration = typer.Typer(help="The configuration file.", no_args_is_help=True)
app.add_typer(configuration, name="config")

Url = Annotated[str, typer.Option("--url", envvar="SEGUE_URL", help="The gateway's address.")]
HERE = "http://127.0.0.1:" + (os.environ.get("PORT") or "8000")


@app.command()
def up(
    port: Annotated[int | None, typer.Option(help="The API's port (PORT, else 8000).")] = None,
    nats_port: Annotated[
        int | None, typer.Option(help="The embedded server's port (SEGUE_NATS_PORT, else 4222).")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where everything is kept (SEGUE_DATA_DIR, else .segue).")
    ] = None,
    simulator: Annotated[bool, typer.Option(help="Simulate a provider when there is no key.")] = True,
    logs: Annotated[bool, typer.Option("--logs", help="Show every log line, not only warnings.")] = False,
    copies: Annotated[list[str] | None, typer.Option("--copies", help="More of a service, like executor=3.")] = None,
) -> None:
    """Start a whole Segue on this machine and keep it running until Ctrl-C."""
    from cli.dotenv import read_dotenv
    from cli.up import Options
    from cli.up import up as run_up
    from shared.config import ConfigInvalid
    from shared.config.environment import Environment

    os.environ.update(read_dotenv(Path(".env"), os.environ))
    given = {"PORT": port, "SEGUE_NATS_PORT": nats_port, "SEGUE_DATA_DIR": data_dir}
    os.environ.update({name: str(value) for name, value in given.items() if value is not None})
    try:
        environment = Environment.read(os.environ)
    except ConfigInvalid as invalid:
        typer.echo(f"Segue does not start: {invalid}", err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(run_up(environment, Options(simulator, logs, _copies(copies or []))))


def _copies(given: list[str]) -> dict[str, int]:
    from cli.up import SERVICES

    found = {}
    for entry in given:
        name, _, count = entry.partition("=")
        if name not in SERVICES or not count.isdigit() or not 1 <= int(count) <= 64:
            raise typer.BadParameter(f"{entry!r} is not SERVICE=NUMBER with one of {', '.join(SERVICES)} and 1-64")
        found[name] = int(count)
    return found


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="What you want to know; - reads it from standard input.")],
    session: Annotated[str | None, typer.Option(help="Go on with this conversation.")] = None,
    context_tokens: Annotated[int | None, typer.Option(help="Tokens of context that are not in the question.")] = None,
    priority: Annotated[str | None, typer.Option(help="high, medium or low.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")] = False,
    url: Url = HERE,
) -> None:
    """Ask one question and print the answer."""
    from rich.console import Console

    from cli.ask import ask as run_ask
    from cli.client import FAILED, NOT_REACHABLE, Client, Failure, Unreachable

    body = {
        "message": sys.stdin.read() if question == "-" else question,
        "session_id": session,
        "context_tokens": context_tokens,
        "priority": priority,
    }
    errors = Console(stderr=True, highlight=False)
    try:
        with Client(url) as client:
            run_ask(
                client, {name: value for name, value in body.items() if value is not None}, Console(), as_json=as_json
            )
    except Failure as failure:
        errors.print(str(failure), style="red", markup=False, soft_wrap=True)
        if failure.run_id:
            errors.print(f"run {failure.run_id}", style="dim")
        raise typer.Exit(FAILED) from None
    except Unreachable as error:
        errors.print(str(error), markup=False, soft_wrap=True)
        raise typer.Exit(NOT_REACHABLE) from None


@app.command()
def chat(url: Url = HERE) -> None:
    """Talk: the conversation is kept. Commands: stats, models, new, exit."""
    from rich.console import Console

    from cli.ask import chat as run_chat
    from cli.client import NOT_REACHABLE, Client, Unreachable

    try:
        with Client(url) as client:
            raise typer.Exit(1 if run_chat(client, Console()) else 0)
    except Unreachable as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(NOT_REACHABLE) from None


@app.command()
def check(
    mode: Annotated[str | None, typer.Option(help="all, basic, simple, complex, workflow, template or chat.")] = None,
    url: Url = HERE,
) -> None:
    """Check that a running Segue keeps its promises."""
    from rich.console import Console

    from cli.check import NAMES
    from cli.check import check as run_check
    from cli.client import NOT_REACHABLE, Client, Unreachable

    console = Console()
    if mode is None:
        mode = _chosen(NAMES) if sys.stdin.isatty() and console.is_terminal else "all"
    if mode not in NAMES:
        raise typer.BadParameter(f"{mode!r} is not one of {', '.join(NAMES)}")
    if mode == "chat":
        chat(url)
    try:
        with Client(url) as client:
            raise typer.Exit(1 if run_check(client, mode, console) else 0)
    except Unreachable as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(NOT_REACHABLE) from None


def _chosen(names: tuple[str, ...]) -> str:
    for number, name in enumerate(names, 1):
        typer.echo(f"  {number}  {name}")
    number = int(typer.prompt("Which", default=1, type=int))
    return names[max(1, min(number, len(names))) - 1]


@configuration.command("check")
def config_check(
    path: Annotated[
        Path | None, typer.Argument(help="The file (SEGUE_CONFIG, else orchestration_config.json).")
    ] = None,
) -> None:
    """Say everything that is wrong with a configuration file, with the path to it."""
    from shared.config import ConfigInvalid, load

    try:
        loaded = load(path)
    except ConfigInvalid as invalid:
        typer.echo(str(invalid), err=True)
        raise typer.Exit(1) from None
    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}")
    found = loaded.configuration
    typer.echo(
        f"{loaded.path}: valid; {len(found.ai_models)} roles, {len(found.prompt_addons)} addons, "
        f"{len(found.workflow_templates)} templates"
    )


@app.command()
def simulate(
    port: Annotated[int | None, typer.Option(help="SEGUE_SIMULATOR_PORT, else 8200.")] = None,
    profile: Annotated[str, typer.Option(help="zero, fast or realistic: how long answers take.")] = "fast",
    seed: Annotated[int, typer.Option(help="The same request and seed give the same answer.")] = 1,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
) -> None:
    """Play OpenRouter on this machine, for development and tests."""
    from simulator import PortTaken, serve

    try:
        serve(host, port, profile, seed, announce=typer.echo)
    except (PortTaken, ValueError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


@app.command()
def version() -> None:
    """Say which Segue this is."""
    from shared import version as this_version

    typer.echo(this_version())


def run() -> None:
    """The entry point."""
    app()
