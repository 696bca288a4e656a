#!/usr/bin/env bash
# Installs the proxy as a service on Debian 12: scripts/provision.sh [OPTION-OF-THE-PROXY...]
#
# Run as root, from a checkout. Puts the package into /opt/chp-gevent, a fresh token and the
# options into /etc/chp-gevent/environment (which is kept if it exists), installs the unit and
# starts it. May be run again to upgrade. The Vagrantfile runs it in its box.
set -euo pipefail
. "$(dirname "$0")/environment.sh"

readonly prefix=/opt/chp-gevent
readonly settings=/etc/chp-gevent/environment
readonly unit=chp-gevent.service

[ "$(id -u)" = 0 ] || fail "run this as root"

install_package() {
  local source
  # The system's own Python: the service can't look into anybody's home for another.
  [ -x /usr/bin/python3 ] || apt_install python3 python3-venv
  export PYTHON="${PYTHON:-/usr/bin/python3}"
  # A copy: the checkout may be read-only, and pip builds in place.
  source="$(mktemp -d)"
  cp -r "$root"/{setup.py,pyproject.toml,README.md,LICENSE,chp_gevent} "$source"
  make_environment "$prefix" "$source"
  rm -rf "$source"
}

write_settings() {
  [ -e "$settings" ] && return
  install -d -m 0755 "$(dirname "$settings")"
  install -m 0600 /dev/null "$settings"
  {
    echo "CONFIGPROXY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')"
    echo "CHP_OPTIONS=${*:---port 8000 --api-ip 127.0.0.1}"
  } >"$settings"
}

start_service() {
  install -m 0644 "$root/conf/$unit" "/etc/systemd/system/$unit"
  if [ ! -d /run/systemd/system ]; then
    say "systemd is not running here: the unit is installed, but nothing was started"
    return
  fi
  systemctl daemon-reload
  systemctl enable "$unit"
  # Returns when the sockets are open (Type=notify), or fails.
  systemctl restart "$unit" || {
    journalctl --no-pager --lines 30 --unit "$unit"
    fail "the service does not start"
  }
}

install_package
write_settings "$@"
start_service
say "installed: $("$prefix/bin/chp-gevent" --version); options and token are in $settings"
