"""`.env`: NAME=value lines that stand in for variables which are not set. Pure."""

from collections.abc import Mapping
from pathlib import Path


def read_dotenv(path: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a file that the environment does not have; none when there is no file."""
    if not path.is_file():
        return {}
    return {name: value for name, value in parse(path.read_text()).items() if name not in environment}


def parse(text: str) -> dict[str, str]:
    """Return the variables of a `.env` text: comments, `export` and quotes are understood, nothing is expanded."""
    found = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        name = name.strip()
        if not equals or not name or name.startswith("#"):
            continue
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        else:
            value = value.partition(" #")[0].rstrip()
        if value:
            found[name] = value
    return found
