"""A gateway that is only its answers, and what to ask it with."""

from collections.abc import Iterator

import pytest

from cli.client import Client
from tests.cli.gateway import Gateway, running


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
def url(gateway: Gateway) -> Iterator[str]:
    with running(gateway) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, timeout_s=20) as client:
        yield client
