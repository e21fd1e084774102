"""What httpx meets, as errors of ours; for the client that waits and the one that awaits."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from . import calls
from .errors import ApiError, ConnectionCut, Unreachable, WrongAddress, error_of


def refused(answer: httpx.Response) -> ApiError:
    """Return the error that an answer is."""
    try:
        return error_of(answer.status_code, answer.json(), answer.headers)
    except ValueError:
        return ApiError(answer.status_code, f"HTTP {answer.status_code}: {answer.text[: calls.SHOWN_CHARS]}")


@contextmanager
def told(url: str) -> Iterator[None]:
    """Raise ours for httpx's exceptions."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise Unreachable(url) from error
    except httpx.TimeoutException as error:
        raise ConnectionCut("no answer in time; the run goes on until its deadline") from error
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise WrongAddress(f"{url!r} is no address: {error}") from error
    except httpx.TransportError as error:
        raise ConnectionCut("the connection was cut before the answer was complete; the run goes on") from error
