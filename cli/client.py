"""A thin HTTP client of the gateway: plain requests, and the events of a streamed answer."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import httpx

TIMEOUT_S = 330.0
"""Longer than the default deadline of a run: the gateway says first that it has passed."""
SHOWN_CHARS = 500


class Unreachable(Exception):
    """Nobody answers at the gateway's address."""

    def __init__(self, url: str) -> None:
        super().__init__(f"no Segue answers at {url}: start one with ./start.sh (or `segue up`), or name it with --url")
        self.url = url


class WrongAddress(Exception):
    """The address is none."""


class Failure(Exception):
    """The gateway said no; the message is its `detail`. Status 0: it said nothing more."""

    def __init__(self, status: int, detail: object, run_id: str | None = None) -> None:
        super().__init__(_text(detail))
        self.status, self.run_id = status, run_id


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a streamed answer."""

    name: str
    data: dict[str, Any]


class Client:
    """`with Client(url) as client: client.get("/health")`. Raises `Unreachable`, `Failure`, `WrongAddress`."""

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url
        try:
            self._http = httpx.Client(
                base_url=url.rstrip("/"), timeout=httpx.Timeout(timeout_s, connect=5.0), trust_env=False
            )
        except httpx.InvalidURL as error:
            raise WrongAddress(f"{url!r} is no address: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def send(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """Send one request; any status is an answer."""
        with self._faults():
            return self._http.request(method, path, json=body, headers=headers)

    def get(self, path: str) -> dict[str, Any]:
        """Return a body. Raises `Failure` for any other status than 200."""
        return _body(self.send("GET", path))

    def post(self, path: str, body: object) -> dict[str, Any]:
        """Return a body. Raises `Failure` for any other status than 200."""
        return _body(self.send("POST", path, body))

    def put(self, path: str, body: object, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Write something and return it. Raises `Failure` unless it is written."""
        return _body(self.send("PUT", path, body, headers), also=201)

    def delete(self, path: str) -> dict[str, Any]:
        """Delete something. Raises `Failure` unless it was there."""
        return _body(self.send("DELETE", path))

    def text(self, path: str) -> str:
        """Return a body that is no JSON object, as it is. Raises `Failure` for any other status than 200."""
        answer = self.send("GET", path)
        return answer.text if answer.status_code == 200 else str(_body(answer))

    def accepted(self, path: str, body: object) -> dict[str, Any]:
        """Return a body whose status says that the work has begun (202)."""
        answer = self.send("POST", path, body)
        if answer.status_code == 202:
            found: dict[str, Any] = answer.json()
            return found
        return _body(answer)

    def chat(self, body: dict[str, Any]) -> Iterator[Event]:
        """Ask, and yield the events as they come; one `answer` from a gateway that does not stream."""
        with self._faults(), self._http.stream("POST", "/chat", json={**body, "stream": True}) as answer:
            if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                answer.read()
                yield Event("answer", _body(answer))
                return
            yield from events(answer.iter_lines())

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(self.url) from error
        except httpx.TimeoutException as error:
            raise Failure(0, "no answer in time; the run goes on until its deadline") from error
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise WrongAddress(f"{self.url!r} is no address: {error}") from error
        except httpx.TransportError as error:
            raise Failure(0, "the connection was cut before the answer was complete; the run goes on") from error


def events(lines: Iterable[str]) -> Iterator[Event]:
    """Read server-sent events from lines. (https://html.spec.whatwg.org/multipage/server-sent-events.html)"""
    name, data = "message", list[str]()
    for line in lines:
        if not line:
            if data:
                yield Event(name, json.loads("\n".join(data)))
            name, data = "message", []
        elif line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))


def _body(answer: httpx.Response, *, also: int = 200) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        raise Failure(answer.status_code, f"HTTP {answer.status_code}: {answer.text[:SHOWN_CHARS]}") from None
    if not isinstance(body, dict):
        raise Failure(answer.status_code, f"this is no Segue: it answers {str(body)[:SHOWN_CHARS]}")
    if answer.status_code not in (200, also):
        raise Failure(answer.status_code, body.get("detail", body), body.get("run_id"))
    return body


def _text(detail: object) -> str:
    """Return a `detail` as a person reads it: a text, or a line for every problem."""
    if isinstance(detail, str):
        return detail
    if isinstance(detail, list) and all(isinstance(one, dict) and "message" in one for one in detail):
        return "\n".join(f"{one['path']}: {one['message']}" if one.get("path") else one["message"] for one in detail)
    return json.dumps(detail, indent=2, ensure_ascii=False)
