"""`python -m shared.observe.healthcheck PORT [PATH]`: exits with 0 when the service on that port is ready.

For container health checks, in images that have no curl. Imports only what it needs: it runs every few seconds.
"""

import http.client
import sys


def main() -> int:
    port, path = int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "/readyz"
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2.5)
        connection.request("GET", path)
        return 0 if connection.getresponse().status == 200 else 1
    except OSError:
        return 1


if __name__ == "__main__":
    sys.exit(main())
