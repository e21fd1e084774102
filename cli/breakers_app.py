"""`segue breakers`: models that are left alone because they failed again and again."""

import json
from typing import Annotated

import typer

from cli.options import AsJson, Url
from cli.talking import talking

app = typer.Typer(help="Models that are left alone because they failed again and again.", no_args_is_help=True)


@app.command("ls")
def list_breakers(as_json: AsJson = False, url: Url = None) -> None:
    """List models with failures in a row, and whether they are asked."""
    from cli.tables import plain

    with talking(url) as (client, console):
        found = client.get("/breakers")
        if as_json:
            console.print_json(json.dumps(found))
            return
        if not found["breakers"]:
            console.print("every model is asked", style="dim")
            return
        columns = ("provider", "model", "state", "failures", "until", "the latest")
        table = plain(*columns, whole=columns[:3])
        for one in found["breakers"]:
            table.add_row(
                one["provider"], one["model"], one["state"], str(one["failures"]), one["until"] or "", one["reason"]
            )
        console.print(table)


@app.command()
def reset(
    provider: Annotated[str, typer.Argument(help="As `ls` names it.")],
    model: Annotated[str, typer.Argument(help="As `ls` names it.")],
    url: Url = None,
) -> None:
    """Have every executor ask a model again at once."""
    with talking(url) as (client, console):
        client.post("/breakers/reset", {"provider": provider, "model": model})
        console.print(f"{provider} ({model}) is asked again", markup=False)
