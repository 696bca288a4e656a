"""Listening sockets: names that the system does not know, and gunicorn's form of them."""

from __future__ import annotations

import gc
import os
import socket
import stat
import warnings
from pathlib import Path
from typing import Any

import pytest

from chp_gevent.config.options import OptionError, TcpAddress, UnixAddress
from chp_gevent.master.listeners import close_listeners, gunicorn_listener, open_listeners


@pytest.fixture
def no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that knows no name, as one without /etc/hosts."""

    def resolve(host: str, *rest: Any, **more: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.mark.usefixtures("no_names")
@pytest.mark.parametrize("name", ["localhost", "LocalHost."])
def test_localhost_is_loopback_also_where_the_system_does_not_know_it(name: str) -> None:
    listeners = open_listeners(TcpAddress(name, 0), "--api-", 5)
    addresses = [listener.getsockname()[0] for listener in listeners]
    close_listeners(listeners, unlink=False)
    assert addresses[0] == "127.0.0.1"
    assert set(addresses) <= {"127.0.0.1", "::1"}


@pytest.mark.usefixtures("no_names")
def test_another_name_that_nobody_knows_is_one_line() -> None:
    with pytest.raises(OptionError, match=r"^--api-ip: cannot listen on hub:1: name or service"):
        open_listeners(TcpAddress("hub", 1), "--api-", 5)


class Settings:
    """What gunicorn's sockets ask of its configuration."""

    reuse_port = False
    backlog = 5


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_listener_is_given_to_gunicorn_and_nothing_is_left_unclosed(
    kind: str, tmp_path: Path
) -> None:
    address = TcpAddress("127.0.0.1", 0) if kind == "tcp" else UnixAddress(str(tmp_path / "s"))
    (listener,) = open_listeners(address, "--", 5)
    name, family = listener.getsockname(), listener.family
    gc.collect()  # what other tests have left
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        given = gunicorn_listener(listener, Settings(), None)
        del listener
        gc.collect()
    assert caught == []
    assert (given.getsockname(), given.sock.family) == (name, family)
    with socket.socket(family) as client:
        client.connect(name)
    given.close()


@pytest.mark.parametrize(("mask", "mode"), [(0o007, 0o770), (0o077, 0o700)])
def test_who_may_connect_to_a_unix_socket_is_the_umask_s_to_say(
    mask: int, mode: int, tmp_path: Path
) -> None:
    before = os.umask(mask)
    try:
        listeners = open_listeners(UnixAddress(str(tmp_path / "s")), "--", 5)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == mode
    close_listeners(listeners, unlink=True)


def test_the_socket_of_another_server_is_left_where_it_is(tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "s"))
    first = open_listeners(address, "--", 5)
    os.unlink(address.path)
    second = socket.socket(socket.AF_UNIX)
    second.bind(address.path)
    close_listeners(first, unlink=True)
    assert os.path.exists(address.path)
    second.close()
