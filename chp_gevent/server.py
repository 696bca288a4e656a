"""From options to a running gunicorn: the one path behind both ways of starting."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from chp_gevent.arbiter import ProxyArbiter
from chp_gevent.options import OptionError, Options, UnixAddress

APPLICATION = "chp_gevent.proxy.wsgi:application"

# Seconds after which gunicorn replaces a worker that has stopped to beat.
_WORKER_TIMEOUT = 30


def gunicorn_settings(options: Options) -> dict[str, Any]:
    """Return the gunicorn settings, hooks included, for a server with these options."""

    def on_starting(arbiter: Arbiter) -> None:
        try:
            ProxyArbiter.adopt(arbiter, options)
        except OptionError as error:
            # Not raised: under the gunicorn command it would end in a traceback.
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)

    def when_ready(arbiter: ProxyArbiter) -> None:
        arbiter.ready()

    def pre_fork(arbiter: ProxyArbiter, worker: Any) -> None:
        arbiter.equip(worker)

    def post_fork(arbiter: ProxyArbiter, worker: Any) -> None:
        arbiter.begin_worker()

    def child_exit(arbiter: ProxyArbiter, worker: Any) -> None:
        arbiter.retire_row(worker)

    return {
        "wsgi_app": APPLICATION,
        "proc_name": "chp-gevent",
        # For display and comparison only: ProxyArbiter opens the sockets.
        "bind": _gunicorn_bind(options),
        "backlog": options.backlog,
        "workers": options.workers,
        "worker_class": "chp_gevent.proxy.worker.ProxyWorker",
        "worker_connections": options.worker_connections,
        "timeout": _WORKER_TIMEOUT,
        "graceful_timeout": math.ceil(options.drain_timeout) + 1,
        "worker_tmp_dir": "/dev/shm" if os.access("/dev/shm", os.W_OK) else None,
        "logger_class": "chp_gevent.logs.ProxyLogger",
        "loglevel": options.log_level,
        "errorlog": "-",
        # gunicorn would put a socket for its own command line under the user's home.
        "control_socket_disable": True,
        "on_starting": on_starting,
        "when_ready": when_ready,
        "pre_fork": pre_fork,
        "post_fork": post_fork,
        "child_exit": child_exit,
    }


def checked(options: Options) -> Options:
    """Return options whose files can be used. Raises ``OptionError``."""
    from chp_gevent import tls

    for server_tls in (options.tls, options.api_tls):
        if server_tls is not None:
            tls.check_server_tls(server_tls)
    tls.check_client_tls(options.proxy.client_tls)
    if options.pid_file is not None and not os.access(Path(options.pid_file).parent, os.W_OK):
        raise OptionError(f"--pid-file: cannot write into the folder of {options.pid_file!r}")
    if options.proxy.error_path is not None and not Path(options.proxy.error_path).is_dir():
        raise OptionError(f"--error-path: {options.proxy.error_path!r} is not a folder")
    return options


class _Server(BaseApplication):
    """The gunicorn application behind the ``chp-gevent`` command."""

    def __init__(self, options: Options) -> None:
        self._options = options
        super().__init__(prog="chp-gevent")

    def load_config(self) -> None:
        for name, value in gunicorn_settings(self._options).items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        from chp_gevent.proxy.wsgi import application

        return application


def run(options: Options) -> None:
    """Serve until stopped by a signal. Raises ``OptionError`` and ``SystemExit``."""
    _Server(checked(options)).run()


def _gunicorn_bind(options: Options) -> str:
    listen = options.listen
    if isinstance(listen, UnixAddress):
        return f"unix:{listen.path}"
    host = f"[{listen.ip}]" if ":" in listen.ip else listen.ip
    return f"{host or '[::]'}:{listen.port}"
