"""Starts services in milliseconds: a process that has imported them all once forks a child for each.

A child is what `python -m services.<name>` would be, with its own environment, output and process id: only the
second of CPU that its imports take is spent once. Lines of JSON come in on standard input, process ids go out.
"""

import json
import os
import runpy
import signal
import sys

PRELOADED = (
    "services.categorizer.app",
    "services.executor.app",
    "services.finisher.app",
    "services.gateway.app",
    "services.planner.app",
    "simulator.app",
    "uvicorn",
    "uvloop",
    "httptools",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.lifespan.on",
)


def serve() -> None:
    """Fork a child for every line until standard input ends."""
    for module in PRELOADED:
        __import__(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps; nobody asks for exit codes
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(order)
        print(pid, flush=True)


def _become(order: dict[str, object]) -> None:
    """Be the process that was ordered: never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output = os.open(str(order["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    environment, arguments = order["environment"], order["arguments"]
    assert isinstance(environment, dict)
    assert isinstance(arguments, list)
    os.environ.clear()
    os.environ.update(environment)
    from shared import faults

    faults.arm(os.environ.get("SEGUE_FAULT", ""))
    sys.argv = list(arguments)
    code = 0
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - this is the end of the process
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
