"""JSON paths of the workflow validator, read back as locations."""

import pytest

from shared.config.checks import location_of
from shared.workflows.validation import json_path


@pytest.mark.parametrize(
    "location",
    [(), ("workflow", 0, "tasks", 1, "model"), ("variables", ""), ("variables", "a.b[0]"), ("variables", "it's\\x")],
)
def test_a_path_says_where_it_came_from(location: tuple[int | str, ...]) -> None:
    """Also for keys that are no names: empty, with dots, brackets, quotes."""
    assert location_of(json_path(location)) == location
