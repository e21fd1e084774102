"""Fill a template in: from its parameters' values to a workflow that can run. Pure."""

from collections.abc import Mapping
from dataclasses import replace

from pydantic import JsonValue

from shared.workflows.problems import Blueprint
from shared.workflows.validation import Catalogue, Invalid, Problem, Valid, validate


def filled(
    template: Blueprint,
    given: Mapping[str, JsonValue],
    catalogue: Catalogue,
    templates: Mapping[str, Blueprint],
) -> Valid | Invalid:
    """Return the workflow of a template with values for its parameters, or everything that is wrong with them.

    `templates`: those that its tasks stand for, and so on.
    """
    problems = tuple(Problem(f"$.{name}", "bad_variable", f"{name} {what}") for name, what in template.problems(given))
    if problems:
        return Invalid(problems)
    queues: list[JsonValue] = [queue.model_dump(mode="json", exclude_none=True) for queue in template.workflow]
    document: JsonValue = {"workflow": queues, "variables": template.bound(given)}
    return validate(document, replace(catalogue, templates=templates))
