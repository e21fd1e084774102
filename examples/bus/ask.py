"""Ask Segue over the bus from an account of your own: `pip install nats-py`, then

python ask.py nats://127.0.0.1:4222 acme a-password "What is the capital of France?"
"""

import asyncio
import json
import sys
import uuid
from typing import Any

import nats


async def ask(client: Any, subject: str, body: dict[str, Any], message_id: str | None = None) -> dict[str, Any]:
    """Ask one question. With a message id it can be repeated until there is an answer: it stays one run."""
    headers = {"Nats-Msg-Id": message_id} if message_id else None
    for _ in range(10):
        try:
            answer = json.loads((await client.request(subject, json.dumps(body).encode(), 5, headers=headers)).data)
        except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
            await asyncio.sleep(1)  # nobody is there at this moment
            continue
        if answer["ok"]:
            return dict(answer)
        if "retry_after_s" not in answer:
            raise SystemExit(f"refused: {answer['status']} {answer['detail']}")
        await asyncio.sleep(answer["retry_after_s"])  # full: nothing was kept
    raise SystemExit("nobody answered")


async def main(url: str, user: str, password: str, question: str) -> None:
    client = await nats.connect(url, user=user, password=password)
    ended = asyncio.Event()

    async def hear(msg: Any) -> None:
        print("heard", msg.subject.partition("segue.live.")[2].partition(".")[2])
        if msg.subject.endswith(".ended"):
            ended.set()

    await client.subscribe("segue.live.*.>", cb=hear)  # before asking, so that nothing is missed
    begun = await ask(client, "segue.chat", {"message": question}, str(uuid.uuid4()))
    while True:  # what is heard is a hint: reading says what is so
        found = await ask(client, f"segue.read.{begun['run_id']}", {})
        if "answer" in found:
            break
        try:
            await asyncio.wait_for(ended.wait(), 2)
        except asyncio.TimeoutError:
            pass
    print("answer", found["answer"].get("response") or found["answer"].get("error"))
    await client.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
