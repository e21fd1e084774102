#!/usr/bin/env bash
# Runs every test: the environment with the test tools (once), then pytest. Arguments go to pytest; -n0 runs one test at a time.
set -euo pipefail
cd "$(dirname "$0")"
source tools/environment.sh
prepare requirements-dev.lock
cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
# A file's tests stay together: they share servers. More than four at a time would measure the machine, not the code.
exec "$python" -m pytest -n "$((cores > 4 ? 4 : cores))" --dist loadfile "$@"
