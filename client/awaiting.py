"""The client that awaits, made from `waiting.py` by `tools/generate_async_client.py`: change it there."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self, TypeVar

import httpx

from . import calls
from .answers import Begun, ChatAnswer, Model, Plan, Run, RunLine, Schedule, Session, Template, Usage, WorkflowAnswer
from .calls import Call, pause_s, taken
from .errors import ApiError, Busy, ConnectionCut, SegueError, Unreachable, WrongAddress
from .events import Event, EventReader
from .faults import refused, told

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT_S = 330.0
"""Longer than the default deadline of a run: the gateway says first that it has passed."""
OVER = "done"
"""The event that a stream ends with."""


class AsyncSegue:
    """One gateway, or several behind one address. For one event loop.

    `base_url`: else `SEGUE_URL`, else http://127.0.0.1:8000. `api_key`: else `SEGUE_API_KEY`, else none is sent.
    `max_retries`: how often a request is sent again that failed for a reason that passes.
    Methods raise `Unreachable`, `ConnectionCut`, `WrongAddress`, and an `ApiError` for every answer that is no success.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        max_retries: int = 2,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = (base_url or os.environ.get("SEGUE_URL") or DEFAULT_URL).rstrip("/")
        key = api_key or os.environ.get("SEGUE_API_KEY")
        self._retries = max_retries
        try:
            self._http = httpx.AsyncClient(
                base_url=self.url,
                headers={"Authorization": f"Bearer {key}"} if key else None,
                timeout=httpx.Timeout(timeout_s, connect=5.0),
                transport=transport,
                trust_env=False,
            )
        except httpx.InvalidURL as error:
            raise WrongAddress(f"{self.url!r} is no address: {error}") from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    # Ask

    async def chat(
        self,
        message: str,
        *,
        session_id: str | None = None,
        images: Sequence[str] = (),
        context_tokens: int | None = None,
        priority: str | None = None,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
        **extra: Any,
    ) -> ChatAnswer:
        """Ask, and return the answer. Raises `RunFailed` when there is none."""
        body = calls.chat_body(message, session_id, images, context_tokens, priority, timeout_s, extra)
        return await self.do(calls.chat(body, idempotency_key))

    async def stream_chat(
        self,
        message: str,
        *,
        session_id: str | None = None,
        images: Sequence[str] = (),
        context_tokens: int | None = None,
        priority: str | None = None,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
        **extra: Any,
    ) -> AsyncIterator[Event]:
        """Ask, and yield what happens as it happens: `accepted`, `category`, `token`, …, `answer` or `error`, `done`.

        A stream that ends without either was cut: `ConnectionCut`. A gateway that does not stream gives one `answer`.
        """
        body = calls.chat_body(message, session_id, images, context_tokens, priority, timeout_s, extra)
        headers = calls.keyed(idempotency_key)
        reader, over, run_id = EventReader(), False, None
        async with self._stream("POST", "/chat", {**body, "stream": True}, headers) as answer:
            if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                await answer.aread()
                plain = taken(calls.plain("POST", "/chat"), answer.status_code, answer.content, answer.headers)
                yield Event("answer", plain)
                return
            async for line in answer.aiter_lines():
                if (event := reader.take(line)) is not None:
                    over = over or event.name in ("answer", "error")
                    run_id = run_id or event.data.get("run_id")
                    yield event
        if not over:
            raise ConnectionCut("the stream ended without an answer; the run goes on", run_id)

    async def start_chat(
        self,
        message: str,
        *,
        session_id: str | None = None,
        images: Sequence[str] = (),
        context_tokens: int | None = None,
        priority: str | None = None,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
        **extra: Any,
    ) -> Begun:
        """Ask, and return at once: `wait`, `events` and `run` say what becomes of it."""
        body = calls.chat_body(message, session_id, images, context_tokens, priority, timeout_s, extra)
        return await self.do(calls.start_chat(body, idempotency_key))

    async def workflow(
        self,
        queues: Sequence[Any],
        variables: Mapping[str, Any] | None = None,
        *,
        callback_url: str | None = None,
        idempotency_key: str | None = None,
    ) -> WorkflowAnswer:
        """Run a workflow, and return what it put out. `callback_url`: its answer is POSTed there, too."""
        return await self.do(calls.workflow(calls.workflow_body(queues, variables, callback_url), idempotency_key))

    async def start_workflow(
        self,
        queues: Sequence[Any],
        variables: Mapping[str, Any] | None = None,
        *,
        callback_url: str | None = None,
        idempotency_key: str | None = None,
    ) -> Begun:
        """Begin a workflow, and return at once. `callback_url`: its answer is POSTed there, too."""
        return await self.do(
            calls.start_workflow(calls.workflow_body(queues, variables, callback_url), idempotency_key)
        )

    async def template(
        self,
        name: str,
        variables: Mapping[str, Any] | None = None,
        *,
        callback_url: str | None = None,
        idempotency_key: str | None = None,
    ) -> WorkflowAnswer:
        """Run a template, and return what it put out. `callback_url`: its answer is POSTed there, too."""
        return await self.do(calls.template(name, variables or {}, callback_url, idempotency_key))

    async def start_template(
        self,
        name: str,
        variables: Mapping[str, Any] | None = None,
        *,
        callback_url: str | None = None,
        idempotency_key: str | None = None,
    ) -> Begun:
        """Begin a template, and return at once. `callback_url`: its answer is POSTed there, too."""
        return await self.do(calls.start_template(name, variables or {}, callback_url, idempotency_key))

    async def plan(self, message: str, *, idempotency_key: str | None = None, **extra: Any) -> Plan:
        """Plan for a message, and carry nothing out."""
        return await self.do(calls.plan({"message": message, **extra}, idempotency_key))

    # Runs

    async def run(self, run_id: str) -> Run:
        """Return a run as it is now."""
        return await self.do(calls.run(run_id))

    async def runs(self, **wanted: Any) -> AsyncIterator[RunLine]:
        """Yield runs, the latest first, page after page: `state=`, `template=`, `session=`, `q=`, `since=`, …"""
        cursor: str | None = None
        while True:
            page, cursor = await self.do(calls.runs(wanted, cursor))
            for line in page:
                yield line
            if cursor is None:
                return

    async def events(self, run_id: str, *, after: int = 0, tokens: bool = True) -> AsyncIterator[Event]:
        """Follow a run to its end: every fact once, over broken connections; pieces of texts may be lost with those.

        `after`: the id of the last event that you have. A run that is still queued is followed from its beginning.
        Raises `NotFound` for one that is not there, `ConnectionCut` when nobody answers any more.
        """
        reader, failures = EventReader(after or None), 0
        while True:
            headers = {"Last-Event-ID": str(reader.last_id)} if reader.last_id else {}
            try:
                async with self._stream(
                    "GET", calls.events_path(run_id) + calls.query({"tokens": str(tokens).lower()}), None, headers
                ) as answer:
                    async for line in answer.aiter_lines():
                        if (event := reader.take(line)) is not None:
                            failures = 0
                            if event.name == OVER:
                                return
                            yield event
                raise ConnectionCut("the stream ended before the run did")
            except (Busy, ConnectionCut, Unreachable) as error:
                failures += 1
                api = error if isinstance(error, ApiError) else None
                pause = pause_s(api, failures, random.random())
                if failures > max(self._retries, 1) * 3 or pause is None:
                    raise
                await asyncio.sleep(pause)
                reader = EventReader(reader.last_id)

    async def wait(self, run_id: str) -> Run:
        """Return a run once it has ended."""
        async for _ in self.events(run_id, tokens=False):
            pass
        return await self.run(run_id)

    async def output(self, run_id: str, name: str) -> str:
        """Return what one task of a run put out, whole."""
        return await self.text(calls.output(run_id, name))

    async def cancel(self, run_id: str, reason: str | None = None) -> dict[str, Any]:
        """End a run now; what it has is kept."""
        return await self.do(calls.control(run_id, "cancel", reason))

    async def pause(self, run_id: str, reason: str | None = None) -> dict[str, Any]:
        """Begin no further task of a run."""
        return await self.do(calls.control(run_id, "pause", reason))

    async def resume(self, run_id: str, reason: str | None = None) -> dict[str, Any]:
        """Go on with a paused run."""
        return await self.do(calls.control(run_id, "resume", reason))

    async def approve(self, run_id: str, task: str | None = None, comment: str | None = None) -> dict[str, Any]:
        """Let a task go on that waits for a person."""
        return await self.do(calls.control(run_id, "approve", comment, task))

    async def reject(self, run_id: str, task: str | None = None, comment: str | None = None) -> dict[str, Any]:
        """Stop a task that waits for a person."""
        return await self.do(calls.control(run_id, "reject", comment, task))

    async def retry(self, run_id: str, *, idempotency_key: str | None = None, **changes: Any) -> Begun:
        """Do again what failed of a run, as a new run: nothing that succeeded is paid for again.

        `callback_url=`: its answer is POSTed there, None: nowhere; without it where that of the first was to be.
        """
        return await self.do(calls.again(run_id, "retry", changes, idempotency_key))

    async def fork(self, run_id: str, *, idempotency_key: str | None = None, **changes: Any) -> Begun:
        """Begin a changed copy of a run: `start_at=`, `edits=`, `variables=`, `callback_url=`."""
        return await self.do(calls.again(run_id, "fork", changes, idempotency_key))

    # What there is

    async def session(self, session_id: str) -> Session:
        """Return a conversation."""
        return await self.do(calls.session(session_id))

    async def delete_session(self, session_id: str) -> dict[str, Any]:
        """Forget a conversation."""
        return await self.do(calls.delete_session(session_id))

    async def models(self) -> list[Model]:
        """Return the roles and the models that play them."""
        return await self.do(calls.models())

    async def templates(self) -> list[Template]:
        """Return what can be run by name."""
        return await self.do(calls.templates())

    async def schedules(self) -> list[Schedule]:
        """Return what is started by the clock, with what has become of it."""
        return await self.do(calls.schedules())

    async def schedule(self, name: str) -> Schedule:
        """Return a schedule."""
        return await self.do(calls.schedule(name))

    async def put_schedule(
        self, name: str, template: str, variables: Mapping[str, Any] | None = None, **fields: Any
    ) -> Schedule:
        """Have a template started by the clock: `cron=` or `every=`, `timezone=`, `callback_url=`, `paused=`, ….

        An existing schedule is replaced: what is not given is as it is without it.
        """
        return await self.do(calls.put_schedule(name, template, variables, fields))

    async def delete_schedule(self, name: str) -> dict[str, Any]:
        """Forget a schedule; runs that it began go on."""
        return await self.do(calls.delete_schedule(name))

    async def usage(self, *by: str, since: str | None = None, until: str | None = None) -> Usage:
        """Sum up calls, tokens and costs by `day`, `model`, `role`, `template`, …"""
        return await self.do(calls.usage(by or ("day",), since, until))

    async def artifact(self, artifact: str) -> bytes:
        """Return an image or a video that a model made, by its path or its id."""
        return (await self.send("GET", calls.artifact_path(artifact), whole=True)).content

    async def health(self) -> dict[str, Any]:
        """Return how the gateway is: `status` is `healthy`, or `problem` says why not."""
        return await self.do(calls.health())

    # Whatever has no method of its own

    async def get(self, path: str) -> dict[str, Any]:
        """Return a body. Raises `ApiError` for an answer that is no success."""
        return await self.do(calls.plain("GET", path))

    async def post(self, path: str, body: Any) -> dict[str, Any]:
        """Send a body and return another. Raises `ApiError` for an answer that is no success."""
        return await self.do(calls.plain("POST", path, body))

    async def put(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Write something and return it. Raises `ApiError` unless it is written."""
        return await self.do(calls.plain("PUT", path, body, headers))

    async def delete(self, path: str) -> dict[str, Any]:
        """Delete something. Raises `ApiError` unless it was there."""
        return await self.do(calls.plain("DELETE", path))

    async def text(self, path: str) -> str:
        """Return a body that is no JSON object, as it is."""
        return (await self.send("GET", path, whole=True)).text

    async def do(self, call: Call[T]) -> T:
        """Send one request, again where that is safe and its failure passes, and return what the answer says."""
        attempt = 0
        while True:
            attempt += 1
            failed: SegueError
            pause: float | None
            try:
                answer = await self.send(call.method, call.path, call.body, call.headers)
                return taken(call, answer.status_code, answer.content, answer.headers)
            except ApiError as error:
                failed, pause = error, pause_s(error, attempt, random.random())
            except ConnectionCut as error:
                failed, pause = error, pause_s(None, attempt, random.random())
            if attempt > self._retries or pause is None or not call.repeatable:
                raise failed
            await asyncio.sleep(pause)

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        whole: bool = False,
    ) -> httpx.Response:
        """Send one request, once; any status is an answer. `whole`: a status that is no success is an `ApiError`."""
        with self._faults():
            answer = await self._http.request(method, path, json=body, headers=headers)
        if whole and answer.status_code != 200:
            raise refused(answer)
        return answer

    @asynccontextmanager
    async def _stream(
        self, method: str, path: str, body: Any, headers: Mapping[str, str]
    ) -> AsyncIterator[httpx.Response]:
        """Open a stream. Raises `ApiError` for an answer that is no success."""
        with self._faults():
            async with self._http.stream(method, path, json=body, headers=headers) as answer:
                if answer.status_code != 200:
                    await answer.aread()
                    raise refused(answer)
                yield answer

    @contextmanager
    def _faults(self) -> Iterator[None]:
        with told(self.url):
            yield
