"""What a server takes from the system before it starts: sockets, files, descriptors."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import NamedTuple

from chp_gevent.config.options import Address, OptionError, Options
from chp_gevent.master.listeners import close_listeners, open_listeners
from chp_gevent.proxy.access_log.files import check_file


class ListeningSockets(NamedTuple):
    """The sockets of a server, by who serves them."""

    public: list[socket.socket]
    """Clients' requests: the workers."""

    redirect: list[socket.socket]
    """Clients' requests over plain HTTP, to be redirected: the workers, too."""

    management: dict[str, list[socket.socket]]
    """``api`` and perhaps ``metrics``: the management process."""


def open_sockets(options: Options, undo: contextlib.ExitStack) -> ListeningSockets:
    """Open all listening sockets. Raises ``OptionError``; what is open is closed by ``undo`` then.

    That leaves no UNIX sockets behind.
    """

    def opened(address: Address, flags: str) -> list[socket.socket]:
        listeners = open_listeners(address, flags, options.backlog)
        undo.callback(close_listeners, listeners, unlink=True)
        return listeners

    public = opened(options.listen, "--")
    management = {"api": opened(options.api, "--api-")}
    if options.metrics is not None:
        management["metrics"] = opened(options.metrics, "--metrics-")
    redirect = []
    if options.redirect is not None:
        redirect = opened(options.redirect.address, "--redirect-")
    return ListeningSockets(public, redirect, management)


def check_files(options: Options) -> None:
    """Check what the server needs of the file system besides TLS files. Raises OptionError."""
    if options.pid_file is not None and not os.access(Path(options.pid_file).parent, os.W_OK):
        raise OptionError(f"--pid-file: cannot write into the folder of {options.pid_file!r}")
    if options.access_log is not None and options.access_log != "-":
        try:
            check_file(options.access_log)
        except OSError as error:
            raise OptionError(f"--access-log: {options.access_log!r}: {error.strerror}") from None
    check_error_path(options)


def check_error_path(options: Options) -> None:
    """Check what workers need of the file system besides TLS files. Raises OptionError."""
    if options.proxy.error_path is not None and not Path(options.proxy.error_path).is_dir():
        raise OptionError(f"--error-path: {options.proxy.error_path!r} is not a folder")
