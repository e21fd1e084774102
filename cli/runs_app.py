"""`segue runs`: look at runs, steer them, take them up again."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import AsJson, Url
from cli.pairs import pairs, value_of
from cli.talking import FAILED, talking

app = typer.Typer(help="Look at runs, steer them, take them up again.", no_args_is_help=True)

RunId = Annotated[str, typer.Argument(help="The run's id, as answers, logs and listings say it.")]
Reason = Annotated[str | None, typer.Option(help="Why; it is kept with the run.")]
Task = Annotated[str | None, typer.Option(help="The output of the task that waits, where several do.")]

LOOK_AGAIN_S = 0.4
OVER = frozenset({"completed", "failed", "denied", "cancelled"})


@app.command()
def ls(
    state: Annotated[
        list[str] | None, typer.Option(help="In this state (running, awaiting_approval, failed, …); may be repeated.")
    ] = None,
    template: Annotated[str | None, typer.Option(help="Begun from this template.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Begun by this schedule.")] = None,
    session: Annotated[str | None, typer.Option(help="Of this conversation.")] = None,
    model: Annotated[str | None, typer.Option(help="That asked this model.")] = None,
    parent: Annotated[str | None, typer.Option(help="Retries and forks of this run.")] = None,
    words: Annotated[str | None, typer.Option("--find", help="With this in the message.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Born at this time or later: 2026-11-27, 2026-11-27T08:00, 2h, 7d.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Born before this time.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many.")] = 20,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """List runs, the latest first."""
    from urllib.parse import urlencode

    from cli.run_list import moment, table

    query: dict[str, Any] = {
        "state": ",".join(state or []),
        "template": template,
        "schedule": schedule,
        "session": session,
        "model": model,
        "parent": parent,
        "q": words,
        "since": moment(since),
        "until": moment(until),
    }
    query = {name: value for name, value in query.items() if value}
    found: list[dict[str, Any]] = []
    with talking(url) as (client, console):
        while len(found) < limit:
            page = client.get("/runs?" + urlencode({**query, "limit": min(200, limit - len(found))}))
            found += page["runs"]
            if page["next"] is None:
                break
            query["cursor"] = page["next"]
        if as_json:
            console.print_json(json.dumps(found))
        elif not found:
            console.print("no runs", style="dim")
        elif console.is_terminal:
            console.print(table(found))
        else:
            for run in found:
                typer.echo("\t".join(_columns(run)))


def _columns(run: dict[str, Any]) -> list[str]:
    """Return a run as a line for other programs: id, state, birth, seconds, cost, title."""
    took = "" if run["took_s"] is None else f"{run['took_s']:.3f}"
    return [run["run_id"], run["state"], run["born_at"], took, f"{run['cost_usd']:.6f}", run["title"] or ""]


@app.command()
def show(run_id: RunId, as_json: AsJson = False, url: Url = None) -> None:
    """Show where a run is: its state, what it waits for, its tasks, what it cost."""
    from cli.run_tree import tree

    with talking(url) as (client, console):
        run = client.get(f"/runs/{run_id}")
        console.print_json(json.dumps(run)) if as_json else console.print(tree(run))


@app.command()
def watch(run_id: RunId, url: Url = None) -> None:
    """Watch a run until it ends: a live tree, or a line for every change. Exit code 1 when it did not succeed."""
    from rich.live import Live

    from cli.run_tree import changes, tree

    with talking(url) as (client, console):
        run = client.get(f"/runs/{run_id}")
        if console.is_terminal:
            with Live(tree(run), console=console, refresh_per_second=8) as live:
                while run["state"] not in OVER:
                    time.sleep(LOOK_AGAIN_S)
                    run = client.get(f"/runs/{run_id}")
                    live.update(tree(run))
        else:
            told: dict[str, str] = {}
            while True:
                for line in changes(run, told):
                    console.print(line, markup=False, soft_wrap=True)
                if run["state"] in OVER:
                    break
                time.sleep(LOOK_AGAIN_S)
                run = client.get(f"/runs/{run_id}")
        if run["state"] != "completed":
            raise typer.Exit(FAILED)


@app.command()
def timeline(run_id: RunId, as_json: AsJson = False, url: Url = None) -> None:
    """Show what took how long."""
    from cli.run_tree import bars

    with talking(url) as (client, console):
        found = client.get(f"/runs/{run_id}/timeline")
        console.print_json(json.dumps(found)) if as_json else console.print(bars(found))


@app.command()
def graph(run_id: RunId, url: Url = None) -> None:
    """Print a run's workflow as a Mermaid flowchart."""
    with talking(url) as (client, _):
        typer.echo(client.text(f"/runs/{run_id}/graph"), nl=False)


