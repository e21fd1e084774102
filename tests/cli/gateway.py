"""A gateway that is only its answers: right ones, unless a test breaks one."""

import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from shared.bus.server import free_port

NOW = "2026-11-23T17:00:00Z"
Break = Callable[[str, str, dict[str, Any]], Any]
"""Takes method, path and the right body; returns the body to send, or a whole response."""


class Gateway:
    """Keeps sessions, remembers what it was asked."""

    def __init__(self) -> None:
        self.sessions: dict[str, list[dict[str, str]]] = {}
        self.asked: list[dict[str, Any]] = []
        self.broken: Break = lambda method, path, body: body
        self.streams = True
        self.detail: str | None = None
        """When set, /chat fails with it."""

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/{path:path}", self.answer, methods=["GET", "POST", "DELETE"])])

    async def answer(self, request: Request) -> Response:
        method, path = request.method, request.url.path
        body: dict[str, Any] = json.loads(await request.body() or b"{}")
        if body:
            self.asked.append({"path": path, **body})
        if path in {"/docs", "/redoc"}:
            return PlainTextResponse("docs")
        status, said = self._said(method, path, body)
        if path == "/chat" and status == 200 and body.get("stream") and self.streams:
            return StreamingResponse(self._events(said), media_type="text/event-stream")
        sent = self.broken(method, path, said)
        return sent if isinstance(sent, Response) else JSONResponse(sent, status)

    async def _events(self, answer: dict[str, Any]) -> AsyncIterator[str]:
        text = answer["response"]
        events: list[tuple[str, dict[str, Any]]] = [
            ("accepted", {"run_id": "r1", "session_id": answer["session_id"]}),
            ("category", {"category": answer["category"], "reason": "model"}),
            ("token", {"call": "direct", "attempt": 1, "offset": 0, "text": "nonsense"}),
            ("restart", {"call": "direct", "attempt": 2}),
            ("token", {"call": "direct", "attempt": 2, "offset": 0, "text": text[:5]}),
            ("token", {"call": "direct", "attempt": 2, "offset": 5, "text": text[5:]}),
            ("answer", answer),
            ("done", {}),
        ]
        for name, data in self.broken("STREAM", "/chat", {"events": events})["events"]:
            yield f"event: {name}\ndata: {json.dumps(data)}\n\n"

    def _said(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return the status and the right body."""
        match method, path.strip("/").split("/"):
            case "GET", ["" | "health"]:
                return 200, {"status": "healthy", "timestamp": NOW, "version": "1", "models_available": 1}
            case "GET", ["models"]:
                model = {"name": "fast_ai", "provider": "p", "model": "m", "purpose": "answers"}
                return 200, {"models": [model], "count": 1}
            case "GET", ["addons"]:
                return 200, {"addons": ["storytelling", "instagram"], "count": 2}
            case "GET", ["templates"]:
                return 200, {"templates": [{"name": "research_report", "description": "d", "steps": 4}], "count": 1}
            case "GET", ["stats"]:
                counts = {"active_sessions": 1, "total_messages": 2}
                return 200, {**counts, "uptime_seconds": 3.5, "timestamp": NOW}
            case "GET", ["openapi.json"]:
                names = ("chat", "workflow", "template/{name}", "session/{session_id}", "models", "addons", "templates")
                return 200, {"paths": {f"/{name}": {} for name in names}}
            case "POST", ["chat"]:
                return self._chat(body)
            case "POST", ["workflow"]:
                return self._workflow(body)
            case "POST", ["template", "research_report"]:
                if "topic" not in body:
                    return 422, {"detail": [{"path": "$.topic", "message": "topic is missing"}]}
                return 200, self._result({"state": f"on {body['topic']}", "report": "a report"})
            case "GET" | "DELETE", ["session", session] if session in self.sessions:
                if method == "DELETE":
                    del self.sessions[session]
                    return 200, {"status": "deleted", "session_id": session}
                return 200, {"created_at": NOW, "messages": self.sessions[session]}
            case _:
                return 404, {"detail": "not here"}

    def _chat(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        message = body.get("message")
        if not isinstance(message, str) or not message.strip() or body.get("context_tokens", 0) < 0:
            return 422, {"detail": [{"path": "$.message", "message": "say something"}]}
        if self.detail is not None:
            return 502, {"detail": self.detail, "run_id": "r1"}
        session = body.get("session_id") or f"s{len(self.sessions) + 1}"
        before = self.sessions.setdefault(session, [])
        response = f"[simulated] {message} {' '.join(one['content'] for one in before)}"
        before.append({"role": "user", "content": message, "timestamp": NOW})
        before.append({"role": "assistant", "content": response, "timestamp": NOW})
        orchestrated = len(message) > 150
        return 200, {
            "session_id": session,
            "response": response,
            "category": "H" if orchestrated else "M",
            "timestamp": NOW,
            "model_used": "m",
            "run_id": "r1",
            "acknowledgement": "At once." if orchestrated else None,
            "cost_usd": 0.000123,
            "took_s": 0.5,
            "simulated": True,
            "calls": 7 if orchestrated else 2,
            "note": None,
        }

    def _workflow(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        known = dict(body.get("variables", {}))
        problems = []
        for queue in body["workflow"]:
            for task in queue["tasks"]:
                if task["model"] == "nobody":
                    problems += [{"path": "$", "message": "nobody"}, {"path": "$", "message": "nothing"}]
                    continue
                prompt = task["prompt"]
                for name, value in known.items():
                    prompt = prompt.replace(f"{{{name}}}", str(value))
                known[task["output_variable"]] = f"[simulated] {prompt}"
        return (422, {"detail": problems}) if problems else (200, self._result(known))

    @staticmethod
    def _result(result: dict[str, str]) -> dict[str, Any]:
        return {"status": "completed", "result": result, "execution_time": 0.1, "run_id": "r", "simulated": True}


@contextmanager
def running(gateway: Gateway) -> Iterator[str]:
    """Serve it from a thread; yields its address."""
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(
            gateway.app(),
            host="127.0.0.1",
            port=port,
            log_config=None,
            lifespan="off",
            ws="none",
            timeout_keep_alive=120,  # a connection is never closed just as the next request is sent on it
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < until
        time.sleep(0.005)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)
