"""The process: a socket, a loop, signals. Everything that is decided is elsewhere."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Final

import uvicorn

from simulator.app import build
from simulator.latency import PROFILES
from simulator.transport import ReachableProtocol

DEFAULT_PORT: Final = 8200
PORT_VARIABLE: Final = "SEGUE_SIMULATOR_PORT"
IDLE_CONNECTION_S: Final = 75
LET_GO_AFTER_S: Final = 0.5
STOP_WITHIN_S: Final = 5
RARE_COLLECTIONS: Final = (50_000, 50, 1_000)
"""The ledger keeps what it allocates, and little else is in cycles: walking it often would only make answers late."""


class PortTaken(OSError):
    """The port cannot be listened on."""

    def __init__(self, host: str, port: int, why: str) -> None:
        super().__init__(
            f"cannot listen on {host}:{port} ({why}); choose another port with {PORT_VARIABLE} or --port, "
            "or stop what listens there"
        )
        self.host, self.port = host, port


def serve(
    host: str = "127.0.0.1",
    port: int | None = None,
    profile: str = "fast",
    seed: int = 1,
    *,
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C.

    `port` 0 takes a free one; None takes the variable's, else 8200. `announce` is called once with the line that says
    where it listens. Raises `PortTaken`, and `ValueError` for a profile or a variable that cannot be.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown latency profile {profile!r}; known: {', '.join(sorted(PROFILES))}")
    listener = _listen(host, port if port is not None else _port_of(os.environ.get(PORT_VARIABLE)))
    where = f"http://{host}:{listener.getsockname()[1]}/api/v1"
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(listener, profile, seed, lambda: announce(_told(where, profile, seed)) if announce else None))


def _port_of(value: str | None) -> int:
    if not value:
        return DEFAULT_PORT
    if not value.isdecimal() or int(value) > 65535:
        raise ValueError(f"{PORT_VARIABLE} is {value!r}; it must be a port, 0 to 65535")
    return int(value)


def _told(where: str, profile: str, seed: int) -> str:
    return f"simulating OpenRouter at {where} (profile {profile}, seed {seed})"


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise PortTaken(host, port, error.strerror or str(error)) from error
    return listener


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop


async def _serve(listener: socket.socket, profile: str, seed: int, ready: Callable[[], object]) -> None:
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    config = uvicorn.Config(
        build(profile=profile, seed=seed),
        http=ReachableProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=IDLE_CONNECTION_S,
        timeout_graceful_shutdown=STOP_WITHIN_S,
    )
    server = _Quiet(config)
    config.load()
    server.stop_on(signal.SIGTERM, signal.SIGINT)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*RARE_COLLECTIONS)
    ready()
    await server._serve([listener])


class _Quiet(uvicorn.Server):
    """A server that ends with exit code 0 when it is told to stop; uvicorn's own raises the signal again."""

    def stop_on(self, *signals: signal.Signals) -> None:
        loop = asyncio.get_running_loop()
        for one in signals:
            try:
                loop.add_signal_handler(one, self._stop)
            except NotImplementedError:  # Windows' loops take no handlers
                signal.signal(one, lambda *_: self._stop())

    def _stop(self) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Give answers that are under way a moment, then let their clients go: some hang because they were told to."""
        asyncio.get_running_loop().call_later(LET_GO_AFTER_S, self._let_go)
        await super().shutdown(sockets)

    def _let_go(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()
