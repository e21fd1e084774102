"""From configuration and environment to what is offered."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from services.gateway.app import listings_of
from shared.config import load
from shared.config.environment import Environment
from shared.registry.filling import filled
from shared.workflows.validation import Valid

ROOT = Path(__file__).parents[2]


def environment(**variables: str) -> Environment:
    return Environment.read(variables)


@pytest.mark.parametrize(
    ("variables", "available", "simulated"),
    [
        ({}, 13, 0),  # the key is the executor's alone
        ({"SEGUE_SIMULATOR_URL": "http://127.0.0.1:8200/api/v1"}, 13, 13),
        ({"SEGUE_OPENAI_BASE_URL": "http://127.0.0.1:8103/v1"}, 11, 0),
    ],
)
def test_what_is_available_follows_from_the_environment(
    variables: dict[str, str], available: int, simulated: int
) -> None:
    """The project's own configuration: thirteen roles, fifty addons, three templates."""
    found = listings_of(load(ROOT / "orchestration_config.json").configuration, environment(**variables))
    assert (len(found.models), len(found.addons), len(found.templates)) == (13, 50, 3)
    assert found.models_available == available
    assert sum(model.simulated for model in found.models) == simulated
    assert found.timeout_s == 300


def test_every_template_of_the_project_can_be_run() -> None:
    """Filled in with what it requires, each is a valid workflow of known models and addons."""
    found = listings_of(load(ROOT / "orchestration_config.json").configuration, environment())
    for name, template in found.templates.items():
        given = {parameter: "something" for parameter, asked in template.variables.items() if asked.required}
        checked = filled(template, given, found.catalogue(), {})
        assert isinstance(checked, Valid), f"{name}: {checked}"


async def test_a_wrong_environment_refuses_to_start() -> None:
    """The process ends at once and names the variable, its value and what is expected."""
    variables = {**os.environ, "SEGUE_MAX_WAITING": "many"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.gateway", cwd=ROOT, env=variables, stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 1
    assert b"SEGUE_MAX_WAITING: found 'many'; expected a whole number of at least 1" in said
    assert b"Traceback" not in said
