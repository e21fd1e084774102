"""`segue`: what a person types. Heavy things are imported by the command that needs them."""

import os
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.breakers_app import app as breakers
from cli.bus_app import app as bus
from cli.history_app import app as history
from cli.history_app import usage
from cli.keys_app import keys, tenants
from cli.models_app import models, providers
from cli.options import Url
from cli.registry_app import schedules, templates
from cli.runs_app import app as runs
from cli.talking import FAILED, stand_in, talking

BEGAN_S = time.monotonic()


class Profile(StrEnum):
    """The simulator's latency profiles."""

    zero = "zero"
    fast = "fast"
    realistic = "realistic"


class Mode(StrEnum):
    """What `segue check` looks at."""

    all = "all"
    basic = "basic"
    simple = "simple"
    complex = "complex"
    workflow = "workflow"
    template = "template"
    chat = "chat"


class Priority(StrEnum):
    """Who goes first under load."""

    high = "high"
    medium = "medium"
    low = "low"


app = typer.Typer(
    name="segue",
    help="Durable AI orchestration over NATS.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
)
configuration = typer.Typer(help="The configuration file.", no_args_is_help=True)
app.add_typer(configuration, name="config")
app.add_typer(runs, name="runs")
app.add_typer(history, name="history")
app.add_typer(templates, name="templates")
app.add_typer(schedules, name="schedules")
app.add_typer(breakers, name="breakers")
app.add_typer(models, name="models")
app.add_typer(providers, name="providers")
app.add_typer(keys, name="keys")
app.add_typer(tenants, name="tenants")
app.add_typer(bus, name="bus")
app.command()(usage)
app.command("costs", help="The same as `usage`.")(usage)


@app.command()
def up(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="The API's port (PORT, else 8000).")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where everything is kept (SEGUE_DATA_DIR, else .segue).")
    ] = None,
    nats_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="The embedded nats-server's port (SEGUE_NATS_PORT, else 4222)."),
    ] = None,
    simulator: Annotated[bool, typer.Option(help="Simulate a provider when none is configured.")] = True,
    profile: Annotated[Profile, typer.Option(help="How long simulated answers take.")] = Profile.fast,
    copies: Annotated[
        list[str] | None,
        typer.Option("--service-copies", "--copies", metavar="SERVICE=N", help="More of a service: executor=3."),
    ] = None,
    logs: Annotated[bool, typer.Option("--logs", help="Show every log line, not only warnings and worse.")] = False,
) -> None:
    """Start a whole Segue on this machine and keep it running until Ctrl-C."""
    stand_in()
    given = {"PORT": port, "SEGUE_NATS_PORT": nats_port, "SEGUE_DATA_DIR": data_dir}
    os.environ.update({name: str(value) for name, value in given.items() if value is not None})
    from cli.launch import WrongOption, launch

    try:
        code = launch(simulator=simulator, profile=profile.value, copies=copies or [], show_logs=logs, began_s=BEGAN_S)
    except WrongOption as error:
        raise typer.BadParameter(str(error), param_hint="--service-copies") from None
    raise typer.Exit(code)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="What you want to know; - reads it from standard input.")],
    session: Annotated[str | None, typer.Option(help="Go on with this conversation.")] = None,
    context_tokens: Annotated[int | None, typer.Option(help="Tokens of context that are not in the question.")] = None,
    priority: Annotated[Priority | None, typer.Option(help="Who goes first under load.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")] = False,
    url: Url = None,
) -> None:
    """Ask one question and print the answer."""
    from cli.ask import ask as run_ask

    body = {
        "message": sys.stdin.read() if question == "-" else question,
        "session_id": session,
        "context_tokens": context_tokens,
        "priority": priority.value if priority is not None else None,
    }
    given = {name: value for name, value in body.items() if value is not None}
    with talking(url) as (client, console):
        run_ask(client, given, console, as_json=as_json)


@app.command()
def plan(
    message: Annotated[
        str | None, typer.Argument(help="What is to be planned; - reads it from standard input.")
    ] = None,
    workflow: Annotated[
        Path | None, typer.Option("--workflow", "-w", help="Instead: a workflow of your own, a JSON file.")
    ] = None,
    template: Annotated[str | None, typer.Option("--template", "-t", help="Instead: a template's name.")] = None,
    variable: Annotated[
        list[str] | None, typer.Option("--variable", "-v", metavar="NAME=VALUE", help="A parameter; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON: `POST /workflow` takes it.")] = False,
    url: Url = None,
) -> None:
    """Show what would be done, its critical path, and what it would take; nothing is carried out."""
    from cli.pairs import pairs, value_of
    from cli.plan import plan as run_plan
    from cli.registry_app import document

    body: dict[str, object] = {}
    if message is not None:
        body["message"] = sys.stdin.read() if message == "-" else message
    if workflow is not None:
        found = document(str(workflow))
        body |= found if isinstance(found, dict) else {"workflow": found}
    if template is not None:
        body["template"] = template
    if variable:
        body["variables"] = {name: value_of(text) for name, text in pairs("--variable", variable)}
    with talking(url) as (client, console):
        raise typer.Exit(0 if run_plan(client, body, console, as_json=as_json) else FAILED)


@app.command()
def chat(url: Url = None) -> None:
    """Talk: the conversation is kept. Commands: stats, models, new, exit."""
    from cli.chat import chat as run_chat

    with talking(url) as (client, console):
        raise typer.Exit(FAILED if run_chat(client, console) else 0)


@app.command()
def check(
    mode: Annotated[
        Mode | None,
        typer.Option(help="What to check; chat on a terminal lets you talk. Asked for on a terminal, else all."),
    ] = None,
    url: Url = None,
) -> None:
    """Check that a running Segue keeps its promises."""
    from cli.chat import chat as run_chat
    from cli.check import CHAT
    from cli.check import check as run_check

    with talking(url) as (client, console):
        somebody = sys.stdin.isatty() and console.is_terminal
        chosen = mode or (_chosen() if somebody else Mode.all)
        if chosen.value == CHAT and somebody:
            raise typer.Exit(FAILED if run_chat(client, console) else 0)
        raise typer.Exit(FAILED if run_check(client, chosen.value, console) else 0)


def _chosen() -> Mode:
    from cli.promises import MODES

    titles = {"all": "all that needs nobody"} | {mode.name: mode.title for mode in MODES}
    titles["chat"] = "talk to it; stats, models, exit"
    modes = list(Mode)
    for number, mode in enumerate(modes, 1):
        typer.echo(f"  {number}  {mode.value:9} {titles[mode.value]}")
    number = int(typer.prompt("Which", default=1, type=int))
    if not 1 <= number <= len(modes):
        raise typer.BadParameter(f"{number} is not one of 1 to {len(modes)}")
    return modes[number - 1]


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
    profile: Annotated[Profile, typer.Option(help="How long answers take.")] = Profile.fast,
    seed: Annotated[int, typer.Option(help="The same request and seed give the same answer.")] = 1,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
) -> None:
    """Play OpenRouter on this machine, for development and tests."""
    from simulator import PortTaken, serve

    try:
        serve(host, port, profile.value, seed, announce=typer.echo)
    except (PortTaken, ValueError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


@app.command("callback-secret")
def callback_secret() -> None:
    """Print a fresh secret for SEGUE_CALLBACK_SECRETS, which callbacks are signed with."""
    import base64
    import secrets

    typer.echo("whsec_" + base64.b64encode(secrets.token_bytes(32)).decode())


@app.command()
def version() -> None:
    """Say which Segue this is."""
    from shared import version as this_version

    typer.echo(this_version())


def run() -> None:
    """The entry point."""
    app()
