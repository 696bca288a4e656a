# Sourced by scripts/demo and scripts/test: a virtual environment with this project in it.
#
# PYTHON in the environment chooses the interpreter (3.10 or later).

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

say() { printf '\n== %s\n' "$*"; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# apt_install PACKAGE...: for root on Debian; anyone else is told what is missing.
apt_install() {
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    fail "missing on this machine: $* (as root: apt-get install $*)"
  fi
  say "apt-get install $*"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq && apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}

# Prints the interpreter to use.
find_python() {
  local candidate
  for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3.10; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
    [ -z "${PYTHON:-}" ] || break
  done
  return 1
}

# make_environment FOLDER WHAT...: a virtual environment where pip has installed WHAT.
make_environment() {
  local folder="$1" python
  shift
  if [ -z "${PYTHON:-}" ] && ! command -v python3 >/dev/null; then
    apt_install python3 python3-venv
  fi
  python="$(find_python)" || fail "no Python 3.10 or later: ${PYTHON:-python3}"
  if [ -x "$folder/bin/python" ] && ! "$folder/bin/python" -c "import sys; sys.exit(
      '%d.%d' % sys.version_info[:2] != '$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')')"
  then
    rm -rf "$folder" # made by another Python
  fi
  if [ ! -x "$folder/bin/pip" ]; then
    "$python" -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
    say "virtual environment $folder ($("$python" --version))"
    "$python" -m venv --clear "$folder" || fail "$python -m venv does not work"
  fi
  say "pip install $*"
  "$folder/bin/pip" install --quiet --disable-pip-version-check "$@" || fail "pip install $*"
}
