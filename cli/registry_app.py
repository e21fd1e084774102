"""`segue templates`, `segue schedules`: what can be run by name, and what is started by the clock."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import AsJson, Url
from cli.pairs import pairs, value_of
from cli.talking import talking

templates = typer.Typer(help="Templates: read them, write them, run them.", no_args_is_help=True)
schedules = typer.Typer(help="Schedules: templates that the clock starts.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Its name.")]
Variables = Annotated[
    list[str] | None,
    typer.Option(
        "--variable", "-v", metavar="NAME=VALUE", help="A parameter's value; JSON, else a text. May be repeated."
    ),
]


def _given(variables: list[str] | None) -> dict[str, Any]:
    return {name: value_of(text) for name, text in pairs("--variable", variables or [])}


@templates.command("ls")
def list_templates(as_json: AsJson = False, url: Url = None) -> None:
    """List the templates with their parameters; those in brackets have a default."""
    from cli.tables import plain

    with talking(url) as (client, console):
        found = client.get("/templates")
        if as_json:
            console.print_json(json.dumps(found))
            return
        table = plain("template", "version", "steps", "parameters", "")
        for one in found["templates"]:
            asked = [p["name"] if p["required"] else f"\\[{p['name']}]" for p in one["parameters"]]
            table.add_row(
                one["name"], str(one["version"] or "file"), str(one["steps"]), " ".join(asked), one["description"]
            )
        console.print(table)


@templates.command("show")
def show_template(
    name: Name, version: Annotated[int | None, typer.Option(help="An earlier one.")] = None, url: Url = None
) -> None:
    """Print a template as JSON, ready to be changed and written back."""
    with talking(url) as (client, _):
        found = client.get(f"/templates/{name}" + (f"?version={version}" if version is not None else ""))
        kept = {key: found[key] for key in ("description", "variables", "workflow")}
        typer.echo(json.dumps(kept, indent=2, ensure_ascii=False))


@templates.command("versions")
def list_versions(name: Name, url: Url = None) -> None:
    """List what is kept of a template's versions."""
    from cli.tables import plain

    with talking(url) as (client, console):
        table = plain("version", "written", "")
        for one in client.get(f"/templates/{name}/versions")["versions"]:
            table.add_row(str(one["version"]), one["written_at"], "deleted" if one["deleted"] else "")
        console.print(table)


@templates.command("put")
def put_template(
    name: Name,
    path: Annotated[str, typer.Argument(help="A JSON file; - reads standard input.")],
    match: Annotated[
        str | None, typer.Option("--if-version", help="Only on top of this version; `file` or 0: only a first one.")
    ] = None,
    url: Url = None,
) -> None:
    """Write a template's next version; it counts at once."""

    written = document(path)
    with talking(url) as (client, console):
        found = client.put(f"/templates/{name}", written, if_match(match))
        console.print(f"template {name} is at version {found['version']}", markup=False)


@templates.command("rm")
def remove_template(name: Name, url: Url = None) -> None:
    """Delete a template that was written at run time."""
    with talking(url) as (client, console):
        back = client.delete(f"/templates/{name}")["now"]
        console.print(f"template {name} is deleted" + ("; the configuration's is back" if back else ""), markup=False)


@templates.command("run")
def run_template(name: Name, variable: Variables = None, as_json: AsJson = False, url: Url = None) -> None:
    """Run a template and print what it put out."""
    with talking(url) as (client, console):
        given = {one["name"] for one in client.get(f"/templates/{name}")["parameters"]}
        found = client.post(f"/template/{name}", _given(variable))
        if as_json:
            console.print_json(json.dumps(found))
            return
        for output, value in found["result"].items():
            if output in given:
                continue
            console.rule(output, align="left", style="dim")
            typer.echo(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


@schedules.command("ls")
def list_schedules(as_json: AsJson = False, url: Url = None) -> None:
    """List the schedules with what has become of them."""
    from cli.tables import plain

    with talking(url) as (client, console):
        found = client.get("/schedules")
        if as_json:
            console.print_json(json.dumps(found))
            return
        table = plain("schedule", "template", "when", "started", "skipped", "last run", "next", "")
        for one in found["schedules"]:
            when = f"every {one['every']}" if one["every"] else f"{one['cron']} {one['timezone']}"
            said = "paused" if one["paused"] else one["problem"] or ""
            table.add_row(
                one["name"], one["template"], when, str(one["started"]), str(one["skipped"]),
                one["last_run"] or "", one["next_at"] or "", said,
            )  # fmt: skip
        console.print(table)


@schedules.command("show")
def show_schedule(name: Name, url: Url = None) -> None:
    """Print a schedule as JSON."""
    with talking(url) as (client, console):
        console.print_json(json.dumps(client.get(f"/schedules/{name}")))


@schedules.command("put")
def put_schedule(
    name: Name,
    template: Annotated[str, typer.Argument(help="The template that is started.")],
    cron: Annotated[
        str | None, typer.Option(help="'minute hour day month weekday', or @hourly, @daily, @weekly, @monthly.")
    ] = None,
    every: Annotated[str | None, typer.Option(help="Instead of --cron: 90s, 15m, 6h.")] = None,
    timezone: Annotated[str, typer.Option(help="For --cron: an IANA name.")] = "UTC",
    variable: Variables = None,
    overlap: Annotated[str, typer.Option(help="skip or allow: when the run before has not ended.")] = "skip",
    callback_url: Annotated[str | None, typer.Option(help="Each run's answer is POSTed there, signed.")] = None,
    url: Url = None,
) -> None:
    """Have a template started by the clock; an existing schedule is changed."""

    body = {
        "template": template,
        "cron": cron,
        "every": every,
        "timezone": timezone,
        "variables": _given(variable),
        "overlap": overlap,
        "callback_url": callback_url,
    }
    with talking(url) as (client, console):
        client.put(f"/schedules/{name}", body)
        when = f"every {every}" if every else cron
        then = f" and calls back {callback_url}" if callback_url else ""
        console.print(f"schedule {name} starts {template} {when}{then}", markup=False, soft_wrap=True)


@schedules.command("pause")
def pause_schedule(name: Name, url: Url = None) -> None:
    """Start nothing by a schedule until it is resumed."""
    _paused(name, url, paused=True)


@schedules.command("resume")
def resume_schedule(name: Name, url: Url = None) -> None:
    """Go on with a paused schedule."""
    _paused(name, url, paused=False)


def _paused(name: str, url: str | None, *, paused: bool) -> None:
    kept = ("template", "variables", "cron", "every", "timezone", "priority", "overlap", "callback_url")
    with talking(url) as (client, console):
        found = client.get(f"/schedules/{name}")
        client.put(f"/schedules/{name}", {**{key: found[key] for key in kept}, "paused": paused})
        console.print(f"schedule {name} {'is paused' if paused else 'goes on'}", markup=False)


@schedules.command("rm")
def remove_schedule(name: Name, url: Url = None) -> None:
    """Stop and forget a schedule; runs that it began go on."""
    with talking(url) as (client, console):
        client.delete(f"/schedules/{name}")
        console.print(f"schedule {name} is deleted", markup=False)


def if_match(version: str | None) -> dict[str, str] | None:
    """Return the header that says on top of which version is written; `file` or 0: only a first one."""
    if version is None:
        return None
    return {"If-Match": '"file"' if version in ("file", "0") else f'"{version}"'}


def document(path: str) -> Any:
    """Return a JSON file's content; - is standard input."""
    try:
        return json.loads(sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise typer.BadParameter(f"{path} is no JSON: {error}") from None
