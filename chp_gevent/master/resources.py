"""What a server takes from the system before it starts: sockets, files, descriptors."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

from chp_gevent.config.acme_options import AcmeOptions
from chp_gevent.config.options import Address, OptionError, Options
from chp_gevent.master.listeners import adopted_listeners, close_listeners, open_listeners
from chp_gevent.proxy.access_log.files import check_file

# What extras bring, and the flags of the options that need them.
_LIBRARIES: Final = {
    "acme": ("acme", "cryptography", "josepy", "requests"),
    "redis": ("redis", "hiredis"),
}
_FLAGS: Final = {"acme": "--acme-domain", "redis": "--storage-backend"}


class ListeningSockets(NamedTuple):
    """The sockets of a server, by who serves them."""

    public: list[socket.socket]
    """Clients' requests: the workers."""

    redirect: list[socket.socket]
    """Clients' requests over plain HTTP, to be redirected: the workers, too."""

    management: dict[str, list[socket.socket]]
    """``api`` and perhaps ``metrics``: the management process."""

    def descriptors(self) -> dict[str, list[int]]:
        """Return the descriptors, by the names that :func:`open_sockets` takes them by."""
        named = {_PUBLIC: self.public, _REDIRECT: self.redirect, **self.management}
        return {name: [each.fileno() for each in some] for name, some in named.items() if some}


_PUBLIC = "public"
_REDIRECT = "redirect"


def open_sockets(
    options: Options,
    undo: contextlib.ExitStack,
    inherited: Mapping[str, Sequence[int]] | None = None,
) -> ListeningSockets:
    """Open all listening sockets. Raises ``OptionError``; what is open is closed by ``undo`` then.

    That leaves no UNIX sockets behind. ``inherited`` are the descriptors of those that an earlier
    version of this process has opened: they are used as they are.
    """
    left = dict(inherited or {})

    def opened(name: str, address: Address, flags: str) -> list[socket.socket]:
        if name in left:
            return adopted_listeners(left.pop(name))
        listeners = open_listeners(address, flags, options.backlog)
        undo.callback(close_listeners, listeners, unlink=True)
        return listeners

    public = opened(_PUBLIC, options.listen, "--")
    management = {"api": opened("api", options.api, "--api-")}
    if options.metrics is not None:
        management["metrics"] = opened("metrics", options.metrics, "--metrics-")
    redirect = []
    if options.redirect is not None:
        redirect = opened(_REDIRECT, options.redirect.address, "--redirect-")
    for descriptors in left.values():
        close_listeners(adopted_listeners(descriptors), unlink=True)
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
    if options.acme is not None:
        _check_storage(options.acme)
    check_error_path(options)


def extras_of(options: Options) -> list[str]:
    """Return the extras that the options need."""
    needed = {"acme": options.acme is not None, "redis": options.shared_store is not None}
    return [extra for extra, is_needed in needed.items() if is_needed]


def check_libraries(options: Options) -> None:
    """Check that there are the libraries that not everybody needs. Raises OptionError."""
    for extra in extras_of(options):
        if not all(map(find_spec, _LIBRARIES[extra])):
            raise OptionError(
                f"{_FLAGS[extra]}: needs more packages: pip install 'chp-gevent[{extra}]'"
            )


def _check_storage(options: AcmeOptions) -> None:
    try:
        os.makedirs(options.storage, mode=0o700, exist_ok=True)
    except OSError as error:
        reason = error.strerror
        raise OptionError(f"--acme-storage: {options.storage!r} can't be made: {reason}") from None
    if not os.access(options.storage, os.R_OK | os.W_OK | os.X_OK):
        raise OptionError(f"--acme-storage: cannot write into {options.storage!r}")


def check_error_path(options: Options) -> None:
    """Check what workers need of the file system besides TLS files. Raises OptionError."""
    if options.proxy.error_path is not None and not Path(options.proxy.error_path).is_dir():
        raise OptionError(f"--error-path: {options.proxy.error_path!r} is not a folder")
