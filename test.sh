#!/usr/bin/env bash
# Runs every test: the environment with the test tools (once), then pytest. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")"
source tools/environment.sh
prepare requirements-dev.lock
exec "$python" -m pytest "$@"
