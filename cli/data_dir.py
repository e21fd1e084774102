"""Holds a data folder: two servers on the same files would destroy each other's."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_LOCKED_AT = 1 << 20
"""Windows locks bytes, and nobody can read what is locked: one far behind the process id."""


class DataDirTaken(Exception):
    """Another Segue runs on this folder."""

    def __init__(self, data_dir: Path, holder: str) -> None:
        super().__init__(
            f"a Segue (process {holder}) already runs with its data in {data_dir}: stop it, or give this one a folder "
            "of its own with SEGUE_DATA_DIR"
        )
        self.data_dir, self.holder = data_dir, holder


class DataDirUnusable(Exception):
    """The folder cannot be made or written to."""

    def __init__(self, data_dir: Path, error: OSError) -> None:
        super().__init__(
            f"cannot keep data in {data_dir} ({error.strerror}): name a folder that can be written with SEGUE_DATA_DIR"
        )


@contextmanager
def held(data_dir: Path) -> Iterator[None]:
    """Hold a folder until the block ends or this process dies. Raises `DataDirTaken`, `DataDirUnusable`."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / "up.lock").open("a+")
    except OSError as error:
        raise DataDirUnusable(data_dir, error) from error
    with lock:
        try:
            _lock(lock)
        except OSError:
            lock.seek(0)
            raise DataDirTaken(data_dir, lock.read().strip() or "unknown") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _lock(lock: IO[str]) -> None:
    if sys.platform == "win32":
        import msvcrt

        lock.seek(_LOCKED_AT)
        msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
