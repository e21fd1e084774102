"""`segue keys`, `segue tenants`: who may use the API, and how much. Through the gateway, or straight on the bus."""

import json
import os
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from cli.options import AsJson, Url
from cli.pairs import seconds_of
from cli.talking import WIDE, talking

keys = typer.Typer(help="API keys: make them, list them, rotate them, revoke them.", no_args_is_help=True)
tenants = typer.Typer(help="Tenants: what all their keys together may use.", no_args_is_help=True)

Bus = Annotated[
    bool,
    typer.Option(
        "--bus",
        help="Straight on the bus (SEGUE_NATS_URL, SEGUE_KEY_SECRET), not through the gateway: for the first key.",
    ),
]
Id = Annotated[
    str, typer.Argument(help="The key's id: what stands between `sgk_` and the next `_`; a whole key will do.")
]
Scopes = Annotated[
    list[str] | None,
    typer.Option("--scope", "-s", help="chat, workflows, read or admin; may be repeated. Else chat, workflows, read."),
]
Requests = Annotated[int | None, typer.Option("--requests-per-minute", help="Runs begun in a minute.")]
Runs = Annotated[int | None, typer.Option("--concurrent-runs", help="Runs at the same time.")]
Tokens = Annotated[int | None, typer.Option("--tokens-per-day")]
UsdDay = Annotated[float | None, typer.Option("--usd-per-day")]
UsdMonth = Annotated[float | None, typer.Option("--usd-per-month")]
Models = Annotated[
    list[str] | None, typer.Option("--model", "-m", help="A role that may answer; may be repeated. Else all.")
]
Priority = Annotated[
    str | None, typer.Option("--priority", help="The most that may be asked for: high, medium or low.")
]


def _limits(
    requests: int | None,
    runs: int | None,
    tokens: int | None,
    usd_day: float | None,
    usd_month: float | None,
    models: list[str] | None,
    priority: str | None,
) -> dict[str, Any]:
    given = {
        "requests_per_minute": requests,
        "concurrent_runs": runs,
        "tokens_per_day": tokens,
        "usd_per_day": usd_day,
        "usd_per_month": usd_month,
        "models": models or None,
        "priority": priority,
    }
    return {name: value for name, value in given.items() if value is not None}


@keys.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What people call it: whose it is, or what for.")],
    tenant: Annotated[str, typer.Option("--tenant", "-t", help="Whose runs it sees and makes.")] = "default",
    scope: Scopes = None,
    expires: Annotated[str | None, typer.Option("--expires", help="In 90d, 12h, …; else never.")] = None,
    requests: Requests = None,
    runs: Runs = None,
    tokens: Tokens = None,
    usd_day: UsdDay = None,
    usd_month: UsdMonth = None,
    model: Models = None,
    priority: Priority = None,
    bus: Bus = False,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Make a key and print it. It is shown this once; afterwards nobody can."""
    body: dict[str, Any] = {
        "name": name,
        "tenant": tenant,
        "scopes": scope or ["chat", "workflows", "read"],
        "limits": _limits(requests, runs, tokens, usd_day, usd_month, model, priority),
    }
    if expires is not None:
        body["expires_at"] = (datetime.now(UTC) + timedelta(seconds=seconds_of("--expires", expires))).isoformat()
    if bus:
        from cli.keys_bus import create as on_bus

        found = on_bus(body)
    else:
        found = _sent("POST", "/admin/keys", body, url)
    _show_new(found, as_json=as_json)


@keys.command("ls")
def list_keys(
    tenant: Annotated[str | None, typer.Option("--tenant", "-t", help="Of this one.")] = None,
    bus: Bus = False,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """List the keys, without their secrets."""
    if bus:
        from cli.keys_bus import every

        found = every(tenant)
    else:
        found = _sent("GET", "/admin/keys" + (f"?tenant={tenant}" if tenant else ""), None, url)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    _table(
        ("key", "name", "tenant", "scopes", "state", "expires", "limits"),
        [
            (
                one["shown_as"],
                one["name"],
                one["tenant"],
                " ".join(one["scopes"]),
                one["state"],
                (one["expires_at"] or "")[:10],
                _told(one["limits"]),
            )
            for one in found["keys"]
        ],
        "there are no keys; the first one: segue keys create admin --scope admin --bus",
    )


@keys.command("show")
def show(key: Id, url: Url = None) -> None:
    """Print a key, without its secret, and what it has used."""
    typer.echo(json.dumps(_sent("GET", f"/admin/keys/{_id(key)}", None, url), indent=2))


@keys.command("limit")
def limit(
    key: Id,
    requests: Requests = None,
    runs: Runs = None,
    tokens: Tokens = None,
    usd_day: UsdDay = None,
    usd_month: UsdMonth = None,
    model: Models = None,
    priority: Priority = None,
    url: Url = None,
) -> None:
    """Give a key other limits, in the place of all that it had; with none it has none."""
    body = _limits(requests, runs, tokens, usd_day, usd_month, model, priority)
    found = _sent("PUT", f"/admin/keys/{_id(key)}/limits", body, url)
    typer.echo(f"{found['shown_as']}: {_told(found['limits']) or 'no limits'}")


@keys.command("rotate")
def rotate(
    key: Id,
    grace: Annotated[str, typer.Option("--grace", help="How long the old secret still works: 1h, 7d, 0s.")] = "1h",
    bus: Bus = False,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Give a key a new secret and print it. Its id, limits and what it has used stay."""
    seconds = seconds_of("--grace", grace)
    if bus:
        from cli.keys_bus import rotate as on_bus

        found = on_bus(_id(key), seconds)
    else:
        found = _sent("POST", f"/admin/keys/{_id(key)}/rotate", {"grace_s": seconds}, url)
    _show_new(found, as_json=as_json)


