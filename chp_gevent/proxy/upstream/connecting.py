"""Connecting to targets: from a name or an address to a connected socket.

A name with several addresses is connected to as RFC 8305 says ("happy eyeballs"), so that
one that is dead costs a quarter of a second, and that only once.

Imported in workers only, after monkey patching.
"""

from __future__ import annotations

import _socket
import errno
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import gevent
from gevent import getcurrent

from chp_gevent.http.stream import WRITE
from chp_gevent.names.addresses import Address, WorkingAddresses, literal_address
from chp_gevent.names.resolver import Resolver
from chp_gevent.proxy.upstream.failures import Stage, most_telling

# Seconds between two attempts to connect to addresses of one name (RFC 8305, 5).
ATTEMPT_DELAY = 0.25
# Seconds for which the address that worked is tried first, and how many are remembered at 0.4 KB
# each. RFC 6555, 4.1 has "on the order of 10 minutes": what was broken may be repaired.
WORKING_LIFETIME = 600.0
MAX_WORKING = 4096
# The pauses, in seconds, after which a UNIX socket whose queue is full is tried again: the kernel
# tells nobody when there is room.
FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.1

_IN_PROGRESS = (errno.EINPROGRESS, errno.EALREADY)
_NO_DELAY = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

Sock = _socket.socket
OnStage = Callable[[Stage], None]


class Connector:
    """Connects to targets, and remembers which of a name's addresses worked.

    Sockets are non-blocking, in their plainest wrapper. The methods wait for as long as it takes:
    the caller has a ``gevent.Timeout``. They raise ``OSError``, and what the resolver does.

    Attributes:
        timeout: seconds that a connection to a target may take, TLS handshake included.
    """

    def __init__(self, timeout: float, resolver: Resolver | None = None) -> None:
        self.timeout = timeout
        self._resolver = Resolver(timeout) if resolver is None else resolver
        self._working = WorkingAddresses(WORKING_LIFETIME, MAX_WORKING)

    def connect(self, host: str, port: int, on_stage: OnStage) -> Sock:
        """Connect to a port of a name or an address.

        ``on_stage`` is told when it is the resolver that is waited for, and when no more.
        """
        address = literal_address(host)
        if address is not None:
            return connect_to(address, port)
        on_stage(Stage.LOOK_UP)
        addresses = self._resolver.addresses(host)
        on_stage(Stage.CONNECT)
        if len(addresses) == 1:
            return connect_to(addresses[0], port)
        service = (host, port)
        order = self._working.in_order(service, addresses, time.monotonic())
        try:
            sock, worked = Race(order, port).run()
        except (OSError, gevent.Timeout):
            self._working.forget(service)
            raise
        self._working.note(service, order, worked, time.monotonic())
        return sock


def connect_to(address: Address, port: int) -> Sock:
    """Connect to one address. Raises ``OSError``."""
    sock = _tcp_socket(address)
    try:
        error = sock.connect_ex(address.with_port(port))
        if error in _IN_PROGRESS:
            _wait_writable(sock)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
    except BaseException:
        sock.close()
        raise
    return sock


def connect_to_unix(path: str) -> Sock:
    """Connect to a UNIX socket, waiting for a place in its queue. Raises ``OSError``."""
    sock = Sock(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        pause = FIRST_PAUSE
        while error := sock.connect_ex(path):
            if error != errno.EAGAIN:
                raise OSError(error, os.strerror(error))
            gevent.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
    except BaseException:
        sock.close()
        raise
    return sock


def _tcp_socket(address: Address) -> Sock:
    sock = Sock(address.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(*_NO_DELAY)
    except BaseException:
        sock.close()
        raise
    return sock


def _wait_writable(sock: Sock) -> None:
    hub = gevent.get_hub()
    watcher = hub.loop.io(sock.fileno(), WRITE)
    try:
        watcher.start(getcurrent().switch)
        hub.switch()
    finally:
        watcher.stop()
        watcher.close()


class _Attempt:
    """One address that is being connected to."""

    __slots__ = ("address", "over", "sock", "watcher")

    def __init__(self, address: Address, port: int, hub: Any, wake: Callable[[], None]) -> None:
        self.address = address
        self.sock = _tcp_socket(address)
        self.watcher: Any = None
        self.over = False
        try:
            error = self.sock.connect_ex(address.with_port(port))
            if error and error not in _IN_PROGRESS:
                raise OSError(error, os.strerror(error))
            self.watcher = hub.loop.io(self.sock.fileno(), WRITE)
            self.watcher.start(self._ended, wake)
        except BaseException:
            self.close()
            raise

    def _ended(self, wake: Callable[[], None]) -> None:
        self.over = True
        self.stop()
        wake()

    def error(self) -> OSError | None:
        """Return why an attempt that is over has failed, None if it has not."""
        error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return OSError(error, os.strerror(error)) if error else None

    def stop(self) -> None:
        """Look for the end of the attempt no longer."""
        if self.watcher is not None:
            self.watcher.stop()
            self.watcher.close()
            self.watcher = None

    def close(self) -> None:
        """Give the attempt up."""
        self.stop()
        self.sock.close()


class Race:
    """Attempts to connect to addresses of one name, the next one begun when the last is slow.

    That is, when it has not ended after ``ATTEMPT_DELAY``, or at once when one has failed.

    Args:
        addresses: at least one, in the order in which they are to be tried.
        port: the port of all of them.
    """

    def __init__(self, addresses: Sequence[Address], port: int) -> None:
        self._addresses = addresses
        self._port = port
        self._hub = gevent.get_hub()
        self._greenlet = getcurrent()
        self._attempts: list[_Attempt] = []
        self._errors: list[OSError] = []

    def run(self) -> tuple[Sock, Address]:
        """Return the first connected socket and its address; all others are closed.

        Raises ``OSError``: the one error of all the addresses that tells most.
        """
        try:
            for address in self._addresses:
                if self._begin(address) and (winner := self._wait(ATTEMPT_DELAY)):
                    return winner.sock, winner.address
            while self._attempts:
                if winner := self._wait(None):
                    return winner.sock, winner.address
        finally:
            for attempt in self._attempts:
                attempt.close()
        raise most_telling(self._errors)

    def _begin(self, address: Address) -> bool:
        try:
            attempt = _Attempt(address, self._port, self._hub, self._greenlet.switch)
        except OSError as error:
            self._errors.append(error)
            return False
        self._attempts.append(attempt)
        return True

    def _wait(self, seconds: float | None) -> _Attempt | None:
        """Wait until an attempt ends, or so long; return one that has succeeded."""
        timer = None
        try:
            if seconds is not None:
                timer = self._hub.loop.timer(seconds)
                timer.start(self._greenlet.switch, update=True)
            self._hub.switch()
        finally:
            if timer is not None:
                timer.stop()
                timer.close()
        return self._winner()

    def _winner(self) -> _Attempt | None:
        for attempt in [attempt for attempt in self._attempts if attempt.over]:
            self._attempts.remove(attempt)
            error = attempt.error()
            if error is None:
                return attempt
            self._errors.append(error)
            attempt.close()
        return None
