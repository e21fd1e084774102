"""Writes deploy/grafana/dashboards/overview.json from the panels below. `--check` fails when it drifted."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parents[1] / "deploy" / "grafana" / "dashboards" / "overview.json"
DATASOURCE = {"type": "prometheus", "uid": "prometheus"}
QUANTILES = ("0.5", "0.95", "0.99")


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph: its queries by legend, its unit, and a line where an objective lies."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    line: float | None = None
    about: str = ""


def rate(metric: str, *by: str) -> str:
    """Return a counter's rate a second, summed by labels."""
    return f"sum by ({', '.join(by)}) (rate({metric}[$__rate_interval]))"


def p95(metric: str, by: str) -> dict[str, str]:
    """Return a histogram's 95th percentile by a label."""
    labels = f"le, {by}"
    quantile = f"histogram_quantile(0.95, sum by ({labels}) (rate({metric}_bucket[$__rate_interval])))"
    return {f"{{{{{by}}}}}": quantile}


def quantiles(metric: str, by: str = "") -> dict[str, str]:
    """Return a histogram's quantiles, `by` a label where one is given."""
    labels = f"le, {by}" if by else "le"
    return {
        f"p{float(q) * 100:g}" + (f" {{{{{by}}}}}" if by else ""): (
            f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket[$__rate_interval])))"
        )
        for q in QUANTILES
    }


FAILED = (
    'sum(rate(segue_runs_ended_total{outcome="failed"}[$__rate_interval]) or vector(0)) '
    "/ sum(rate(segue_runs_ended_total[$__rate_interval]))"
)
PLACES = "sum by (service, pool) (segue_handlers_running) / sum by (service, pool) (segue_handler_places)"

ROWS: dict[str, tuple[Panel, ...]] = {
    "Runs": (
        Panel("Accepted a second", {"{{source}}": rate("segue_runs_accepted_total", "source")}, "reqps"),
        Panel(
            "Ended a second, by outcome",
            {"{{outcome}} {{category}}": rate("segue_runs_ended_total", "outcome", "category")},
            "reqps",
        ),
        Panel("Failed share", {"failed": FAILED}, "percentunit", 0.05, "Over the line for five minutes: an alert."),
        Panel("Seconds from birth to end", quantiles("segue_run_seconds"), "s", 5),
        Panel("Waiting at the gateways", {"{{instance}}": "segue_http_requests_in_flight"}),
        Panel(
            "HTTP answers a second, by status",
            {"{{kind}} {{status}}": rate("segue_http_requests_total", "kind", "status")},
            "reqps",
        ),
    ),
    "Work": (
        Panel("Waiting in consumers", {"{{consumer}}": "max by (consumer) (segue_consumer_pending)"}, line=5000),
        Panel("Taken and not settled", {"{{consumer}}": "max by (consumer) (segue_consumer_ack_pending)"}),
        Panel("Places taken", {"{{service}} {{pool}}": PLACES}, "percentunit"),
        Panel("Handler seconds, p95", p95("segue_handler_seconds", "service"), "s"),
        Panel("Redelivered a second", {"{{service}}": rate("segue_messages_redelivered_total", "service")}),
        Panel("Dead letters a second", {"{{service}}": rate("segue_dead_letters_total", "service")}),
    ),
    "Models and money": (
        Panel(
            "Attempts a second, by outcome",
            {"{{provider}} {{outcome}}": rate("segue_attempts_total", "provider", "outcome")},
            "reqps",
        ),
        Panel("Attempt seconds, p95", p95("segue_attempt_seconds", "model"), "s"),
        Panel("First token, p95", p95("segue_attempt_first_token_seconds", "model"), "s"),
        Panel("Tokens a second", {"{{model}} {{direction}}": rate("segue_tokens_total", "model", "direction")}),
        Panel("US dollars an hour", {"{{model}}": f"{rate('segue_cost_usd_total', 'model')} * 3600"}, "currencyUSD"),
        Panel("Plans, by source", {"{{source}}": rate("segue_runs_planned_total", "source")}, "reqps"),
    ),
    "Processes": (
        Panel("CPU", {"{{job}}": rate("process_cpu_seconds_total", "job")}, "percentunit"),
        Panel("Memory", {"{{job}} {{instance}}": "process_resident_memory_bytes"}, "bytes", 100_000_000),
        Panel("Event loop, seconds late", {"{{service}}": "max by (service) (segue_event_loop_lag_seconds)"}, "s"),
        Panel("Connected to NATS", {"{{service}}": "min by (service) (segue_bus_connected)"}),
        Panel("Durable writes a second", {"{{service}}": rate("segue_bus_durable_writes_total", "service")}),
        Panel("Versions", {"{{service}} {{version}}": "count by (service, version) (segue_build_info)"}),
    ),
}
WIDTH, HEIGHT, COLUMNS = 8, 7, 3


def rendered() -> str:
    """Return the dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        panels.append({"type": "row", "title": title, "gridPos": {"h": 1, "w": 24, "x": 0, "y": top}, "panels": []})
        top += 1
        for place, panel in enumerate(row):
            x, y = WIDTH * (place % COLUMNS), top + HEIGHT * (place // COLUMNS)
            panels.append(_graph(panel, {"h": HEIGHT, "w": WIDTH, "x": x, "y": y}))
        top += HEIGHT * -(-len(row) // COLUMNS)
    for number, entry in enumerate(panels, 1):
        entry["id"] = number
    dashboard = {
        "uid": "segue-overview",
        "title": "Segue",
        "tags": ["segue"],
        "schemaVersion": 41,
        "version": 1,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": []},
        "annotations": {"list": []},
        "panels": panels,
    }
    return json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n"


def _graph(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0, "custom": {"fillOpacity": 8, "lineWidth": 1}}
    if panel.line is not None:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": panel.line}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        defaults["custom"]["thresholdsStyle"] = {"mode": "line"}
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": DATASOURCE, "expr": expression, "legendFormat": legend}
            for place, (legend, expression) in enumerate(panel.queries.items())
        ],
    }


def main() -> int:
    text = rendered()
    if "--check" in sys.argv[1:]:
        if not TARGET.exists() or TARGET.read_text() != text:
            print("drifted: deploy/grafana/dashboards/overview.json; run python tools/generate_dashboard.py")
            return 1
        return 0
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
