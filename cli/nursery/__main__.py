"""`python -m cli.nursery DESCRIPTOR PARENT PADDING`: imports what the services import, then forks one for every order.

A child is what `python -m <module>` would be, with its own environment, output, process id and name; the kernel kills
it when this process dies, and this process when the supervisor dies, so that nothing is ever left behind.
"""

import contextlib
import ctypes
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from importlib import import_module

from cli.child import die_with
from cli.nursery.order import Order, receive

PRELOADED = (
    "services.gateway.app",
    "services.categorizer.app",
    "services.planner.app",
    "services.executor.app",
    "services.finisher.app",
    "simulator",
    "uvloop",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.httptools_impl",
)


def main() -> None:
    die_with(int(sys.argv[2]))
    supervisor = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for module in PRELOADED:
        with contextlib.suppress(ModuleNotFoundError):  # what is optional or moved costs its child the import
            import_module(module)
    gc.collect()
    gc.freeze()  # the children share these pages as long as nobody writes to them
    order = nurse(supervisor)
    if order is not None:
        become(order)


def nurse(supervisor: socket.socket) -> Order | None:
    """Fork for every order, report who ended. Returns the order in a child; None when the supervisor has gone."""
    parent = os.getpid()
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    os.set_blocking(read_end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(write_end)
    with selectors.DefaultSelector() as selector:
        selector.register(supervisor, selectors.EVENT_READ)
        selector.register(read_end, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not supervisor:
                    os.read(read_end, 4096)
                    _reap(supervisor)
                    continue
                received = receive(supervisor)
                if received is None:
                    return None
                order, descriptors = received
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    for descriptor in (read_end, write_end):
                        os.close(descriptor)
                    supervisor.close()
                    _settle(order, descriptors, parent)
                    return order
                for descriptor in descriptors:
                    os.close(descriptor)
                _report(supervisor, started=pid)


def _reap(supervisor: socket.socket) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            _report(supervisor, ended=pid, code=os.waitstatus_to_exitcode(status))


def _report(supervisor: socket.socket, **report: int) -> None:
    supervisor.sendall(json.dumps(report).encode() + b"\n")


def _settle(order: Order, descriptors: list[int], parent: int) -> None:
    """Take on the descriptors, signals and environment that a process of its own would have."""
    die_with(parent)
    for one in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(one, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (descriptors[0], 1), (descriptors[1], 2)):
        os.dup2(source, target)
    for descriptor in (null, *descriptors):
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(order.environment)


def become(order: Order) -> None:
    """Run the module as this process's program."""
    from shared import faults

    faults.arm(order.environment.get("SEGUE_FAULT", ""))  # read at import, which was in the nursery's environment
    sys.argv = [order.module, *order.arguments]
    _rename(f"{sys.executable} -m {' '.join(sys.argv)}", order.module.rpartition(".")[2])
    runpy.run_module(order.module, run_name="__main__", alter_sys=True)


def _rename(command: str, name: str) -> None:
    """Let `ps`, `pgrep -f` and `top` show this process as what it is, over the padding of its own command line."""
    with open("/proc/self/stat", "rb") as stat:
        fields = stat.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, proc_pid_stat(5)
    if end > start:
        shown = command.encode()[: end - start - 1]
        ctypes.memmove(start, shown.ljust(end - start, b"\0"), end - start)
    ctypes.CDLL(None).prctl(15, f"segue-{name}".encode()[:15], 0, 0, 0)  # PR_SET_NAME


if __name__ == "__main__":
    main()
