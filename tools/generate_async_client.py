"""Make `client/awaiting.py` from `client/waiting.py`: the same client, with `await`.

python tools/generate_async_client.py [--check]
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE, TARGET = ROOT / "client" / "waiting.py", ROOT / "client" / "awaiting.py"
WORDS = (
    ("import random\nimport time\n", "import asyncio\nimport os\nimport random\n"),
    ("import os\nimport asyncio\nimport os\n", "import asyncio\nimport os\n"),
    ("from collections.abc import Iterator, Mapping, Sequence\nfrom contextlib import contextmanager\n",
     "from collections.abc import AsyncIterator, Iterator, Mapping, Sequence\n"
     "from contextlib import asynccontextmanager, contextmanager\n"),
    ("class Segue:", "class AsyncSegue:"),
    ("Safe to use from several threads.", "For one event loop."),
    ("httpx.BaseTransport", "httpx.AsyncBaseTransport"),
    ("httpx.Client(", "httpx.AsyncClient("),
    ("self._http.close()", "await self._http.aclose()"),
    ("def __enter__", "async def __aenter__"),
    ("def __exit__", "async def __aexit__"),
    ("        self.close()", "        await self.close()"),
    ("answer.read()", "await answer.aread()"),
    ("for line in answer.iter_lines()", "async for line in answer.aiter_lines()"),
    ("for _ in self.events", "async for _ in self.events"),
    ("time.sleep(", "await asyncio.sleep("),
    ("with self._stream(", "async with self._stream("),
    ("with self._faults(), self._http.stream(", "with self._faults():\n            async with self._http.stream("),
    ("self._http.request(", "await self._http.request("),
)  # fmt: skip


def made(source: str) -> str:
    """Return the awaiting client's source."""
    text = source
    for old, new in WORDS:
        text = text.replace(old, new)
    text = re.sub(r"(    )@contextmanager\n    def _stream\(", r"\1@asynccontextmanager\n    async def _stream(", text)
    text = re.sub(r"^    def (?!_faults|__init__)(\w+)", r"    async def \1", text, flags=re.M)
    text = re.sub(
        r"(async def (?:stream_chat|runs|events|_stream)\((?:[^()]|\([^()]*\))*\)) -> Iterator",
        r"\1 -> AsyncIterator",
        text,
    )
    text = re.sub(r"\bself\.(do|send|run|text)\(", r"await self.\1(", text)
    text = text.replace(
        'return await self.send("GET", calls.artifact_path(artifact), whole=True).content',
        'return (await self.send("GET", calls.artifact_path(artifact), whole=True)).content',
    )
    text = text.replace(
        'return await self.send("GET", path, whole=True).text', 'return (await self.send("GET", path, whole=True)).text'
    )
    text = text.replace(
        '"""The client that waits. `awaiting.py` is made from this file by `tools/generate_async_client.py`."""',
        '"""The client that awaits, made from `waiting.py` by `tools/generate_async_client.py`: change it there."""',
    )
    text = _indented_stream(text)
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(TARGET), "-"],
        input=text,
        text=True,
        capture_output=True,
        check=True,
    )
    linted = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--fix", "-q", "--stdin-filename", str(TARGET), "-"],
        input=done.stdout,
        text=True,
        capture_output=True,
        check=False,
    )
    return linted.stdout


def _indented_stream(text: str) -> str:
    """Put the body of `_stream` one level deeper: it has two `with` statements here."""
    before, mark, after = text.partition(
        "            async with self._http.stream(method, path, json=body, headers=headers) as answer:\n"
    )
    lines = after.split("\n")
    moved = []
    inside = True
    for line in lines:
        if inside and line and not line.startswith("            "):
            inside = False
        moved.append(f"    {line}" if inside and line else line)
    return before + mark + "\n".join(moved)


def main() -> None:
    """Write the file, or with --check say whether it is up to date."""
    found = made(SOURCE.read_text())
    if "--check" in sys.argv:
        if TARGET.read_text() != found:
            sys.exit(f"{TARGET.relative_to(ROOT)} is not what tools/generate_async_client.py makes: run it")
        return
    TARGET.write_text(found)


if __name__ == "__main__":
    main()
