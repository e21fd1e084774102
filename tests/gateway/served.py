"""A gateway as a process: `python -m tests.gateway.served <nats url> <port> <seconds to drain> <until they are told>`.

The last: how long whoever waits when it is told to stop is let wait, before he is told that it stops.
"""

import sys

from services.gateway import app
from services.gateway.app import application
from services.gateway.bounds import Bounds
from shared import service
from tests.gateway.serving import listings

if __name__ == "__main__":
    url, port, drain_s, told_after_s = sys.argv[1:]
    service.DRAIN_S = float(drain_s)
    app.ANSWERED_BEFORE_END_S = service.DRAIN_S - float(told_after_s)
    service.serve(
        application(url, listings(), Bounds(), drain_s=service.DRAIN_S),
        service="gateway",
        host="127.0.0.1",
        port=int(port),
        log_level="info",
    )
