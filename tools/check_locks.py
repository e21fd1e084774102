"""Says which dependencies of pyproject.toml the hashed lock files do not have: `python tools/check_locks.py`."""

import re
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)
EXTRAS = {"requirements.lock": ["build"], "requirements-dev.lock": ["build", "dev"]}


def pins(lock: str) -> dict[str, str]:
    """Return the versions that a lock file pins."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    return {canonicalize_name(name): version for name, version in PIN.findall(text)}


def main() -> int:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    problems = []
    for lock, extras in EXTRAS.items():
        pinned = pins(lock)
        for text in (
            *project["dependencies"],
            *(one for extra in extras for one in project["optional-dependencies"][extra]),
        ):
            wanted = Requirement(text)
            version = pinned.get(canonicalize_name(wanted.name))
            if version is None:
                problems.append(f"{lock} has no {wanted.name}: run tools/lock.sh")
            elif not wanted.specifier.contains(version, prereleases=True):
                problems.append(
                    f"{lock} has {wanted.name} {version}, pyproject.toml wants {wanted.specifier}: run tools/lock.sh"
                )
    base, dev = pins("requirements.lock"), pins("requirements-dev.lock")
    problems += [
        f"{name} is {version} in requirements.lock and {dev.get(name)} in requirements-dev.lock: run tools/lock.sh"
        for name, version in base.items()
        if dev.get(name) != version
    ]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
