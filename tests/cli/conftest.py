"""A gateway that is only its answers, and what to ask it with."""

from collections.abc import Iterator

import pytest

from client import Segue
from tests.cli.gateway import Gateway, running


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
def url(gateway: Gateway) -> Iterator[str]:
    with running(gateway) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[Segue]:
    with Segue(url, timeout_s=20, max_retries=0) as client:
        yield client
