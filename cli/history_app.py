"""`segue history`, `segue usage`: the projection that lists and sums come from."""

import json
import os
from contextlib import closing
from typing import Annotated, Any

import typer

from cli.options import AsJson, Url
from cli.talking import FAILED, NOT_REACHABLE, stand_in, talking

app = typer.Typer(help="The history: what lists of runs and sums of costs come from.", no_args_is_help=True)


@app.command()
def rebuild(
    from_nothing: Annotated[bool, typer.Option("--from-nothing", help="Forget also what the log has no more.")] = False,
) -> None:
    """Read the whole log again into the history. Services may be running; nothing else is touched."""
    import asyncio

    stand_in()
    from nats.errors import Error

    from cli.bus_client import NoBus
    from shared.bus.errors import BusError
    from shared.config import ConfigInvalid
    from shared.config.environment import Environment
    from shared.history.store import HistoryUnavailable, WrongHistoryUrl

    try:
        environment = Environment.read(os.environ)
        if environment.history_url == "off":
            raise typer.BadParameter("SEGUE_HISTORY_URL is off: there is no history to rebuild")
        taken = asyncio.run(_rebuild(environment, from_nothing=from_nothing))
    except NoBus as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(NOT_REACHABLE) from None
    except (Error, OSError) as error:
        typer.echo(f"the NATS server went away: {error}", err=True)
        raise typer.Exit(NOT_REACHABLE) from None
    except (ConfigInvalid, HistoryUnavailable, WrongHistoryUrl, BusError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(FAILED) from None
    typer.echo(f"{taken:,} facts of the log are taken in")


async def _rebuild(environment: Any, *, from_nothing: bool) -> int:
    import asyncio

    from cli.bus_client import connected
    from shared.bus.connection import open_bus
    from shared.history.projector import Projector
    from shared.history.store import History

    client = await connected(environment, "segue-history")
    try:
        with closing(History(environment.history_url)) as history:
            projector = Projector(await open_bus(client), history, runs_days=36_500, calls_days=36_500)
            await asyncio.to_thread(lambda: history.again(from_nothing=from_nothing))
            while not await projector.catch_up():
                pass  # a gateway took a stretch in meanwhile: from there on
            return projector.taken
    finally:
        await client.close()


def usage(
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="day, model, role, variant, provider, purpose, template, schedule, category, kind, session, "
            "tenant; may be repeated."
        ),
    ] = None,
    since: Annotated[str | None, typer.Option(help="From this time on: 2026-11-27, 2026-11-27T08:00, 2h, 7d.")] = None,
    until: Annotated[str | None, typer.Option(help="Before this time.")] = None,
    unknown: Annotated[
        bool, typer.Option("--unknown", help="List attempts whose cost nobody knows (yet) instead.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=200, help="With --unknown: so many at the most.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="With --unknown: go on behind the page before.")] = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Sum up calls, tokens and costs."""
    from urllib.parse import urlencode

    from cli.run_list import moment, sums

    if unknown:
        _unknown(url, limit, cursor, as_json=as_json)
        return
    chosen = by or ["day", "model"]
    query = {"by": ",".join(chosen), "since": moment(since), "until": moment(until)}
    with talking(url) as (client, console):
        answer = client.get("/usage?" + urlencode({name: value for name, value in query.items() if value}))
        console.print_json(json.dumps(answer)) if as_json else console.print(sums(answer, chosen))


def _unknown(url: str | None, limit: int, cursor: str | None, *, as_json: bool) -> None:
    """Print attempts whose cost nobody knows."""
    from urllib.parse import urlencode

    from cli.unknown_list import table

    query = {"limit": str(limit), **({"cursor": cursor} if cursor else {})}
    with talking(url) as (client, console):
        answer = client.get("/unknown-attempts?" + urlencode(query))
        if as_json:
            console.print_json(json.dumps(answer))
            return
        if not answer["attempts"]:
            console.print("the cost of every attempt is known", style="dim")
            return
        console.print(table(answer))
        if answer["next"]:
            console.print(f"more: --cursor {answer['next']}", style="dim", markup=False)
