"""Receive answers as callbacks, with nothing but Python: verify, forget copies, answer quickly.

SECRET=whsec_… python receiver.py 8090
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = base64.b64decode(os.environ["SECRET"].removeprefix("whsec_"))
seen: set[str] = set()


def genuine(headers: dict[str, str], body: bytes) -> bool:
    """Whether the POST was signed with our secret, not long ago (https://www.standardwebhooks.com)."""
    name, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > 300:
        return False
    expected = hmac.new(SECRET, f"{name}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    for signature in headers.get("webhook-signature", "").split():
        version, _, value = signature.partition(",")
        if version == "v1" and hmac.compare_digest(value, base64.b64encode(expected).decode()):
            return True
    return False


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        if not genuine(headers, body):
            self.send_response(401)
        else:
            if headers["webhook-id"] not in seen:  # the same answer may come more than once
                seen.add(headers["webhook-id"])
                answer = json.loads(body)["data"]
                print(answer["run_id"], answer["outcome"], answer.get("response") or answer.get("result"), flush=True)
            self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing beside the answers."""


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
