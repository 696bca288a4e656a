"""The command line. The usage text below is the reference of all options."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from chp_gevent import __version__
from chp_gevent.config import argv as command_line
from chp_gevent.config import validate as option_parsing
from chp_gevent.config.options import OptionError, Options
from chp_gevent.runtime.systemd import error_line

USAGE = """\
A configurable HTTP proxy: routes are added and removed at run time over a REST API.

Usage:
  chp-gevent [options] [--custom-header HEADER]...

General:
  -h, --help                       Show this text.
  -V, --version                    Show the version.
  --log-level LEVEL                debug, info, warn or error. [default: info]
  --log-format FORMAT              chp (lines as CHP's) or json (an object a line). [default: chp]
  --access-log FILE                Write a line for each request to this file, or - for the log's
                                   output (default: no access log).
  --pid-file FILE                  Write the process id to this file while serving.

Where to listen for clients:
  --ip IP                          Address or host name; all interfaces, IPv4 and IPv6, when not
                                   given or empty.
  --port N                         Port; 0 is any free one. [default: 8000]
  --socket PATH                    UNIX socket, instead of an address and a port.
  --redirect-port N                Redirect HTTP requests on this port to HTTPS (all interfaces).
  --redirect-to N                  Port that redirections name, if not that of --port.
  --redirect-http                  Redirect requests to HTTPS that came to a trusted proxy in
                                   front over HTTP (X-Forwarded-Proto: http), to port 443 or that
                                   of --redirect-to. Needs --trusted-proxies.

TLS towards clients:
  --ssl-key FILE                   Private key (PEM). It may be encrypted with the passphrase in
                                   the environment variable CONFIGPROXY_SSL_KEY_PASSPHRASE.
  --ssl-cert FILE                  Certificate, and those between it and the root (PEM).
  --ssl-ca FILE                    Authorities that client certificates must come from (PEM).
  --ssl-request-cert               Require client certificates.
  --ssl-reject-unauthorized        Implied by the one before, as in CHP.
  --ssl-protocol NAME              Only this version of TLS: TLSv1_2 or TLSv1_3. SSLv23 is up to
                                   TLSv1_2, TLS all versions from there.
  --ssl-ciphers LIST               Cipher suites in OpenSSL's notation, separated by colons.
  --ssl-allow-rc4                  No effect: OpenSSL 3 has no RC4.
  --ssl-dhparam FILE               Diffie-Hellman parameters (PEM).

The REST API (its token is in the environment variable CONFIGPROXY_AUTH_TOKEN):
  --api-ip IP                      Address or host name; empty for all interfaces.
                                   [default: localhost]
  --api-port N                     Port (default: the one after --port).
  --api-socket PATH                UNIX socket, instead of an address and a port.
  --api-ssl-key FILE               As --ssl-key; CONFIGPROXY_API_SSL_KEY_PASSPHRASE.
  --api-ssl-cert FILE              As --ssl-cert.
  --api-ssl-ca FILE                As --ssl-ca.
  --api-ssl-request-cert           As --ssl-request-cert.
  --api-ssl-reject-unauthorized    As --ssl-reject-unauthorized.
  --storage-backend CLASS          Class that stores the routes: package.module.Class
                                   (default: they are kept in memory).

Targets:
  --default-target URL             Where requests without a route go: proto://host[:port].
  --error-target URL               Server to get error pages from: URL/CODE?url=REQUEST.
  --error-path DIR                 Folder with error pages: CODE.html, error.html; beside
                                   an --error-target, for when that fails.
  --client-ssl-key FILE            Private key for https targets (PEM).
  --client-ssl-cert FILE           Certificate for https targets (PEM).
  --client-ssl-ca FILE             Authorities that certificates of targets must come from (PEM),
                                   instead of those of the system.
  --client-ssl-request-cert        No effect, as in CHP.
  --client-ssl-reject-unauthorized  No effect, as in CHP: certificates of targets are verified.
  --insecure                       Don't verify certificates of targets.

Requests and answers:
  --host-routing                   The host name is the first segment of the routing path.
  --no-x-forward                   Don't add X-Forwarded-* headers.
  --no-prepend-path                Don't put the path of the target URL before the request's.
  --no-include-prefix              Cut the route's prefix off the request's path.
  --auto-rewrite                   Rewrite host and port of Location headers.
  --protocol-rewrite PROTO         Rewrite the protocol of Location headers: http or https.
  --change-origin                  Send the target's host in the Host header.
  --custom-header HEADER           Add "Name: value" to requests; may be repeated.
  --trusted-proxies LIST           Replace the X-Forwarded-* headers of all peers but these: IP
                                   addresses and networks (CIDR), separated by commas, or none.
                                   What these say is kept, and their address appended to -For.
                                   Without it, headers are appended to, whoever sent them.
  --proxy-protocol                 The --trusted-proxies begin each connection with a header of
                                   the PROXY protocol, version 1 or 2.

Timeouts (milliseconds):
  --timeout N                      Drop a client connection that is silent during a request
                                   (default: never).
  --proxy-timeout N                Answer 503 when a target is silent (default: never).
  --keep-alive-timeout N           Close a client connection without requests. [default: 5000]

Metrics:
  --metrics-ip IP                  Address or host name; all interfaces when not given or empty.
  --metrics-port N                 Port of the Prometheus metrics (default: no metrics server).
  --metrics-socket PATH            UNIX socket, instead of an address and a port.
  --statsd-host HOST               Send metrics to statsd (default: no statsd).
  --statsd-port N                  UDP port. [default: 8125]
  --statsd-prefix PREFIX           What the names begin with. [default: chp]

Processes and limits:
  --workers N                      Proxy processes (default: usable CPUs, at most 8).
  --drain-timeout SECONDS          Time for requests to finish when the server stops; tunnels
                                   are closed with the last request. [default: 30]
  --reload-drain-timeout SECONDS   Time for requests and tunnels of workers that are replaced.
                                   [default: 86400]
  --max-draining N                 Times --workers: the most that may drain; beyond, those that
                                   have drained for longest are cut off. [default: 8]
  --max-requests N                 Replace a worker after this many; 0 is never. [default: 0]
  --worker-connections N           Open client connections per worker. [default: 10000]
  --backlog N                      Connections waiting to be accepted. [default: 2048]
  --max-request-line BYTES         Longer ones are answered 414. [default: 16384]
  --max-header-size BYTES          Larger header sections are answered 431. [default: 65536]
  --max-headers N                  More header fields are answered 431. [default: 128]
  --header-timeout SECONDS         Time to receive a header section, else 408. [default: 60]
  --body-timeout SECONDS           Give up a client that sends nothing more of a body, or takes
                                   nothing more of an answer; 0 is never. [default: 300]
  --connect-timeout SECONDS        Time to connect to a target, its name and TLS included, else
                                   503. [default: 10]
"""


def parse(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> Options:
    """Turn an argument vector (without the program's name) into options.

    ``environ`` is where secrets are taken from, by default ``os.environ``.

    Raises OptionError with one line for the operator, and SystemExit(0) after answering
    ``--help`` or ``--version`` on stdout.
    """
    arguments = command_line.read(USAGE, argv, __version__)
    return option_parsing.options(arguments, os.environ if environ is None else environ)


def settings_from_environment(environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the gunicorn settings for the flags in ``CHP_ARGS``.

    For ``chp_gevent.gunicorn_conf``. Flags that can't be understood end the process with
    status 1 and one line.
    """
    from chp_gevent.master.gunicorn_app import gunicorn_settings

    arguments = (os.environ if environ is None else environ).get("CHP_ARGS", "")
    try:
        return gunicorn_settings(parse(shlex.split(arguments), environ))
    except ValueError as error:
        # OptionError is one; so is a quote that shlex finds no end of.
        sys.exit(error_line(f"error: CHP_ARGS: {error}"))


def _leave_lost_folder() -> None:
    """Go to ``/`` when the working directory has been removed: gunicorn asks for its name."""
    try:
        os.getcwd()
    except OSError:
        os.chdir("/")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the server with ``argv`` (by default ``sys.argv[1:]``) until it is stopped.

    What can't be started is one line on stderr and SystemExit(1).
    """
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
        _leave_lost_folder()
        # gunicorn is loaded for neither --help nor a mistake
        from chp_gevent.master.gunicorn_app import run

        run(options)
    except OptionError as error:
        sys.exit(error_line(f"error: {error}"))
