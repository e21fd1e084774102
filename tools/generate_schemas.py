"""Writes the JSON Schema of every message on the bus to docs/reference/schemas/. `--check` fails when they drifted."""

import json
import sys
from pathlib import Path

from shared.contracts import access, cache, callbacks, commands, events, health, hints, registry
from shared.contracts.message import Message

TARGET = Path(__file__).resolve().parents[1] / "docs" / "reference" / "schemas"


def messages() -> dict[str, type[Message]]:
    """Return every message by name, in the order of its module."""
    found: dict[str, type[Message]] = {}
    for module in (commands, events, callbacks, hints, registry, health, cache, access):
        for name, value in vars(module).items():
            if isinstance(value, type) and issubclass(value, Message) and value is not Message:
                found[name] = value
    return found


def rendered() -> dict[Path, str]:
    """Return each file's content."""
    files = {}
    for name, kind in messages().items():
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **kind.model_json_schema()}
        files[TARGET / f"{name}.json"] = json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return files


def main() -> int:
    files = rendered()
    there = set(TARGET.glob("*.json"))
    drifted = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    stale = sorted(there - files.keys())
    if "--check" in sys.argv[1:]:
        for path in [*drifted, *stale]:
            print(f"drifted: {path.relative_to(TARGET.parents[2])}; run python tools/generate_schemas.py")
        return 1 if drifted or stale else 0
    TARGET.mkdir(parents=True, exist_ok=True)
    for path in stale:
        path.unlink()
    for path, text in files.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
