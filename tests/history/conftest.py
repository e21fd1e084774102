"""Histories on both databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.history.store import History
from tests.history.postgres import postgres


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def history(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[History]:
    """An empty history."""
    if request.param == "sqlite":
        found = History(f"sqlite:///{tmp_path / 'history.db'}")
    else:
        found = History(request.getfixturevalue("postgres_url"))
    found.again(from_nothing=True)
    yield found
    found.close()
