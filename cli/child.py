"""`python -m cli.child PARENT MODULE ARGUMENT…`: runs a module as `python -m` does, and dies with its parent.

Whatever happens to a supervisor, SIGKILL included, leaves nothing behind: on Linux the kernel sees to it, on other
Unixes a thread looks whether the parent is still there. A child is killed, not asked: it can lose nothing that
matters, and its bus has gone with its parent.
"""

import ctypes
import os
import runpy
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1
_LOOK_EVERY_S = 1.0


def die_with(parent: int) -> None:
    """Have this process killed when `parent` dies. Nothing on Windows."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    elif sys.platform != "win32":
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if sys.platform != "win32" and os.getppid() != parent:  # it died before anybody looked
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY_S)
    os._exit(1)


def main() -> None:
    die_with(int(sys.argv[1]))
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
