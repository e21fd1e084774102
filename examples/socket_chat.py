"""Asks over a WebSocket and goes on after a broken connection: `python examples/socket_chat.py "Why is the sky blue?"`.

SEGUE_URL says where the gateway is (http://127.0.0.1:8000), SEGUE_API_KEY is a key, where it wants one.
Needs `websockets`.
"""

import asyncio
import json
import os
import sys
import uuid
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

URL = os.environ.get("SEGUE_URL", "http://127.0.0.1:8000").replace("http", "ws", 1) + "/ws"
KEY = os.environ.get("SEGUE_API_KEY")


async def ask(message: str) -> dict[str, Any]:
    """Return the answer, printing its text as it is written."""
    # Until something is heard of the run the same key makes the same run.
    asked: dict[str, Any] = {"type": "chat", "id": "1", "message": message, "idempotency_key": str(uuid.uuid4())}
    protocols = ["segue", f"bearer.{KEY}"] if KEY else ["segue"]
    while True:
        try:
            async with connect(URL, subprotocols=protocols, proxy=None) as socket:  # type: ignore[arg-type]  # plain names
                await socket.send(json.dumps(asked))
                async for said in socket:
                    heard: dict[str, Any] = json.loads(said)
                    match heard["type"]:
                        case "event":  # it is on the log: from now on it can be followed from where we are
                            asked = {"type": "subscribe", "id": "1", "run_id": heard["run_id"], "after": heard["seq"]}
                        case "restart":
                            print("\n(begun again)")
                        case "token":
                            print(heard["text"], end="", flush=True)
                        case "answer" | "error":
                            return heard
        except (ConnectionClosed, OSError):
            pass
        await asyncio.sleep(1)


if __name__ == "__main__":
    answer = asyncio.run(ask(sys.argv[1] if len(sys.argv) > 1 else "Why is the sky blue?"))
    print("\n" + json.dumps(answer, indent=2))
    sys.exit(0 if answer["type"] == "answer" else 1)
