"""Providers for development and tests, on loopback: OpenRouter's chat API with scripted faults and a ledger of its own.

Everything that it writes says that it is simulated. One module a protocol (`openrouter`; Google's API will stand
beside it), decisions apart from them (`answers`, `letters`, `plans`, `schemas`, `prices`, `latency`, `faults`), and
an admin API under `/__sim/` (`admin`). `docs/simulator.md` says how to use it.
"""

from simulator.serving import DEFAULT_PORT, PORT_VARIABLE, PortTaken, serve

__all__ = ["DEFAULT_PORT", "PORT_VARIABLE", "PortTaken", "serve"]
