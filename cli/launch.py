"""Begins `segue up` in the order that makes it fast: what takes longest first, side by side."""

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cli.processes import Starter


class WrongOption(ValueError):
    """An option of the command line says something that cannot be done."""


def launch(*, simulator: bool, profile: str, copies: list[str], show_logs: bool, began_s: float) -> int:
    """Run `segue up` with this process's environment. Returns the exit code. Raises `WrongOption`.

    `began_s`: when the command was given, by the monotonic clock.
    """
    starter: Starter
    nursery = None
    if sys.platform == "linux":
        from cli.nursery.client import Forking, Nursery

        nursery = Nursery()  # it imports what the services need while this process imports what it needs itself
        starter = Forking(nursery)
    else:
        from cli.processes import Spawning

        starter = Spawning()
    try:
        from cli.roster import Options, read_copies
        from cli.up import refused, up
        from shared.config import ConfigInvalid
        from shared.config.environment import Environment

        try:
            options = Options(simulator, profile, show_logs, read_copies(copies))
        except ValueError as error:
            raise WrongOption(str(error)) from None
        try:
            environment = Environment.read(os.environ)
        except ConfigInvalid as invalid:
            return refused(invalid)
        return up(environment, options, starter, dict(os.environ), began_s)
    finally:
        if nursery is not None:
            nursery.kill()
