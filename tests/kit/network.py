"""A host of its own with links that can be cut, made of a network namespace."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

IP = shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin")


def _ip(*arguments: str) -> None:
    assert IP is not None
    subprocess.run([IP, *arguments], check=True, capture_output=True)


def why_skipped() -> str | None:
    """Return why there can be no such host here; None if there can."""
    if IP is None:
        return "no ip (apt install iproute2)"
    name = f"chp-probe-{os.getpid()}"
    try:
        _ip("netns", "add", name)
    except subprocess.CalledProcessError:
        return "no right to make a network namespace"
    _ip("netns", "del", name)
    return None


class Host:
    """A namespace with ``links`` to this one, each with an address of the host at its other end.

    Attributes:
        addresses: those that this side reaches it by, one for each link.
        prefix: what begins a command that runs on the host.
    """

    def __init__(self, name: str, links: int) -> None:
        assert IP is not None
        self._name = name
        self.prefix = [IP, "netns", "exec", name]
        # RFC 2544's addresses, which nobody else has.
        third = os.getpid() % 256
        self.addresses = [f"198.18.{third}.{4 * link + 2}" for link in range(links)]
        _ip("netns", "add", name)
        self._inside("link", "set", "lo", "up")
        for link in range(links):
            here, there = f"chp{os.getpid()}l{link}", self._end(link)
            _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
            _ip("addr", "add", f"198.18.{third}.{4 * link + 1}/30", "dev", here)
            self._inside("addr", "add", f"{self.addresses[link]}/30", "dev", there)
            _ip("link", "set", here, "up")
            self._inside("link", "set", there, "up")

    @staticmethod
    def _end(link: int) -> str:
        return f"link{link}"

    def _inside(self, *arguments: str) -> None:
        _ip("-n", self._name, *arguments)

    def cut(self, link: int) -> None:
        """Have all packets of a link be lost, without a word to either side."""
        self._inside("link", "set", self._end(link), "down")

    def mend(self, link: int) -> None:
        """Have them pass again."""
        self._inside("link", "set", self._end(link), "up")


@contextmanager
def another_host(links: int = 1) -> Iterator[Host]:
    """Make a host; it is gone, with its links, when the block ends."""
    name = f"chp-{os.getpid()}"
    try:
        yield Host(name, links)
    finally:
        _ip("netns", "del", name)
