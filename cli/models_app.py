"""`segue models`, `segue providers`: who plays each role, changed while the system runs."""

import json
from typing import Annotated, Any

import typer

from cli.options import AsJson, Url
from cli.registry_app import document, if_match
from cli.talking import talking

models = typer.Typer(help="Roles and the models that play them.", no_args_is_help=True)
providers = typer.Typer(help="Servers that models are asked of.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Its name.")]
File = Annotated[str, typer.Argument(help="A JSON file; - reads standard input.")]
Reason = Annotated[str, typer.Option("--reason", help="Why: callers are told.")]
OnTopOf = Annotated[str | None, typer.Option("--if-version", help="Only on top of this version; 0: only a first one.")]


@models.command("ls")
def list_models(as_json: AsJson = False, url: Url = None) -> None:
    """List the roles with the models that play them."""
    from cli.tables import plain

    with talking(url) as (client, console):
        found = client.get("/models")
        if as_json:
            console.print_json(json.dumps(found))
            return
        table = plain("role", "provider", "model", "version", "stand in", "", whole=("role", "provider"))
        for one in found["models"]:
            table.add_row(
                one["name"], one["provider"], one["model"], str(one["version"] or "file"),
                " ".join(one["fallbacks"]), _said(one),
            )  # fmt: skip
        console.print(table)


def _said(one: dict[str, Any]) -> str:
    if one["disabled"]:
        return f"disabled: {one['disabled']}"
    if one["variants"]:
        shares = ", ".join(f"{name} {variant['weight']}" for name, variant in one["variants"].items())
        return f"default {one['weight']}, {shares}"
    if not one["available"]:
        return "nobody can be asked"
    return f"until {one['expires_on']}" if one["expires_on"] else ""


@models.command("show")
def show_model(name: Name, url: Url = None) -> None:
    """Print a role as JSON, ready to be changed and written back."""
    with talking(url) as (client, _):
        typer.echo(json.dumps(client.get(f"/models/{name}"), indent=2, ensure_ascii=False))


@models.command("put")
def put_model(name: Name, path: File, match: OnTopOf = None, url: Url = None) -> None:
    """Add a role, or have another model play it, from a JSON file; every service follows within a second."""
    _put("models", "role", name, path, match, url)


@models.command("rm")
def remove_model(name: Name, url: Url = None) -> None:
    """Take back what was written of a role."""
    _remove("models", "role", name, url)


@models.command("disable")
def disable_model(name: Name, reason: Reason, url: Url = None) -> None:
    """Have nobody ask a role's model: whoever stands in answers."""
    _switch("models", "role", name, {"reason": reason}, url)


@models.command("enable")
def enable_model(name: Name, url: Url = None) -> None:
    """Have a role asked again."""
    _switch("models", "role", name, None, url)


@providers.command("ls")
def list_providers(as_json: AsJson = False, url: Url = None) -> None:
    """List the servers beside the built-in providers."""
    from cli.tables import plain

    with talking(url) as (client, console):
        found = client.get("/providers")
        if as_json:
            console.print_json(json.dumps(found))
            return
        if not found["providers"]:
            console.print("none but the built-in ones: openrouter, google_ai, openai_compatible", style="dim")
            return
        table = plain("provider", "protocol", "servers", "keys from", "roles", "", whole=("provider",))
        for one in found["providers"]:
            disabled = f"disabled: {one['disabled']}" if one["disabled"] else ""
            table.add_row(
                one["name"], one["protocol"], " ".join(one["base_url"]), " ".join(one["api_key_env"]),
                " ".join(one["roles"]), disabled,
            )  # fmt: skip
        console.print(table)


@providers.command("put")
def put_provider(name: Name, path: File, match: OnTopOf = None, url: Url = None) -> None:
    """Add a provider, or change one, from a JSON file: {protocol, base_url, api_key_env}."""
    _put("providers", "provider", name, path, match, url)


@providers.command("rm")
def remove_provider(name: Name, url: Url = None) -> None:
    """Take back what was written of a provider."""
    _remove("providers", "provider", name, url)


@providers.command("disable")
def disable_provider(name: Name, reason: Reason, url: Url = None) -> None:
    """Have nothing asked of a provider: whoever stands in for its roles answers."""
    _switch("providers", "provider", name, {"reason": reason}, url)


@providers.command("enable")
def enable_provider(name: Name, url: Url = None) -> None:
    """Have a provider asked again."""
    _switch("providers", "provider", name, None, url)


def _put(what: str, called: str, name: str, path: str, match: str | None, url: str | None) -> None:
    written = document(path)
    with talking(url) as (client, console):
        found = client.put(f"/{what}/{name}", written, if_match(match))
        console.print(f"{called} {name} is at version {found['version']}", markup=False)


def _remove(what: str, called: str, name: str, url: str | None) -> None:
    with talking(url) as (client, console):
        back = client.delete(f"/{what}/{name}")["now"]
        said = "is as the configuration file has it" if back else "is gone"
        console.print(f"{called} {name} {said}", markup=False)


def _switch(what: str, called: str, name: str, body: dict[str, str] | None, url: str | None) -> None:
    with talking(url) as (client, console):
        client.post(f"/{what}/{name}/{'enable' if body is None else 'disable'}", body or {})
        console.print(f"{called} {name} is {'asked again' if body is None else 'not asked any more'}", markup=False)
