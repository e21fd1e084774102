"""Systems of real processes, shared within a module where a test leaves them as they were."""

from collections.abc import AsyncIterator

import pytest

from tests.system import System


@pytest.fixture
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """One copy of each service and a zero-latency simulator."""
    async with System(tmp_path_factory.mktemp("system")) as running:
        yield running
