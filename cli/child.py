"""`python -m cli.child MODULE ARGUMENT…`: runs a module as `python -m` does, and dies with whoever started it.

On Linux the kernel is asked to send SIGTERM when the parent dies, so that a supervisor killed with SIGKILL leaves
nothing behind; elsewhere this is only `python -m`.
"""

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent = int(sys.argv[1])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the kernel was asked
            sys.exit(0)
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
