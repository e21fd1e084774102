# Sourced by start.sh, test.sh and check.sh: makes the virtual environment from a hashed lock file, once.
#
#   prepare LOCKFILE      sets $python; installs only when the lock, the Python or the project file changed
#
# SEGUE_VENV: where the environment lies (default .venv beside this script's folder).

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

find_python() {
  local name
  for name in "${SEGUE_PYTHON:-}" python3.13 python3.12 python3.11 python3.14 python3 python; do
    [[ -n $name ]] && command -v "$name" >/dev/null 2>&1 || continue
    if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      command -v "$name"
      return
    fi
  done
  echo "Segue needs Python 3.11 or newer with venv, and found none." >&2
  echo "Install one (Debian, Ubuntu: apt install python3 python3-venv) or name it: SEGUE_PYTHON=/path/to/python3" >&2
  return 1
}

prepare() {
  local lock=$root/$1 venv=${SEGUE_VENV:-$root/.venv} wanted stamp
  python=$venv/bin/python
  stamp=$venv/.segue-$(basename "$1")
  wanted=$(cat "$lock" "$root/pyproject.toml" | sha256sum | cut -d' ' -f1)
  if [[ -x $python && -f $stamp && $(<"$stamp") == "$wanted" ]]; then
    return
  fi
  local base
  base=$(find_python) || return 1
  if [[ ! -x $python ]] || ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "Making a virtual environment in ${venv#"$root"/} with $("$base" --version) …" >&2
    "$base" -m venv --clear "$venv"
  fi
  echo "Installing what $(basename "$lock") locks (a minute, the first time) …" >&2
  "$python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock"
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e "$root"
  printf '%s' "$wanted" >"$stamp"
}
