"""A child's log file: appended to, and begun anew before it fills the disk."""

from pathlib import Path
from typing import BinaryIO

MOST_BYTES = 20 * 1024 * 1024
"""A file that is larger becomes `<name>.log.1`, in place of the one before it."""
TAIL_BYTES = 4096


class LogFile:
    """At most two files of `most_bytes`, the current one and the one before."""

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES) -> None:
        self.path = path
        self._most_bytes = most_bytes
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = path.open("ab", buffering=0)
        self._bytes = self._file.tell()

    def write(self, line: bytes) -> None:
        """Append a line, as it is."""
        if self._bytes and self._bytes + len(line) > self._most_bytes:
            self._file.close()
            self.path.replace(self.path.with_name(self.path.name + ".1"))
            self._file = self.path.open("ab", buffering=0)
            self._bytes = 0
        self._file.write(line)
        self._bytes += len(line)

    def tail(self, lines: int) -> list[str]:
        """Return the last lines."""
        with self.path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()[-lines:]

    def close(self) -> None:
        self._file.close()
