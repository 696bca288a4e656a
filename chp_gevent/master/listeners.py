"""Listening sockets, opened once by the arbiter and inherited by everybody else."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterable, Mapping
from typing import Any

from gunicorn.sock import TCP6Socket, TCPSocket, UnixSocket

from chp_gevent.config.options import Address, OptionError, UnixAddress
from chp_gevent.http.socket_options import prepare_listener

# What is wrong with an address and not with its port.
_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

# What the name of loopback stands for where the system does not know it (RFC 6761, 6.3): an
# /etc/hosts without it, as in some containers, is no reason not to start.
_LOOPBACK_NAME = "localhost"
_LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))

_GUNICORN_CLASSES = {
    socket.AF_INET: TCPSocket,
    socket.AF_INET6: TCP6Socket,
    socket.AF_UNIX: UnixSocket,
}


def open_listeners(address: Address, flags: str, backlog: int) -> list[socket.socket]:
    """Listen on an address and return the sockets.

    An empty IP means all interfaces, IPv4 and IPv6; a name, all its addresses. ``flags`` is
    what the names of its options begin with: ``--`` or ``--api-``. Raises ``OptionError``.
    """
    try:
        if isinstance(address, UnixAddress):
            return [_open_unix(address.path, backlog)]
        if not address.ip:
            return [_open_everywhere(address.port, backlog)]
        return _open_name(address.ip, address.port, backlog)
    except OSError as error:
        flag = flags + _option_to_blame(address, error)
        raise OptionError(f"{flag}: cannot listen on {described(address)}: {_why(error)}") from None


def _option_to_blame(address: Address, error: OSError) -> str:
    if isinstance(address, UnixAddress):
        return "socket"
    of_address = isinstance(error, socket.gaierror) or error.errno in _NO_SUCH_ADDRESS
    return "ip" if of_address and address.ip else "port"


def adopted_listeners(descriptors: Iterable[int]) -> list[socket.socket]:
    """Return the sockets that an earlier version of this process has opened."""
    listeners = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    for listener in listeners:
        listener.set_inheritable(False)
    return listeners


def bound_files() -> dict[str, tuple[int, int]]:
    """Return device and inode of each UNIX socket that this process has bound, by path."""
    return dict(_bound)


def adopt_files(files: Mapping[str, tuple[int, int]]) -> None:
    """Take the files of UNIX sockets for our own that an earlier version has bound."""
    _bound.update(files)


def gunicorn_listener(listener: socket.socket, cfg: Any, log: Any) -> Any:
    """Return a listening socket in the form that gunicorn keeps it in.

    Its own ``create_sockets`` leaves one unclosed socket behind for each.
    """
    name, kind = listener.getsockname(), _GUNICORN_CLASSES[listener.family]
    return kind(name, cfg, log, fd=listener.detach())


def described(address: Address) -> str:
    """Return an address as CHP's log lines show it: ``ip:port``, or the path of a socket."""
    if isinstance(address, UnixAddress):
        return address.path
    host = f"[{address.ip}]" if ":" in address.ip else address.ip
    return f"{host}:{address.port}"


def close_listeners(listeners: list[socket.socket], *, unlink: bool) -> None:
    """Close sockets; with ``unlink``, remove the files of UNIX sockets too."""
    for listener in listeners:
        name = listener.getsockname() if listener.fileno() >= 0 else ""
        listener.close()
        if unlink and listener.family == socket.AF_UNIX and name:
            with contextlib.suppress(OSError):
                # Another server may have its socket there by now.
                if _identity(name) == _bound.get(name):
                    os.unlink(name)


def _open_name(name: str, port: int, backlog: int) -> list[socket.socket]:
    listeners: list[socket.socket] = []
    failure: OSError | None = None
    for family, sockaddr in _addresses(name, port):
        try:
            listeners.append(_open_tcp(family, sockaddr, backlog))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                close_listeners(listeners, unlink=False)
                raise
            # E.g. "localhost" with an IPv6 address on a machine without IPv6.
            failure = error
    if not listeners and failure is not None:
        raise failure
    return listeners


def _addresses(name: str, port: int) -> list[tuple[int, tuple[object, ...]]]:
    """Return the families and addresses that a name stands for. Raises ``socket.gaierror``."""
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror:
        if name.lower().rstrip(".") != _LOOPBACK_NAME:
            raise
        return [(family, (ip, port)) for family, ip in _LOOPBACK]
    return [(family, sockaddr) for family, *_, sockaddr in dict.fromkeys(found)]


def _open_everywhere(port: int, backlog: int) -> socket.socket:
    try:
        return _open_tcp(socket.AF_INET6, ("::", port), backlog)
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
    return _open_tcp(socket.AF_INET, ("0.0.0.0", port), backlog)


def _open_tcp(family: int, sockaddr: tuple[object, ...], backlog: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        # "::" is for both families; a literal IPv6 address for itself.
        only_v6 = int(sockaddr[0] != "::")
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_v6)
    return _listening(listener, sockaddr, backlog)


# Device and inode of each UNIX socket that this process has bound, by path.
_bound: dict[str, tuple[int, int]] = {}


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _open_unix(path: str, backlog: int) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(errno.EEXIST, "exists and is not a socket")
        _remove_if_dead(path)
    listener = _listening(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), path, backlog)
    _bound[path] = _identity(path)
    return listener


def _listening(
    listener: socket.socket, address: tuple[object, ...] | str, backlog: int
) -> socket.socket:
    """Have ``listener`` listen; close it if it can't."""
    try:
        prepare_listener(listener)
        listener.bind(address)
        listener.listen(backlog)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_if_dead(path: str) -> None:
    """Remove the socket that a dead predecessor left; raise if somebody listens on it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError:
            pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
