"""Segue's side: a whole system of its own, and the way on which a call takes exactly one model call."""

from typing import Any

import aiohttp

from bench.gateways.targets import QUESTION, Failed, Target, completion
from tests.system import System

ROLE = "medium_ai"
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "completions": ("/v1/chat/completions", completion(ROLE)),
    "chat": ("/chat", {"message": QUESTION}),
    "workflow": (
        "/workflow",
        {
            "workflow": [
                {"type": "inline", "tasks": [{"model": ROLE, "prompt": QUESTION, "output_variable": "answer"}]},
            ],
        },
    ),
}


def configured(document: dict[str, Any]) -> None:
    """Have a rule send every chat message to the role, so that no categorizing call is made."""
    flow = document["request_flow"]
    flow["context_limits"]["force_thinking_ai"] = 1
    flow["categorization"]["L"]["model"] = ROLE


async def target(system: System, session: aiohttp.ClientSession, way: str | None) -> Target:
    """Return the system as a target; without a way the OpenAI-compatible one where the gateway has it, else /chat.

    Raises `Failed` when the gateway has it and does not answer.
    """
    path, body = WAYS[way or "completions"]
    if way is None:
        async with session.post(system.gateway.url + path, json=body) as answer:
            if answer.status in {404, 405}:
                path, body = WAYS["chat"]
            elif answer.status != 200:
                raise Failed(f"segue at {path}", answer.status, await answer.text())
    roots = [process.pid for process in system.processes if process.name != "simulator"]
    if system.nats is not None and system.nats.pid is not None:
        roots.append(system.nats.pid)
    return Target(f"segue {path}", system.gateway.url + path, body, roots)
