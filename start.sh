#!/usr/bin/env bash
# Starts Segue on this machine: the environment from the hashed lock file (once), then `segue up`.
# Options go to `segue up`; see `./start.sh --help`.
set -euo pipefail
cd "$(dirname "$0")"
source tools/environment.sh
prepare requirements.lock
exec "$python" -m cli up "$@"
