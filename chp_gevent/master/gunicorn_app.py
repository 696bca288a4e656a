"""From options to a running gunicorn: the one path behind both ways of starting."""

from __future__ import annotations

import math
import sys
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from chp_gevent.config.options import OptionError, Options, UnixAddress
from chp_gevent.master import preflight
from chp_gevent.master.arbiter import ProxyArbiter
from chp_gevent.runtime.logs import ProxyLogger
from chp_gevent.runtime.systemd import error_line

APPLICATION = "chp_gevent.proxy.wsgi:application"

# Seconds after which gunicorn replaces a worker that has stopped to beat.
_WORKER_TIMEOUT = 30


def gunicorn_settings(options: Options) -> dict[str, Any]:
    """Return the gunicorn settings, hooks included, for a server with these options."""

    def on_first_setting(arbiter: Arbiter, new: int, old: int | None) -> None:
        # The first hook that gunicorn calls: before it has written a file or opened a socket.
        if preflight.is_asked():
            preflight.answer(options, arbiter.app.wsgi)

    def on_starting(arbiter: Arbiter) -> None:
        try:
            ProxyArbiter.adopt(arbiter, options)
        except OptionError as error:
            # Not raised: under the gunicorn command it would end in a traceback.
            print(error_line(f"error: {error}"), file=sys.stderr)
            sys.exit(1)
        except OSError as error:
            # No descriptor or no memory for what the processes share.
            print(f"error: cannot start: {error.strerror or error}", file=sys.stderr)
            sys.exit(1)

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
        "logger_class": ProxyLogger.writing(options.log_format),
        "loglevel": options.log_level,
        "errorlog": "-",
        # gunicorn would put a socket for its own command line under the user's home.
        "control_socket_disable": True,
        "nworkers_changed": on_first_setting,
        "on_starting": on_starting,
        "when_ready": ProxyArbiter.serve,
        "pre_fork": ProxyArbiter.assign_row,
        "post_fork": ProxyArbiter.begin_worker,
    }


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


def fault(options: Options) -> str | None:
    """Return in one line why a server with these options could not start, or None."""
    return preflight.fault(options, _Server(options).wsgi)


def run(options: Options) -> None:
    """Serve until stopped by a signal. Raises ``SystemExit``."""
    _Server(options).run()


def _gunicorn_bind(options: Options) -> str:
    listen = options.listen
    if isinstance(listen, UnixAddress):
        return f"unix:{listen.path}"
    host = f"[{listen.ip}]" if ":" in listen.ip else listen.ip
    return f"{host or '[::]'}:{listen.port}"
