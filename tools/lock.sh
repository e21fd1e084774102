#!/usr/bin/env bash
# Resolves pyproject.toml into the two hashed lock files. Needs `uv`; run it after changing a dependency.
set -euo pipefail
cd "$(dirname "$0")/.."
lock() { uv pip compile -q --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-header "$@"; }
lock --extra build pyproject.toml -o requirements.lock
lock --extra build --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock
