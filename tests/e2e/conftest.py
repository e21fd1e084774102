"""A system of real processes, shared by a module's tests that leave it as it was."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.system import System


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """One copy of each service and a zero-latency simulator."""
    async with System(tmp_path_factory.mktemp("system")) as running:
        yield running
