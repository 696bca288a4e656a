#!/usr/bin/env bash
# Installs the proxy as a service on Debian 12 or later: scripts/provision.sh [OPTION-OF-THE-PROXY...]
#
# Run as root, from a checkout. Puts the package into /opt/chp-gevent, a fresh token and the
# options into /etc/chp-gevent/environment (which is kept if it exists), installs the unit and
# starts it. May be run again to upgrade: the service becomes the new version in place. The
# Vagrantfile runs it in its box.
set -euo pipefail
. "$(dirname "$0")/lib/environment.sh"

readonly prefix=/opt/chp-gevent
readonly settings=/etc/chp-gevent/environment
readonly unit=chp-gevent.service
# Who may connect to UNIX sockets of the service; the unit names it, too.
readonly group=chp-gevent-sockets
readonly default_options=(--port 8000 --api-ip 127.0.0.1)
# The unit's StateDirectory=: a restart does not lose the routes.
readonly storage=(--storage-backend sqlite:/var/lib/chp-gevent/routes.sqlite)

[ "$(id -u)" = 0 ] || fail "run this as root"
# The service runs under an account of its own, which has to read what is installed here.
umask 022

install_package() {
  # The system's own Python: the service can't look into anybody's home for another.
  [ -x /usr/bin/python3 ] || apt_install python3 python3-venv
  export PYTHON="${PYTHON:-/usr/bin/python3}"
  install_project "$prefix" copy
  # An earlier run may have had another umask.
  chmod -R u=rwX,go=rX "$prefix"
}

# check_options OPTION...: refuses in one line what the proxy would refuse, before it is kept.
check_options() {
  "$prefix/bin/python" -c '
import sys
from chp_gevent.cli import parse
from chp_gevent.config.options import OptionError
try:
    parse(sys.argv[1:], {})
except OptionError as error:
    sys.exit(f"error: {error}")
except SystemExit:
    sys.exit("error: an option that only shows something can not be kept")
' "$@" >/dev/null || exit 1
}

# Prints the line of the settings that has these options.
#
# Two parsers of systemd read it. That of EnvironmentFile= takes quotes as they are, since the
# value does not begin with one, and backslashes before what they escape. That of ExecStart= then
# splits the value at spaces, but for those in double quotes.
options_line() {
  local option line='CHP_OPTIONS='
  for option in "$@"; do
    [ "$line" = CHP_OPTIONS= ] || line+=' '
    line+="$(quoted "$option")"
  done
  printf '%s\n' "${line//\\/\\\\}"
}

# quoted TEXT: in double quotes if it needs them, but for the name of an option before a "=".
quoted() {
  local name='' text="$1"
  if [[ "$text" =~ ^--[a-z-]+= ]]; then
    name="${BASH_REMATCH[0]}"
    text="${text#"$name"}"
  fi
  if [[ ! "$text" =~ ^[A-Za-z0-9_.,:=/@%+*~-]+$ ]]; then
    text="${text//\\/\\\\}"
    text="\"${text//\"/\\\"}\""
  fi
  printf '%s' "$name$text"
}

# write_settings OPTION...: what is there is kept.
write_settings() {
  local line given=$#
  [ $# != 0 ] || set -- "${default_options[@]}"
  [[ " $*" == *" --storage-backend"* ]] || set -- "$@" "${storage[@]}"
  line="$(options_line "$@")"
  case "$line" in *$'\n'*) fail "an option with a line break can't be kept in $settings" ;; esac
  if [ ! -e "$settings" ]; then
    install -d -m 0755 "$(dirname "$settings")"
    install -m 0600 /dev/null "$settings"
    echo "CONFIGPROXY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')" >"$settings"
  fi
  if ! grep -q '^CHP_OPTIONS=' "$settings"; then
    printf '%s\n' "$line" >>"$settings"
  elif [ "$given" != 0 ] && ! grep -qxF -- "$line" "$settings"; then
    say "the options given are NOT used: $settings is kept, and has others"
    grep '^CHP_OPTIONS=' "$settings"
    echo "(To have those given, delete that line and run this again.)"
  fi
}

# Prints the unit, as this systemd knows it: from 253 on it sends the signal to reload itself, and
# waits until that is done.
unit_file() {
  local version
  version="$(systemctl --version 2>/dev/null | sed -nE '1s/^systemd ([0-9]+).*/\1/p')" || :
  if [ "${version:-0}" -ge 253 ]; then
    sed -e 's/^Type=notify$/Type=notify-reload/' -e '/^ExecReload=/d' "$root/conf/$unit"
  else
    cat "$root/conf/$unit"
  fi
}

# Whether the service runs, with the unit and the settings that there are now.
is_up_to_date() {
  local since
  systemctl is-active --quiet "$unit" || return 1
  [ "$(cat "/etc/systemd/system/$unit" 2>/dev/null)" = "$(unit_file)" ] || return 1
  since="$(systemctl show --property ActiveEnterTimestamp --value "$unit")"
  since="$(date -d "$since" +%s 2>/dev/null)" || return 1
  [ "$(stat -c %Y "$settings")" -lt "$since" ]
}

# Has the service become the version that is installed now; what it says of that is shown.
upgrade_service() {
  local begun said
  begun="$(date +%s)"
  systemctl reload "$unit"
  for _ in $(seq 90); do
    said="$(journalctl --no-pager --output cat --since "@$begun" --unit "$unit")" || :
    if grep 'not reloaded' <<<"$said"; then
      fail "the service goes on with the version before"
    fi
    ! grep -E 'took over|reloaded: ' <<<"$said" | grep -A1 'took over' || return 0
    sleep 1
  done
  fail "the service has not said that it has become the new version: journalctl --unit $unit"
}

start_service() {
  local begun installed="/etc/systemd/system/$unit"
  getent group "$group" >/dev/null || groupadd --system "$group"
  if [ -d /run/systemd/system ] && is_up_to_date; then
    upgrade_service
    return
  fi
  unit_file | install -m 0644 /dev/stdin "$installed"
  if [ ! -d /run/systemd/system ]; then
    say "systemd is not running here: the unit is installed, but nothing was started"
    return
  fi
  systemctl daemon-reload
  systemctl enable "$unit"
  # Or systemd refuses to start what has failed too often just now.
  systemctl reset-failed "$unit" 2>/dev/null || :
  begun="$(date +%s)"
  # Returns when the server is ready (Type=notify), or fails.
  systemctl restart "$unit" || {
    journalctl --sync || :
    journalctl --no-pager --lines 30 --since "@$begun" --unit "$unit"
    fail "the service does not start. Its options are in $settings: mend them there, then" \
      "systemctl restart $unit"
  }
}

install_package
check_options "$@"
write_settings "$@"
start_service
say "installed: $("$prefix/bin/chp-gevent" --version); options and token are in $settings"
