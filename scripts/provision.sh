#!/usr/bin/env bash
# Installs the proxy as a service on Debian 12 or later: scripts/provision.sh [OPTION-OF-THE-PROXY...]
#
# Run as root, from a checkout. Puts the package into /opt/chp-gevent, a fresh token and the
# options into /etc/chp-gevent/environment (which is kept if it exists), installs the unit and
# starts it. May be run again to upgrade. The Vagrantfile runs it in its box.
set -euo pipefail
. "$(dirname "$0")/lib/environment.sh"

readonly prefix=/opt/chp-gevent
readonly settings=/etc/chp-gevent/environment
readonly unit=chp-gevent.service
# Who may connect to UNIX sockets of the service; the unit names it, too.
readonly group=chp-gevent-sockets
readonly default_options=(--port 8000 --api-ip 127.0.0.1)

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
  local line
  line="$(options_line "${@:-${default_options[@]}}")"
  case "$line" in *$'\n'*) fail "an option with a line break can't be kept in $settings" ;; esac
  if [ ! -e "$settings" ]; then
    install -d -m 0755 "$(dirname "$settings")"
    install -m 0600 /dev/null "$settings"
    echo "CONFIGPROXY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')" >"$settings"
  fi
  if ! grep -q '^CHP_OPTIONS=' "$settings"; then
    printf '%s\n' "$line" >>"$settings"
  elif [ $# != 0 ] && ! grep -qxF -- "$line" "$settings"; then
    say "the options given are NOT used: $settings is kept, and has others"
    grep '^CHP_OPTIONS=' "$settings"
    echo "(To have those given, delete that line and run this again.)"
  fi
}

start_service() {
  local begun
  getent group "$group" >/dev/null || groupadd --system "$group"
  install -m 0644 "$root/conf/$unit" "/etc/systemd/system/$unit"
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
