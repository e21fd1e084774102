"""Ask Segue over the bus with nothing but a socket: the NATS protocol is lines of text.

python plain.py 127.0.0.1 4222 acme a-password "What is the capital of France?"
"""

import json
import socket
import sys
import time

host, port, user, password, question = sys.argv[1:6]
connection = socket.create_connection((host, int(port)), timeout=30)
lines = connection.makefile("rwb")


def say(line: str, body: bytes = b"") -> None:
    lines.write(line.encode() + b"\r\n" + (body + b"\r\n" if line.startswith("PUB") else b""))
    lines.flush()


def hear() -> dict[str, object]:
    """Return the next message; answer the server's pings meanwhile."""
    while True:
        words = lines.readline().decode().split()
        if words[:1] == ["PING"]:
            say("PONG")
        elif words[:1] == ["MSG"]:  # MSG <subject> <subscription> <bytes>
            body = lines.read(int(words[-1]) + 2)
            return dict(json.loads(body))
        elif not words or words[0] == "-ERR":
            raise SystemExit(f"the server says {words}")


def ask(subject: str, body: dict[str, object]) -> dict[str, object]:
    data = json.dumps(body).encode()
    say(f"PUB {subject} answers {len(data)}", data)  # "answers" is where the answer goes, in this account
    return hear()


lines.readline()  # INFO {…}
say("CONNECT " + json.dumps({"user": user, "pass": password, "verbose": False, "pedantic": False}))
say("SUB answers 1")
begun = ask("segue.chat", {"message": question})
if not begun["ok"]:
    raise SystemExit(f"refused: {begun['detail']}")
while "answer" not in (found := ask(f"segue.read.{begun['run_id']}", {})):
    time.sleep(0.2)
answer = found["answer"]
print("answer", answer.get("response") or answer.get("error") if isinstance(answer, dict) else answer)
