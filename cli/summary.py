"""What a person reads when a Segue is up. Pure."""

from collections.abc import Iterator
from pathlib import Path

from rich.text import Text

from cli.roster import Roster
from shared.config import Configuration
from shared.config.environment import Environment


def base_url(environment: Environment) -> str:
    """Return where this machine reaches the API."""
    return f"http://{_reachable(environment.host)}:{environment.port}"


def _reachable(host: str) -> str:
    if host in {"127.0.0.1", "0.0.0.0", "::", "::1", ""}:
        return "localhost"
    return f"[{host}]" if ":" in host else host


def models(environment: Environment, configuration: Configuration, *, simulated: bool) -> Text:
    """Return who answers. `simulated`: a simulator of our own does."""
    if environment.openai_base_url is not None:
        model = f", model {environment.openai_model}" if environment.openai_model else ""
        return Text(f"every text role at {environment.openai_base_url}{model}")
    if simulated or environment.simulator_url is not None:
        where = f" at {environment.simulator_url}" if environment.simulator_url is not None else ""
        return Text.assemble(
            ("simulated", "bold yellow"),
            f"{where}: no text here comes from a model. For real ones set OPENROUTER_API_KEY or SEGUE_OPENAI_BASE_URL",
        )
    if environment.openrouter_api_key is None and configuration.api_keys.openrouter is None:
        return Text("none: set OPENROUTER_API_KEY or SEGUE_OPENAI_BASE_URL", style="bold yellow")
    return Text("OpenRouter")


def lines(
    environment: Environment, roster: Roster, *, nats: str, models: Text, version: str, took_s: float, command: str
) -> Iterator[Text]:
    """Yield the summary line by line. `command`: how this user calls `segue`."""
    base = base_url(environment)
    health = "  ".join(f"{member.name} :{member.port}" for member in roster.services)
    yield Text("")
    yield Text(f"Segue {version}", style="bold")
    for name, said in (
        ("API", Text(base)),
        ("docs", Text(f"{base}/docs")),
        ("metrics", Text(f"{base}/metrics, and /metrics, /healthz, /readyz of every service")),
        ("services", Text(health)),
        ("NATS", Text(nats)),
        ("models", models),
        ("logs", Text(str(shown(environment.data_dir / "logs")))),
    ):
        yield Text.assemble((f"  {name:<10}", "dim"), said)
    yield Text("")
    yield Text.assemble(("ready", "bold green"), f" in {took_s:.1f} s. In another terminal:")
    url = "" if environment.port == 8000 else f" --url {base}"
    if environment.auth == "keys":
        yield Text(f"  {command} keys create me --bus     (a key to ask with, as SEGUE_API_KEY; all: docs/security.md)")
    yield Text(f'  {command} ask{url} "What is the capital of France?"')
    yield Text(f"  {command} check{url}")
    yield Text("Ctrl-C stops everything.")
    yield Text("")


def shown(path: Path) -> Path:
    """Return a path as it is shortest to read."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
