"""A thin HTTP client of the gateway: plain requests, and the events of a streamed answer."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

NOT_REACHABLE = 3
FAILED = 1


class Unreachable(Exception):
    """Nobody answers at the gateway's address."""

    def __init__(self, url: str) -> None:
        super().__init__(f"no Segue answers at {url}: start one with ./start.sh (or `segue up`), or name it with --url")


class Failure(Exception):
    """The gateway said no; `detail` is its reason."""

    def __init__(self, status: int, detail: object, run_id: str | None = None) -> None:
        text = detail if isinstance(detail, str) else json.dumps(detail, indent=2, ensure_ascii=False)
        super().__init__(text)
        self.status, self.run_id = status, run_id


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a streamed answer."""

    name: str
    data: dict[str, Any]


class Client:
    """`with Client(url) as client: client.get("/health")`."""

    def __init__(self, url: str, timeout_s: float = 330.0) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(base_url=self.url, timeout=httpx.Timeout(timeout_s, connect=5.0), trust_env=False)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def send(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """Send one request; any status is an answer. Raises `Unreachable`."""
        try:
            return self._http.request(method, path, json=body, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(self.url) from error

    def get(self, path: str) -> dict[str, Any]:
        """Return a body. Raises `Failure` for any other status than 200."""
        return _body(self.send("GET", path))

    def post(self, path: str, body: object) -> dict[str, Any]:
        """Return a body. Raises `Failure` for any other status than 200."""
        return _body(self.send("POST", path, body))

    def chat(self, body: dict[str, Any]) -> Iterator[Event]:
        """Ask, and yield the events as they come. Raises `Failure` when the request was refused before it began."""
        try:
            with self._http.stream("POST", "/chat", json={**body, "stream": True}) as answer:
                if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                    answer.read()
                    yield Event("answer", _body(answer))
                    return
                yield from events(answer.iter_lines())
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(self.url) from error
        except httpx.RemoteProtocolError as error:
            raise Failure(0, "the connection was cut before the answer was complete; the run goes on") from error


def events(lines: Iterator[str]) -> Iterator[Event]:
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


def _body(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        raise Failure(answer.status_code, f"HTTP {answer.status_code}: {answer.text[:500]}") from None
    if answer.status_code != 200:
        detail = body.get("detail", body) if isinstance(body, dict) else body
        raise Failure(answer.status_code, detail, body.get("run_id") if isinstance(body, dict) else None)
    return body if isinstance(body, dict) else {"body": body}