@keys.command("revoke")
def revoke(key: Id, bus: Bus = False, url: Url = None) -> None:
    """Have every gateway refuse a key from now on. What it began goes on."""
    if bus:
        from cli.keys_bus import revoke as on_bus

        found = on_bus(_id(key))
    else:
        found = _sent("POST", f"/admin/keys/{_id(key)}/revoke", {}, url)
    typer.echo(f"{found['shown_as']} is {found['state']}")


@keys.command("rm")
def remove(key: Id, url: Url = None) -> None:
    """Refuse a key like `revoke`, and forget it."""
    _sent("DELETE", f"/admin/keys/{_id(key)}", None, url)
    typer.echo(f"{_id(key)} is forgotten")


@tenants.command("set")
def set_tenant(
    name: Annotated[str, typer.Argument(help="The tenant.")],
    requests: Requests = None,
    runs: Runs = None,
    tokens: Tokens = None,
    usd_day: UsdDay = None,
    usd_month: UsdMonth = None,
    model: Models = None,
    priority: Priority = None,
    note: Annotated[str, typer.Option(help="For whoever reads it later.")] = "",
    url: Url = None,
) -> None:
    """Write what a tenant may use, all its keys together, in the place of all that was there."""
    limits = _limits(requests, runs, tokens, usd_day, usd_month, model, priority)
    found = _sent("PUT", f"/admin/tenants/{name}", {"limits": limits, "note": note}, url)
    typer.echo(f"{name}: {_told(found['limits']) or 'no limits'}")


@tenants.command("ls")
def list_tenants(as_json: AsJson = False, url: Url = None) -> None:
    """List the tenants that have limits."""
    found = _sent("GET", "/admin/tenants", None, url)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    _table(
        ("tenant", "limits", "note"),
        [(one["name"], _told(one["limits"]), one["note"]) for one in found["tenants"]],
        "no tenant has limits",
    )


@tenants.command("show")
def show_tenant(name: Annotated[str, typer.Argument(help="The tenant.")], url: Url = None) -> None:
    """Print a tenant's limits and what it has used."""
    typer.echo(json.dumps(_sent("GET", f"/admin/tenants/{name}", None, url), indent=2))


@tenants.command("rm")
def remove_tenant(name: Annotated[str, typer.Argument(help="The tenant.")], url: Url = None) -> None:
    """Take a tenant's limits away."""
    _sent("DELETE", f"/admin/tenants/{name}", None, url)
    typer.echo(f"{name}: no limits")


def _sent(method: str, path: str, body: object, url: str | None) -> dict[str, Any]:
    from client.calls import Call

    with talking(url) as (client, _):
        wanted: Call[dict[str, Any]] = Call(method, path, dict, body, repeatable=False, also=201)
        return client.do(wanted)


def _id(text: str) -> str:
    """Return a key's id, of a whole key too: nobody should have to cut one by hand."""
    return text.strip().split("_")[1] if text.startswith("sgk_") and "_" in text[4:] else text.strip()


def _show_new(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    key = found["key"]
    typer.echo(found["api_key"])
    limits = _told(key["limits"])
    told = f"tenant {key['tenant']}, {' '.join(key['scopes'])}{', ' if limits else ''}{limits}"
    typer.echo(f"{key['name']}: {told}. Keep it: it is not shown again. Use it: SEGUE_API_KEY, or Bearer", err=True)


def _told(limits: dict[str, Any]) -> str:
    units = {
        "requests_per_minute": "{:,} requests/min",
        "concurrent_runs": "{:,} runs at once",
        "tokens_per_day": "{:,} tokens/day",
        "usd_per_day": "${:g}/day",
        "usd_per_month": "${:g}/month",
        "priority": "at most {}",
    }
    told = [unit.format(limits[name]) for name, unit in units.items() if limits.get(name) is not None]
    if limits.get("models"):
        told.append("only " + " ".join(limits["models"]))
    return ", ".join(told)


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]], none: str) -> None:
    import sys

    from rich.console import Console

    from cli.tables import plain

    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE)
    if not rows:
        console.print(none, style="dim", markup=False)
        return
    table = plain(*columns)
    for row in rows:
        table.add_row(*(cell.replace("[", "\\[") for cell in row))
    console.print(table)
