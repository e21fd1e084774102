"""`python -m simulator --port 8200 --profile fast --seed 1`."""

import argparse
import sys

from simulator.latency import PROFILES
from simulator.serving import DEFAULT_PORT, PORT_VARIABLE, PortTaken, serve


def main() -> int:
    """Serve until SIGTERM or Ctrl-C; return the process's exit code."""
    parser = argparse.ArgumentParser(prog="simulator", description="OpenRouter's chat API, simulated on loopback.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, help=f"default: {PORT_VARIABLE}, else {DEFAULT_PORT}; 0 takes a free one")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="fast", help="how long answers take")
    parser.add_argument("--seed", type=int, default=1, help="the same request and seed give the same answer")
    given = parser.parse_args()
    try:
        serve(given.host, given.port, given.profile, given.seed, announce=_announce)
    except (PortTaken, ValueError) as error:
        sys.stderr.write(f"simulator: {error}\n")
        return 1
    return 0


def _announce(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