@app.command()
def output(run_id: RunId, name: Annotated[str, typer.Argument(help="The output's name.")], url: Url = None) -> None:
    """Print what a task put out, whole."""
    with talking(url) as (client, _):
        typer.echo(client.text(f"/runs/{run_id}/outputs/{name}"))


def _steer(url: str | None, run_id: str, verb: str, **wanted: str | None) -> None:
    with talking(url) as (client, console):
        body = {name: value for name, value in wanted.items() if value is not None}
        run = client.post(f"/runs/{run_id}/{verb}", body)
        waits = f", waiting for {run['waits_for']}" if run.get("waits_for") else ""
        console.print(f"{run_id} is {run['state']}{waits}", markup=False, soft_wrap=True)


@app.command()
def cancel(run_id: RunId, reason: Reason = None, url: Url = None) -> None:
    """End a run now; what it has so far is kept."""
    _steer(url, run_id, "cancel", reason=reason)


@app.command()
def pause(run_id: RunId, reason: Reason = None, url: Url = None) -> None:
    """Start nothing more of a run until it is resumed."""
    _steer(url, run_id, "pause", reason=reason)


@app.command()
def resume(run_id: RunId, reason: Reason = None, url: Url = None) -> None:
    """Go on with a paused run."""
    _steer(url, run_id, "resume", reason=reason)


@app.command()
def approve(run_id: RunId, task: Task = None, reason: Reason = None, url: Url = None) -> None:
    """Let a task that waits for a person go on."""
    _steer(url, run_id, "approve", task=task, reason=reason)


@app.command()
def reject(run_id: RunId, task: Task = None, reason: Reason = None, url: Url = None) -> None:
    """Let a task that waits for a person fail."""
    _steer(url, run_id, "reject", task=task, reason=reason)


@app.command()
def retry(
    run_id: RunId,
    callback_url: Annotated[
        str | None, typer.Option(help="Where its answer is POSTed; else where that of the first was to be.")
    ] = None,
    no_callback: Annotated[bool, typer.Option("--no-callback", help="Its answer is POSTed nowhere.")] = False,
    url: Url = None,
) -> None:
    """Begin a new run that takes over what succeeded and does the rest again; prints its id."""
    if no_callback and callback_url is not None:
        raise typer.BadParameter("give either --callback-url or --no-callback")
    said = no_callback or callback_url is not None
    _again(url, run_id, "retry", {"callback_url": callback_url} if said else {})


@app.command()
def fork(
    run_id: RunId,
    start_at: Annotated[
        list[str] | None, typer.Option(help="The output of a task to do again; may be repeated.")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(metavar="OUTPUT=TEXT", help="Another prompt for a task; @FILE reads it.")
    ] = None,
    variable: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Another value for a variable; JSON, else a text.")
    ] = None,
    callback_url: Annotated[str | None, typer.Option(help="Where its answer is POSTed.")] = None,
    url: Url = None,
) -> None:
    """Begin a new run from any task of this one, with what is different; prints its id."""
    edits = {name: {"prompt": _text(text)} for name, text in pairs("--prompt", prompt or [])}
    variables = {name: value_of(text) for name, text in pairs("--variable", variable or [])}
    body = {"start_at": start_at or [], "edits": edits, "variables": variables, "callback_url": callback_url}
    _again(url, run_id, "fork", body)


@app.command()
def callback(run_id: RunId, url: Url = None) -> None:
    """Send a run's answer to its callback URL again; or now, when it waits for its next attempt."""
    with talking(url) as (client, console):
        run = client.post(f"/runs/{run_id}/callback", {})
        delivery = run["callback"]["deliveries"][-1]
        console.print(f"delivery {delivery['number']} to {run['callback']['url']} is {delivery['state']}", markup=False)


def _again(url: str | None, run_id: str, how: str, body: dict[str, Any]) -> None:
    with talking(url) as (client, _):
        typer.echo(client.post(f"/runs/{run_id}/{how}?wait=false", body)["run_id"])


def _text(given: str) -> str:
    return Path(given[1:]).read_text(encoding="utf-8") if given.startswith("@") else given
