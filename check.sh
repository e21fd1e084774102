#!/usr/bin/env bash
# What has to hold besides the tests: format, lint, types, import rules, generated files, scripts. Runs all, then says what failed.
set -uo pipefail
cd "$(dirname "$0")"
source tools/environment.sh
prepare requirements-dev.lock || exit 1
bin=$(dirname "$python")
failed=()

step() {
  local name=$1 began=$SECONDS
  shift
  if "$@"; then
    echo "ok      $name ($((SECONDS - began)) s)"
  else
    echo "FAILED  $name ($((SECONDS - began)) s): $*"
    failed+=("$name")
  fi
}

scripts() { for script in start.sh test.sh check.sh .ci/run tools/*.sh examples/*.sh; do bash -n "$script" || return 1; done; }
generated() {
  local status=0 tool
  for tool in tools/generate_*.py; do "$python" "$tool" --check || status=1; done
  return $status
}
no_hosts() { # the tree names no package registry's host and no machine's path
  ! git grep -nIE '(pypi|pythonhosted|npmjs|debian)\.(org|com)|/root/|/home/[a-z]' -- . ':!check.sh' 2>/dev/null
}

step format "$bin/ruff" format --check --quiet .
step lint "$bin/ruff" check --quiet --output-format concise .
step types "$bin/mypy" --no-error-summary
step imports "$bin/lint-imports" --no-logo
step generated generated
step locks "$python" tools/check_locks.py
step configuration "$python" -m cli config check orchestration_config.json
step links "$python" tools/check_links.py
step scripts scripts
step hosts no_hosts

if ((${#failed[@]})); then
  echo "check.sh: ${#failed[@]} failed: ${failed[*]}"
  exit 1
fi
echo "check.sh: all of it holds ($SECONDS s)"
