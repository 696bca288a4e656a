# Sourced by scripts/demo, scripts/test and scripts/provision.sh: a virtual environment with this
# project in it.
#
# PYTHON in the environment chooses the interpreter (3.10 or later), DEPENDENCIES=oldest the oldest
# versions of what is needed.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"

# What the package is built from.
readonly sources=(setup.py pyproject.toml README.md LICENSE chp_gevent)

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

# install_project FOLDER WHAT [EXTRAS]: a virtual environment with this project and what it needs.
#
# WHAT is "copy", or "editable": the environment then uses the checkout as it is. Nothing is
# installed, and no index asked, when all of it is there already.
install_project() {
  local folder="$1" what="$2" extras="${3:-}" state
  make_environment "$folder"
  state="$(wanted_state "$folder" "$what" "$extras")"
  if [ "$(cat "$folder/.installed" 2>/dev/null)" = "$state" ] &&
    "$folder/bin/python" -m pip check >/dev/null 2>&1; then
    return
  fi
  rm -f "$folder/.installed"
  if [ "$what" = editable ]; then
    run_pip "$folder" --editable "$root$extras"
  else
    install_copy "$folder" "$extras" || exit 1
  fi
  printf '%s\n' "$state" >"$folder/.installed"
}

# make_environment FOLDER: an empty virtual environment, unless there is one that works.
make_environment() {
  local folder="$1" python
  if [ -z "${PYTHON:-}" ] && ! command -v python3 >/dev/null; then
    apt_install python3 python3-venv
  fi
  python="$(find_python)" || fail "no Python 3.10 or later: ${PYTHON:-python3}"
  if works "$folder" "$python"; then
    return
  fi
  can_be_made "$folder" || fail "cannot write to $folder"
  "$python" -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
  say "virtual environment $folder ($("$python" --version))"
  "$python" -m venv --clear "$folder" || fail "no virtual environment can be made in $folder"
}

# works FOLDER PYTHON: whether a virtual environment is there that was made by this Python.
#
# Its interpreter is a link: after an upgrade of the system's Python it is the new one, and finds
# nothing of what was installed for the old one, pip included.
works() {
  local version='import sys; print(sys.version_info[:2])'
  [ -x "$1/bin/python" ] && "$1/bin/python" -c 'import pip' 2>/dev/null &&
    [ "$("$1/bin/python" -c "$version")" = "$("$2" -c "$version")" ]
}

# can_be_made FOLDER: whether it, or the folder that it is to be in, can be written to.
can_be_made() {
  local folder="$1"
  until [ -e "$folder" ]; do folder="$(dirname "$folder")"; done
  [ -d "$folder" ] && [ -w "$folder" ]
}

# Prints what an environment is when the project in it is up to date.
wanted_state() {
  local files=("${sources[@]}")
  # The code itself is not in an editable installation.
  [ "$2" != editable ] || files=(setup.py pyproject.toml)
  echo "$2 $3 ${DEPENDENCIES:-newest} $("$1/bin/python" --version) $(
    cd "$root"
    find "${files[@]}" -name __pycache__ -prune -o -type f -print0 | LC_ALL=C sort -z |
      xargs -0 sha256sum | sha256sum | cut -c 1-64
  )"
}

# From a copy: pip builds in place, where a checkout may be read-only, or have an old build in it.
install_copy() (
  copy="$(mktemp -d)"
  trap 'rm -rf "$copy"' EXIT
  (cd "$root" && cp -r "${sources[@]}" "$copy")
  run_pip "$1" "$copy$2"
)

# run_pip FOLDER ARGUMENT...: pip install, with a sign of life; if it fails, the reason in two lines.
run_pip() {
  local folder="$1" log="$1/pip.log" watcher status=0
  shift
  say "installing into $folder (a few minutes the first time)"
  [ "${DEPENDENCIES:-newest}" != oldest ] || set -- --constraint "$root/scripts/lib/oldest.txt" "$@"
  : >"$log"
  show_progress "$log" &
  watcher=$!
  # In the environment, since pip runs itself to build things.
  PIP_RETRIES=1 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_PROGRESS_BAR=off \
    "$folder/bin/python" -m pip install "$@" >"$log" 2>&1 || status=$?
  kill "$watcher" 2>/dev/null && wait "$watcher" || :
  [ ! -t 1 ] || printf '\r\033[K'
  [ "$status" != 0 ] || return 0
  # The last line that tells more than that something failed; it may be that of an inner pip.
  grep -ohE '(ERROR|error): .*' "$log" | grep -v 'subprocess-exited-with-error' | tail -n 1 >&2 || :
  if grep -qE 'Retrying|No matching distribution' "$log"; then
    fail "pip reaches no package index that has it: is this machine online? All it said: $log"
  fi
  fail "pip install does not work. All it said: $log"
}

# show_progress LOG: what pip is at, until killed: in one line of a terminal, else now and then.
show_progress() {
  local line shown='' looks=0
  # The shell is gone when somebody has interrupted it.
  while kill -0 $$ 2>/dev/null; do
    sleep 0.2
    looks=$((looks + 1))
    # Every 5 s into a file or a pipe.
    [ -t 1 ] || [ $((looks % 25)) = 0 ] || continue
    line="$(grep -E '^(Collecting|Building|Installing)' "$1" | tail -n 1 | cut -c 1-70)" || :
    [ "$line" != "$shown" ] || continue
    shown="$line"
    if [ -t 1 ]; then
      printf '\r\033[K   %s' "$line"
    else
      printf '   %s\n' "$line"
    fi
  done
}

failed=()
# step NAME COMMAND...: what fails is remembered, and the others run all the same.
step() {
  say "$1"
  "${@:2}" || failed+=("$1")
}

# Leaves with 1, and says why, when a step has failed.
end_of_steps() {
  if [ ${#failed[@]} != 0 ]; then
    say "failed: $(printf '%s; ' "${failed[@]}")"
    exit 1
  fi
}
