# Sourced by start.sh, test.sh and check.sh: makes the virtual environment from a hashed lock file, once.
#
#   prepare LOCKFILE      sets $python; installs only when the lock, the project file or the Python changed
#
# SEGUE_VENV: where the environment lies (default .venv beside this script's folder).
# SEGUE_PYTHON: the Python to make it with (default: the first of 3.11 or newer that is found).

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

find_python() {
  local name found=""
  for name in "${SEGUE_PYTHON:-}" python3.13 python3.12 python3.11 python3.14 python3 python; do
    [[ -n $name ]] && command -v "$name" >/dev/null 2>&1 || continue
    if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      command -v "$name"
      return
    fi
    found+=" $name ($("$name" --version 2>&1 | tail -n 1))"
  done
  echo "Segue needs Python 3.11 or newer with its venv module.${found:+ Found only:$found.}" >&2
  echo "Install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python) or name it:" >&2
  echo "  SEGUE_PYTHON=/path/to/python3.12 $0" >&2
  return 1
}

# What an environment is made from: the same text means that nothing has to be installed.
made_from() { cat "$root/$1" "$root/pyproject.toml" && "$python" --version; }

install() {
  "$python" -m pip install --quiet --disable-pip-version-check --no-input "$@" && return
  echo "pip could not install it: is there a connection to the package index (or PIP_INDEX_URL, PIP_FIND_LINKS)?" >&2
  return 1
}

prepare() {
  local lock=$1 venv=${SEGUE_VENV:-$root/.venv} stamp base
  python=$venv/bin/python
  stamp=$venv/.made-from-$lock
  if [[ -f $stamp ]] && made_from "$lock" 2>/dev/null | cmp -s - "$stamp"; then
    return
  fi
  if ! "$python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
    base=$(find_python) || return 1
    echo "Making a virtual environment in ${venv#"$root"/} with $("$base" --version) …" >&2
    "$base" -m venv --clear "$venv" || return 1
  fi
  echo "Installing what $lock locks (a minute, the first time) …" >&2
  rm -f "$stamp"
  install --require-hashes -r "$root/$lock" || return 1
  install --no-deps --no-build-isolation -e "$root" || return 1
  "$python" -m compileall -q "$root"/{shared,services,cli,simulator} >/dev/null || true # only saves time later
  made_from "$lock" >"$stamp" || return 1
  if [[ $lock == requirements-dev.lock ]]; then # it has everything of the other one, in the same versions
    made_from requirements.lock >"$venv/.made-from-requirements.lock"
  fi
}
