"""SIGTERM: not ready at once; whoever waits is answered as long as the server lets connections finish."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def on_signal(begin: Callable[[], None]) -> Iterator[None]:
    """Call `begin` in the running loop when the process is told to stop, then what handled the signal before.

    The server installs its own handlers before the application starts and stops taking connections on them; the
    application itself is told only once all connections have ended, which is too late to say that it is not ready.
    Outside the main thread signals are nobody's business: nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(begin)
        earlier = before[signal.Signals(number)]
        if callable(earlier):
            earlier(number, frame)

    for number in SIGNALS:
        if callable(before[number]):
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, earlier in before.items():
            if callable(earlier):
                signal.signal(number, earlier)
